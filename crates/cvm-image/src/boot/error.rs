//! What goes wrong while the boot artifacts are made.

use std::{io, path::PathBuf};

use cvm_base::{Explain, FileError};
use cvm_layout::{code_digest::CodeError, gpt::GptError, layout::LayoutError};

/// A boot artifact could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A program is missing.
    #[error("{tool} is not installed")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// Debian's and Ubuntu's package of it.
        package: &'static str,
    },
    /// A program failed.
    #[error("{tool} failed while {step} ({status}): {output}")]
    Tool {
        /// The program.
        tool: &'static str,
        /// What it was asked to do.
        step: &'static str,
        /// How it ended.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// A file that a package brings is missing.
    #[error("{path} is missing", path = path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
        /// Debian's and Ubuntu's package of it.
        package: &'static str,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The operating system refused something else.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file does not fit into a FAT image.
    #[error("cannot put {file} into the FAT image: {problem}")]
    Fat {
        /// The file.
        file: String,
        /// What the FAT writer said.
        problem: String,
    },
    /// The list of modules and the kernel do not fit together.
    #[error("initramfs/modules.list, {module}: {problem}")]
    Modules {
        /// The module.
        module: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A program or library for the initramfs cannot be used.
    #[error("{path} cannot go into the initramfs: {problem}", path = path.display())]
    Library {
        /// The program or library.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The compressed initramfs is over its limit.
    #[error("the initramfs has {bytes} bytes, expected at most {limit}; its largest files are {largest}")]
    InitramfsTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
        /// The three largest files in it.
        largest: String,
    },
    /// An EFI program cannot be read as one.
    #[error("{what} is no usable EFI program: {problem}")]
    Efi {
        /// Which one.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The firmware's variable store has another form than expected.
    #[error("the firmware's variable store cannot be filled: {0}")]
    Variables(&'static str),
    /// The folder of Secure Boot keys is incomplete or readable by others.
    #[error("the Secure Boot keys in {path} cannot be used: {problem}", path = path.display())]
    Keys {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Content and placement do not fit together.
    #[error("partition {number}: {problem}")]
    Partition {
        /// 1 to 6.
        number: u32,
        /// What is wrong.
        problem: String,
    },
    /// The layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The partition table.
    #[error(transparent)]
    Gpt(#[from] GptError),
    /// `cvm-init`'s code segment.
    #[error(transparent)]
    Code(#[from] CodeError),
}

impl BootError {
    /// For `map_err` on I/O at `path`.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// What tools say of a full disk.
const FULL: &str = "No space left";

impl Explain for BootError {
    fn code(&self) -> &'static str {
        match self {
            Self::MissingTool { .. } => "BOOT-001",
            Self::Tool { output, .. } if output.contains(FULL) => "BOOT-005",
            Self::Tool { .. } => "BOOT-002",
            Self::MissingFile { .. } => "BOOT-003",
            Self::File(e) => e.code(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => "BOOT-005",
            Self::Io { .. } => "BOOT-004",
            Self::Fat { .. } => "BOOT-006",
            Self::Modules { .. } => "BOOT-007",
            Self::Library { .. } => "BOOT-008",
            Self::InitramfsTooLarge { .. } => "BOOT-009",
            Self::Efi { .. } => "BOOT-010",
            Self::Variables(_) => "BOOT-011",
            Self::Keys { .. } => "BOOT-012",
            Self::Partition { .. } => "BOOT-013",
            Self::Layout(e) => e.code(),
            Self::Gpt(e) => e.code(),
            Self::Code(e) => e.code(),
        }
    }

    fn help(&self) -> String {
        match self {
            Self::MissingTool { package, .. } | Self::MissingFile { package, .. } => {
                format!("install it: apt-get install {package}")
            }
            Self::Tool { output, .. } if output.contains(FULL) => {
                "the disk is full: free space or choose another output folder; nothing was replaced".into()
            }
            Self::Tool { .. } => "see the tool's own words above; nothing was replaced".into(),
            Self::File(e) => e.help(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "the disk is full: free space or choose another output folder; nothing was replaced".into()
            }
            Self::Io { .. } => "see the operating system's message above".into(),
            Self::Fat { .. } => "give the partition a larger `size` in the layout file, or put less in".into(),
            Self::Modules { .. } => {
                "correct initramfs/modules.list: one name a line, a module below those that it needs; or build the stage \
                 with the kernel that the list was written for"
                    .into()
            }
            Self::Library { .. } => {
                "build cvm-init on the profile's own distribution (Debian 12 for debian-12) with its libraries installed: \
                 apt-get install libcryptsetup12 libtss2-tcti-device0"
                    .into()
            }
            Self::InitramfsTooLarge { .. } => {
                "take modules out of initramfs/modules.list, or dependencies out of cvm-init".into()
            }
            Self::Efi { .. } => "reinstall the package that it comes from: systemd-boot-efi, or the stage's kernel".into(),
            Self::Variables(_) => "use the OVMF_VARS_4M.fd of the package ovmf, fresh and empty".into(),
            Self::Keys { .. } => {
                "restore the folder from a backup, or move it away so that new keys are made: every image must then be \
                 provisioned anew"
                    .into()
            }
            Self::Partition { .. } => "place the partitions with the sizes of the files that go into them".into(),
            Self::Layout(e) => e.help(),
            Self::Gpt(e) => e.help(),
            Self::Code(e) => e.help(),
        }
    }
}
