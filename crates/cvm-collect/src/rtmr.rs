//! A TD's own measurements: registers that the running system extends (Linux 6.16).
//!
//! `Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest`: reading a file under
//! `measurements` gives the register, writing a digest extends it. Older kernels have no such
//! files.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use cvm_base::{Bytes, read_bounded};

use crate::error::CollectError;
use cvm_evidence::rtmr::{Bytes48, extend};

/// RTMR3, the system's own.
pub const RTMR3: &str = "/sys/devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384";

/// One register.
#[derive(Debug)]
pub struct Rtmr {
    path: PathBuf,
}

impl Rtmr {
    /// Finds the register's file.
    ///
    /// # Errors
    /// [`CollectError::Absent`] on kernels without it.
    pub fn open(path: &Path) -> Result<Self, CollectError> {
        fs::metadata(path).map_err(|error| {
            CollectError::io(path.display().to_string(), "be looked at", &error)
        })?;
        Ok(Self { path: path.into() })
    }

    /// Extends the register, and reads it back: a kernel that only claims to have done so is found
    /// out.
    ///
    /// # Errors
    /// [`CollectError`].
    pub fn extend(&self, digest: &Bytes48) -> Result<(), CollectError> {
        // One write: the kernel takes the whole digest or nothing.
        let write =
            |digest: &[u8]| OpenOptions::new().write(true).open(&self.path)?.write_all(digest);
        extend_checked(&self.path.display().to_string(), digest, || self.read(), write)
    }

    fn read(&self) -> Result<Bytes48, CollectError> {
        let bytes = read_bounded(&self.path, 48)?;
        let register = bytes.as_slice().try_into().map(Bytes);
        register.map_err(|_| {
            let problem = format!("{} bytes, expected 48", bytes.len());
            CollectError::answer(self.path.display().to_string(), problem)
        })
    }
}

fn extend_checked(
    name: &str,
    digest: &Bytes48,
    mut read: impl FnMut() -> Result<Bytes48, CollectError>,
    write: impl FnOnce(&[u8]) -> io::Result<()>,
) -> Result<(), CollectError> {
    let expected = extend(&read()?, digest);
    write(&digest.0).map_err(|error| CollectError::refused(name, "be extended", error))?;
    let found = read()?;
    if found == expected {
        return Ok(());
    }
    Err(CollectError::answer(
        name,
        format!("it is {found} after it was extended, expected {expected}"),
    ))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_register_is_extended_and_one_that_is_not_is_found_out() {
        let (register, digest) = (Cell::new(Bytes([0; 48])), Bytes([7; 48]));
        let write = |found: &[u8]| {
            register.set(extend(&register.get(), &Bytes(found.try_into().unwrap())));
            Ok(())
        };
        extend_checked("rtmr3", &digest, || Ok(register.get()), write).unwrap();
        assert_eq!(register.get(), extend(&Bytes([0; 48]), &digest));
        let lies = extend_checked("rtmr3", &digest, || Ok(register.get()), |_| Ok(())).unwrap_err();
        assert!(matches!(lies, CollectError::Answer { .. }), "{lies}");
        let refuses = |_: &[u8]| Err(io::ErrorKind::PermissionDenied.into());
        let refused = extend_checked("rtmr3", &digest, || Ok(register.get()), refuses).unwrap_err();
        assert!(matches!(refused, CollectError::Refused { .. }), "{refused}");
    }

    #[test]
    fn a_kernel_without_registers_is_told_from_a_broken_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rtmr3:sha384");
        assert!(matches!(Rtmr::open(&path), Err(CollectError::Absent { .. })));
        fs::write(&path, [1; 47]).unwrap();
        let short = Rtmr::open(&path).unwrap().extend(&Bytes([0; 48])).unwrap_err();
        assert!(short.to_string().contains("47 bytes"), "{short}");
    }
}
