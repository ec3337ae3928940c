//! Secrets on the disk: one `age` file per folder, opened with a key file or a passphrase.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use age::secrecy::{ExposeSecret, SecretString};
use cvm_base::{FileError, interrupt, read_bounded, write_atomic};
use cvm_ceremony::split_key::SplitKeyError;
use zeroize::Zeroizing;

use crate::error::CustodyError;

/// The secrets' file in a folder.
pub const SECRETS_FILE: &str = "secrets.age";
/// The default key file beside it, an age identity. Move it to another medium to lock the folder.
pub const UNLOCK_FILE: &str = "unlock.key";
/// More than any file of a folder needs.
const MAX_FILE: u64 = 64 * 1024;

/// How a new folder's secrets are locked.
#[derive(Clone)]
pub enum Lock {
    /// With a new key file `unlock.key` in the folder.
    KeyFile,
    /// With a passphrase (scrypt, about one second).
    Passphrase(Zeroizing<String>),
}

/// What opens a folder's secrets.
#[derive(Clone)]
pub enum Unlock {
    /// A file with an age identity.
    KeyFile(PathBuf),
    /// A passphrase.
    Passphrase(Zeroizing<String>),
}

impl Unlock {
    /// `unlock.key` in the folder.
    pub fn beside(folder: &Path) -> Self {
        Self::KeyFile(folder.join(UNLOCK_FILE))
    }
}

/// A folder that appears whole or not at all.
pub(crate) struct NewFolder {
    staging: tempfile::TempDir,
    target: PathBuf,
    _guard: interrupt::PathGuard,
}

impl NewFolder {
    /// Starts a folder (mode 0700) that will be at `target`; refuses a non-empty one there.
    pub fn at(target: &Path) -> Result<Self, CustodyError> {
        let fail = |action, path: &Path| {
            let path = path.to_owned();
            move |source| FileError::Io { action, path, source }
        };
        match std::fs::read_dir(target).map(|mut entries| entries.next().is_some()) {
            Ok(true) => return Err(CustodyError::Exists(target.display().to_string())),
            Ok(false) => (),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
            Err(error) => return Err(fail("read the folder", target)(error).into()),
        }
        let parent =
            target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(fail("create the folder", parent))?;
        let staging = tempfile::Builder::new()
            .prefix(".flare-cvm-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(fail("create a folder in", parent))?;
        let _guard = interrupt::guard_path(staging.path());
        Ok(Self { staging, target: target.to_owned(), _guard })
    }

    /// Writes one file.
    pub fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), CustodyError> {
        Ok(write_atomic(&self.staging.path().join(name), bytes, mode)?)
    }

    /// Locks `secret` into `secrets.age`, and writes the key file where the lock is one.
    pub fn write_secrets(&self, secret: &[u8], lock: &Lock) -> Result<(), CustodyError> {
        let sealed = match lock {
            Lock::Passphrase(passphrase) => age::encrypt(
                &age::scrypt::Recipient::new(SecretString::from(passphrase.as_str())),
                secret,
            ),
            Lock::KeyFile => {
                let identity = age::x25519::Identity::generate();
                let text = identity.to_string();
                let file = Zeroizing::new(format!(
                    "# opens {SECRETS_FILE}; keep it apart from every copy of that file\n# public \
                     key: {}\n{}\n",
                    identity.to_public(),
                    text.expose_secret()
                ));
                self.write(UNLOCK_FILE, file.as_bytes(), 0o600)?;
                age::encrypt(&identity.to_public(), secret)
            }
        };
        let sealed = sealed.map_err(|e| CustodyError::Locked {
            path: SECRETS_FILE.into(),
            reason: e.to_string(),
        })?;
        self.write(SECRETS_FILE, &sealed, 0o600)
    }

    /// Puts the folder in its place.
    pub fn finish(self) -> Result<(), CustodyError> {
        let Self { staging, target, _guard } = self;
        std::fs::rename(staging.path(), &target).map_err(|source| FileError::Io {
            action: "rename a new folder to",
            path: target,
            source,
        })?;
        // Nothing is left at the old path to remove.
        let _ = staging.keep();
        Ok(())
    }
}

/// Makes a folder below a party's or builder's, where it is missing.
pub(crate) fn make_folder(path: &Path) -> Result<(), CustodyError> {
    let fail = |source| FileError::Io { action: "make the folder", path: path.to_owned(), source };
    Ok(std::fs::create_dir_all(path).map_err(fail)?)
}

/// Reads a public file of a folder.
pub(crate) fn read(folder: &Path, name: &str) -> Result<Vec<u8>, CustodyError> {
    Ok(read_bounded(&folder.join(name), MAX_FILE)?)
}

/// Opens a folder's secrets.
pub(crate) fn open_secrets(
    folder: &Path,
    unlock: &Unlock,
) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
    let sealed = read(folder, SECRETS_FILE)?;
    let opened = match unlock {
        Unlock::Passphrase(passphrase) => age::decrypt(
            &age::scrypt::Identity::new(SecretString::from(passphrase.as_str())),
            &sealed,
        ),
        Unlock::KeyFile(path) => age::decrypt(&identity_file(path)?, &sealed),
    };
    let path = || folder.join(SECRETS_FILE).display().to_string();
    opened
        .map(Zeroizing::new)
        .map_err(|e| CustodyError::Locked { path: path(), reason: e.to_string() })
}

/// The one age identity of a key file.
fn identity_file(path: &Path) -> Result<age::x25519::Identity, CustodyError> {
    let bytes = Zeroizing::new(read_bounded(path, MAX_FILE)?);
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let refuse = |reason: &str| CustodyError::Locked {
        path: path.display().to_string(),
        reason: reason.into(),
    };
    match (lines.next(), lines.next()) {
        (Some(line), None) => line.trim_end().parse().map_err(refuse),
        _ => Err(refuse("expected one line AGE-SECRET-KEY-1…")),
    }
}

/// Takes the first 32 bytes off a secret.
pub(crate) fn take32<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8; 32]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(first)
}

/// 32 bytes of the system's random source.
pub(crate) fn random32() -> Result<Zeroizing<[u8; 32]>, CustodyError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|e| SplitKeyError::Random(e.to_string()))?;
    Ok(bytes)
}
