//! Opening a LUKS2 area from a header that the guard passed.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use libcryptsetup_rs::{
    CryptInit, Either, LibcryptErr,
    consts::{flags::CryptActivate, vals::EncryptionFormat},
};
use nix::errno::Errno;

use super::device::path_of;
use crate::{
    error::SealError,
    format::{HEADER_BYTES, Protection},
    guard::GuardedHeader,
    keys::DiskKey,
    ram::RamFile,
};

/// Reads the header area at `offset` of `device`, once.
pub fn read_header(device: &Path, offset: u64) -> Result<Vec<u8>, SealError> {
    let mut bytes = vec![0; HEADER_BYTES];
    File::open(device)
        .and_then(|file| file.read_exact_at(&mut bytes, offset))
        .map_err(SealError::io("read the LUKS2 header of", device))?;
    Ok(bytes)
}

/// Opens the area that fills `device` as the mapping `name`, and returns its path.
///
/// `device` holds the header area and the data, and nothing after them: else map a slice with
/// [`super::linear`] first. [`Protection::Encrypted`] opens read-only,
/// [`Protection::Authenticated`] read-write. The kernel takes the volume key through the calling
/// thread's keyring. Nobody can read it back from there, and the keyring ends with the thread or at
/// `exec`.
pub fn open_sealed(
    name: &str,
    device: &Path,
    header: &GuardedHeader,
    key: &DiskKey,
) -> Result<PathBuf, SealError> {
    let ram = RamFile::frozen(header.as_bytes())?;
    let flags = match header.protection() {
        Protection::Encrypted => CryptActivate::READONLY,
        Protection::Authenticated => CryptActivate::empty(),
    };
    let opened = SealError::cryptsetup("open", device, || {
        let mut crypt = CryptInit::init_with_data_device(Either::Right((ram.path(), device)))?;
        crypt.context_handle().load::<()>(Some(EncryptionFormat::Luks2), None)?;
        crypt.activate_handle().activate_by_passphrase(Some(name), Some(0), key.expose(), flags)?;
        Ok(())
    });
    match opened {
        Ok(()) => path_of(name),
        Err(SealError::Cryptsetup { source: LibcryptErr::IOError(e), .. })
            if e.raw_os_error() == Some(Errno::EPERM as i32) =>
        {
            Err(SealError::WrongKey { path: device.to_owned() })
        }
        Err(error) => Err(error),
    }
}
