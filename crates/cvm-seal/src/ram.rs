//! A file in RAM that only this process can name.
//!
//! libcryptsetup reads headers from paths. With a path on the disk, the host could change the
//! header between the guard's reading and libcryptsetup's. So libcryptsetup gets an anonymous
//! memory file, which has no name in any file system and vanishes with its descriptor.

use std::{
    fs::File,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

use crate::error::SealError;

/// An anonymous memory file.
pub(crate) struct RamFile {
    file: File,
    path: PathBuf,
}

impl RamFile {
    /// A writable file of `length` zero bytes.
    pub(crate) fn zeroed(length: u64) -> Result<Self, SealError> {
        let name = "flare-cvm-header";
        let fail = |e: nix::Error| SealError::io("make the memory file", name)(e.into());
        let file: File = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
            .map_err(fail)?
            .into();
        file.set_len(length).map_err(SealError::io("size the memory file", name))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Ok(Self { file, path })
    }

    /// A file that holds `bytes` and that nobody can change.
    pub(crate) fn frozen(bytes: &[u8]) -> Result<Self, SealError> {
        let ram = Self::zeroed(bytes.len() as u64)?;
        ram.file.write_all_at(bytes, 0).map_err(SealError::io("write", &ram.path))?;
        let seals = SealFlag::F_SEAL_WRITE
            | SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_SEAL;
        fcntl(&ram.file, FcntlArg::F_ADD_SEALS(seals))
            .map_err(|e| SealError::io("freeze", &ram.path)(e.into()))?;
        Ok(ram)
    }

    /// Its path, valid in this process while the value lives.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its first `length` bytes.
    pub(crate) fn read(&self, length: usize) -> Result<Vec<u8>, SealError> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, 0).map_err(SealError::io("read", &self.path))?;
        Ok(bytes)
    }
}
