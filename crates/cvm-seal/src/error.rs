//! What may go wrong while an area is sealed, opened or made.

use std::{
    io,
    path::{Path, PathBuf},
};

use cvm_base::Explain;
use libcryptsetup_rs::LibcryptErr;

use crate::{guard::GuardError, messages};

/// Something could not be sealed, opened or made.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file or device.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// libcryptsetup refused.
    #[error("libcryptsetup cannot {action} {path}: {said}{source}", path = path.display())]
    Cryptsetup {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file or device.
        path: PathBuf,
        /// What libcryptsetup's log said, ending in a space; or nothing.
        said: String,
        /// What libcryptsetup returned.
        source: LibcryptErr,
    },
    /// The key opens no keyslot of a header that the guard passed.
    #[error("the key does not open {path}", path = path.display())]
    WrongKey {
        /// The device.
        path: PathBuf,
    },
    /// The kernel's device-mapper refused.
    #[error("device-mapper cannot {action} {name}: {source}")]
    DeviceMapper {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The mapping's name.
        name: String,
        /// What the kernel said.
        source: devicemapper::DmError,
    },
    /// A length or an offset is not a multiple of what it must be, or is zero where it must not be.
    #[error("{what} is {found}: expected a multiple of {multiple} above zero")]
    Alignment {
        /// Which number.
        what: &'static str,
        /// The number.
        found: u64,
        /// What it must be a multiple of.
        multiple: u64,
    },
    /// The header was not made by us, or was changed.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The file system could not be made.
    #[error("cannot make the file system for {name}: {source}")]
    MakeFileSystem {
        /// The mapping's name.
        name: String,
        /// What the tool's runner said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl SealError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// Runs calls of libcryptsetup on `path`, with its messages off the console and in the error.
    pub(crate) fn cryptsetup<T>(
        action: &'static str,
        path: &Path,
        calls: impl FnOnce() -> Result<T, LibcryptErr>,
    ) -> Result<T, Self> {
        messages::collect();
        calls().map_err(|source| {
            let said = messages::last().map(|said| said + " ").unwrap_or_default();
            Self::Cryptsetup { action, path: path.to_owned(), said, source }
        })
    }

    pub(crate) fn multiple_of(what: &'static str, found: u64, multiple: u64) -> Result<u64, Self> {
        if found == 0 || !found.is_multiple_of(multiple) {
            return Err(Self::Alignment { what, found, multiple });
        }
        Ok(found)
    }
}

impl Explain for SealError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => "SEAL-002",
            Self::Io { .. } => "SEAL-001",
            Self::Cryptsetup { .. } => "SEAL-003",
            Self::WrongKey { .. } => "SEAL-004",
            Self::DeviceMapper { .. } => "SEAL-005",
            Self::Alignment { .. } => "SEAL-006",
            Self::MakeFileSystem { .. } => "SEAL-007",
            Self::Guard(error) => error.code(),
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "the disk (or the memory of a tmpfs) is full: free space or choose another folder"
                    .into()
            }
            Self::Io { .. } => "see the operating system's message above".into(),
            Self::Cryptsetup { .. } => "on a build machine: check that the file is writable and \
                that /proc is mounted; in a CVM: a kernel module of the list is missing, or the \
                disk fails"
                .into(),
            Self::WrongKey { .. } => "the key holders' halves belong to another image or another \
                ceremony"
                .into(),
            Self::DeviceMapper { .. } => {
                "a kernel module of the list is missing, the name is taken, or the device is \
                 smaller than the manifest says"
                    .into()
            }
            Self::Alignment { .. } => "this is a mistake in the layout or in the caller: see \
                partitions/*.yaml"
                .into(),
            Self::MakeFileSystem { .. } => "see what mkfs said above; most often memory is too \
                small for its metadata"
                .into(),
            Self::Guard(error) => error.help(),
        }
    }
}
