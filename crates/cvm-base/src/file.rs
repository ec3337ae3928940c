//! Whole-or-nothing files and bounded reads.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use crate::{explain::Explain, interrupt, text::unmarked};

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is longer than its format allows.
    #[error("{path} is longer than the {limit} bytes that its format allows", path = path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most it may hold, in bytes.
        limit: u64,
    },
    /// A device, a socket or a named pipe: a read of it may never end.
    #[error("{path} is not a plain file", path = path.display())]
    NotPlain {
        /// What was named.
        path: PathBuf,
    },
    /// Text in another encoding than its format's.
    #[error("{path} is UTF-16 text, and its format is UTF-8", path = path.display())]
    Utf16 {
        /// The file.
        path: PathBuf,
    },
}

impl Explain for FileError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => "FILE-002",
            Self::Io { .. } => "FILE-001",
            Self::TooLong { .. } => "FILE-003",
            Self::NotPlain { .. } => "FILE-004",
            Self::Utf16 { .. } => "FILE-005",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => {
                    "the disk is full: free space or choose another output folder; nothing was \
                     replaced"
                        .into()
                }
                io::ErrorKind::NotFound => {
                    "check the path's spelling, and that the step which makes this file has run"
                        .into()
                }
                io::ErrorKind::PermissionDenied => {
                    "run as a user who may use this path, or choose another".into()
                }
                _ => "see the operating system's message above".into(),
            },
            Self::TooLong { .. } => "this is probably another kind of file: check the path".into(),
            Self::NotPlain { .. } => "name a file; copy what a device or a pipe gives into one \
                first"
                .into(),
            Self::Utf16 { .. } => "save it as UTF-8".into(),
        }
    }
}

/// Writes `bytes` to `path` so that a reader sees the old file or the new one, never a part.
///
/// Temporary file in the same folder, `fsync`, rename, `fsync` of the folder. `mode` is the Unix
/// permission of the new file (`0o600` for secrets).
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    write(path, bytes, mode, |temporary| temporary.persist(path).map(drop))
}

/// As [`write_atomic`], but only where nothing is at `path` yet. False, with nothing changed, where
/// something is.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, FileError> {
    match write(path, bytes, mode, |temporary| temporary.persist_noclobber(path).map(drop)) {
        Ok(()) => Ok(true),
        Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn write(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    persist: impl FnOnce(tempfile::NamedTempFile) -> Result<(), tempfile::PersistError>,
) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt;
    let fail = |action| move |source| FileError::Io { action, path: path.to_owned(), source };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new()
        .prefix(".flare-cvm-")
        .permissions(std::fs::Permissions::from_mode(mode))
        .tempfile_in(folder)
        .map_err(fail("create a temporary file beside"))?;
    let _guard = interrupt::guard_path(temporary.path());
    temporary.write_all(bytes).map_err(fail("write"))?;
    temporary.as_file().sync_all().map_err(fail("sync"))?;
    persist(temporary).map_err(|e| fail("replace")(e.error))?;
    File::open(folder).and_then(|f| f.sync_all()).map_err(fail("sync the folder of"))
}

/// Reads a file of at most `limit` bytes: a plain one, or what a shell opened for its program
/// (`<(…)`, `/dev/stdin`).
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let fail = |source| FileError::Io { action: "read", path: path.to_owned(), source };
    // Opening a named pipe already waits.
    let kind = std::fs::metadata(path).map_err(fail)?;
    let is_open = path == Path::new("/dev/stdin")
        || ["/dev/fd", "/proc/self/fd"].iter().any(|fd| path.starts_with(fd));
    if !kind.is_file() && !kind.is_dir() && !is_open {
        return Err(FileError::NotPlain { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLong { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// Reads text of at most `limit` bytes, without the byte order mark that an editor left. Binary
/// content, such as DER in place of PEM, is returned as it is.
pub fn read_text(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let bytes = read_bounded(path, limit)?;
    let text = unmarked(&bytes).map_err(|_| FileError::Utf16 { path: path.to_owned() })?;
    Ok(text.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomic(&path, b"old", 0o600).unwrap();
        // A folder is where the new file should go: the rename fails.
        let blocked = dir.path().join("b");
        std::fs::create_dir(&blocked).unwrap();
        std::fs::write(blocked.join("x"), b"x").unwrap();
        assert!(write_atomic(&blocked, b"new", 0o600).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn a_new_file_replaces_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert!(write_new(&path, b"first", 0o644).unwrap());
        assert!(!write_new(&path, b"second", 0o644).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_file_over_its_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomic(&path, b"12345", 0o644).unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
        assert_eq!(read_bounded(&path, 4).unwrap_err().code(), "FILE-003");
    }

    #[test]
    fn a_socket_is_no_file_and_marked_text_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap_err().code(), "FILE-004");
        assert_eq!(read_bounded(Path::new("/dev/zero"), 5).unwrap_err().code(), "FILE-004");
        let path = dir.path().join("t");
        write_atomic(&path, b"\xef\xbb\xbf{}", 0o644).unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), b"{}");
        write_atomic(&path, b"\xff\xfe{\0}\0", 0o644).unwrap();
        assert_eq!(read_text(&path, 9).unwrap_err().code(), "FILE-005");
    }
}
