//! A collector's key: one line of hex in a file, its public half beside it as `FILE.pub`.

use std::path::{Path, PathBuf};

use cvm_base::{FileError, read_bounded, unmarked, write_atomic};
use ed25519_dalek::{SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::error::{CacheError, CollateralError};

/// 64 hex digits and a line's end.
const MAX_BYTES: u64 = 80;

/// Reads a collector's key, or makes one if the file does not exist; says whether it did.
///
/// # Errors
/// [`CacheError`]; [`CollateralError::Unknown`] for a file that holds no key.
pub fn open_or_create_key(path: &Path) -> Result<(SigningKey, bool), CacheError> {
    if path.symlink_metadata().is_ok() {
        return Ok((SigningKey::from_bytes(&*read(path)?), false));
    }
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|e| {
        let source = std::io::Error::other(e.to_string());
        FileError::Io { action: "draw randomness for", path: path.to_owned(), source }
    })?;
    let key = SigningKey::from_bytes(&seed);
    // The public half first: a key without it would never be made again.
    let public = format!("{}\n", hex::encode(key.verifying_key().to_bytes()));
    write_atomic(&public_path(path), public.as_bytes(), 0o644)?;
    let secret = Zeroizing::new(format!("{}\n", *Zeroizing::new(hex::encode(*seed))));
    write_atomic(path, secret.as_bytes(), 0o600)?;
    Ok((key, true))
}

/// Reads a collector's public key (`FILE.pub`).
///
/// # Errors
/// As [`open_or_create_key`].
pub fn read_public_key(path: &Path) -> Result<VerifyingKey, CacheError> {
    VerifyingKey::from_bytes(&*read(path)?)
        .map_err(|_| no_key(path, "not a point of the curve").into())
}

/// The path of the public half of the key in `path`.
pub fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn read(path: &Path) -> Result<Zeroizing<[u8; 32]>, CacheError> {
    let text = Zeroizing::new(read_bounded(path, MAX_BYTES)?);
    let mut key = Zeroizing::new([0; 32]);
    // What is wrong is not quoted: it may be a secret.
    let digits = unmarked(&text).unwrap_or_default();
    hex::decode_to_slice(digits.trim_ascii_end(), &mut *key)
        .map_err(|_| no_key(path, "expected one line of 64 hex digits"))?;
    Ok(key)
}

fn no_key(path: &Path, problem: &str) -> CollateralError {
    CollateralError::unknown("a collector's key", format!("{}: {problem}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_key_is_made_once_and_its_public_half_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my.key");
        let (key, made) = open_or_create_key(&path).unwrap();
        assert!(made);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_public_key(&public_path(&path)).unwrap(), key.verifying_key());
        let (again, made) = open_or_create_key(&path).unwrap();
        assert_eq!((again.to_bytes(), made), (key.to_bytes(), false));
        for bad in ["", "00", &"g".repeat(64), &"0".repeat(200)] {
            fs::write(&path, bad).unwrap();
            let error = open_or_create_key(&path).unwrap_err();
            assert!(bad.is_empty() || !error.to_string().contains(bad), "{error}");
        }
    }
}
