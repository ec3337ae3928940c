//! What goes wrong while the boot artifacts are made.

use std::path::PathBuf;

use cvm_base::{Explain, FileError};
use cvm_layout::{code_digest::CodeError, gpt::GptError, layout::LayoutError};

use crate::WorkError;

/// A boot artifact could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A tool or the operating system failed.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// A file of a package is missing.
    #[error("{path} is missing", path = path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
        /// Its package in Debian and Ubuntu.
        package: &'static str,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
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
    #[error(
        "the initramfs has {bytes} bytes, expected at most {limit}; its largest files are {largest}"
    )]
    InitramfsTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
        /// The three largest files in it.
        largest: String,
    },
    /// An EFI program cannot be read as one.
    #[error("{what} is not a usable EFI program: {problem}")]
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
    /// A part of the boot chain would let the host speak to the running guest.
    #[error("{what} {problem}")]
    HostChannel {
        /// The part.
        what: &'static str,
        /// How it would.
        problem: String,
    },
    /// The layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The partition table cannot be read.
    #[error(transparent)]
    Gpt(#[from] GptError),
    /// The partition table cannot be written.
    #[error("cannot write the partition table: {0}")]
    Table(String),
    /// `cvm-init`'s code segment.
    #[error(transparent)]
    Code(#[from] CodeError),
}

impl Explain for BootError {
    fn code(&self) -> &'static str {
        match self {
            Self::Work(e) => e.code(),
            Self::MissingFile { .. } => "BOOT-003",
            Self::File(e) => e.code(),
            Self::Fat { .. } => "BOOT-006",
            Self::Modules { .. } => "BOOT-007",
            Self::Library { .. } => "BOOT-008",
            Self::InitramfsTooLarge { .. } => "BOOT-009",
            Self::Efi { .. } => "BOOT-010",
            Self::Variables(_) => "BOOT-011",
            Self::Keys { .. } => "BOOT-012",
            Self::Partition { .. } => "BOOT-013",
            Self::HostChannel { .. } => "BOOT-014",
            Self::Layout(e) => e.code(),
            Self::Gpt(e) => e.code(),
            Self::Table(_) => "GPT-003",
            Self::Code(e) => e.code(),
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Work(e) => e.help(),
            Self::MissingFile { package, .. } => {
                format!("install it: apt-get install {package}")
            }
            Self::File(e) => e.help(),
            Self::Fat { .. } => "give the partition a larger `size` in the layout file, or put \
                less in"
                .into(),
            Self::Modules { .. } => {
                "correct initramfs/modules.list: one name per line, each module below those that \
                 it needs; or build the stage with the kernel that the list was written for"
                    .into()
            }
            Self::Library { .. } => {
                "build cvm-init on the profile's own distribution (Debian 12 for debian-12) with \
                 its libraries installed: apt-get install libcryptsetup12 libtss2-tcti-device0"
                    .into()
            }
            Self::InitramfsTooLarge { .. } => {
                "take modules out of initramfs/modules.list, or dependencies out of cvm-init".into()
            }
            Self::Efi { .. } => "reinstall the package that it comes from: systemd-boot-efi, or \
                the stage's kernel"
                .into(),
            Self::Variables(_) => {
                "use the OVMF_VARS_4M.fd of the package ovmf, fresh and empty".into()
            }
            Self::Keys { .. } => {
                "restore the folder from a backup, or move it away so that new keys are made: \
                 every image must then be provisioned anew"
                    .into()
            }
            Self::Partition { .. } => "place the partitions with the sizes of the files that go \
                into them"
                .into(),
            Self::HostChannel { .. } => {
                "build on Debian 12 with its systemd-boot-efi and an unchanged flare-cvm: \
                 otherwise whoever runs the machine could give orders to a guest that it cannot \
                 look into"
                    .into()
            }
            Self::Layout(e) => e.help(),
            Self::Gpt(e) => e.help(),
            Self::Table(_) => "see the message above; most likely the disk is full".into(),
            Self::Code(e) => e.help(),
        }
    }
}
