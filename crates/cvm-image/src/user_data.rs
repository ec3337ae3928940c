//! A site's own data into p6 of a bundle's disk, in user space.
//!
//! p6 belongs to the site: it is neither encrypted nor authenticated, and the CVM mounts it read-only. So no key and no new image
//! are needed to change it, only that the CVM is off.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use cvm_base::Explain;

use crate::{
    WorkError,
    boot::{BootError, disk},
    tool::{self, Scratch},
};

/// p6's number.
const DATA: u32 = 6;
/// Folders deeper than this are taken for a loop.
const MAX_DEPTH: usize = 64;

/// The data could not be put into the disk.
#[derive(Debug, thiserror::Error)]
pub enum UserDataError {
    /// The disk could not be read or written.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A tool or the operating system failed.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// A file would be of no use in the CVM.
    #[error("{path} {problem}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The CVM runs, or something else has the disk open.
    #[error("{disk} is in use", disk = disk.display())]
    InUse {
        /// The disk.
        disk: PathBuf,
    },
    /// There is more data than room.
    #[error("the data does not fit into p6, which has {room} bytes: {source}")]
    TooLarge {
        /// p6's length.
        room: u64,
        /// What `mkfs.ext4` said.
        source: WorkError,
    },
}

impl Explain for UserDataError {
    fn code(&self) -> &'static str {
        match self {
            Self::Boot(e) => e.code(),
            Self::Work(e) => e.code(),
            Self::File { .. } => "DATA-001",
            Self::InUse { .. } => "DATA-002",
            Self::TooLarge { .. } => "DATA-003",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Boot(e) => e.help(),
            Self::Work(e) => e.help(),
            Self::File { .. } => {
                "in the CVM everything is read by NVFLARE's user, who owns nothing here: chmod -R a+rX FOLDER, and take devices, \
                 sockets and pipes out; the disk was not changed"
                    .into()
            }
            Self::InUse { .. } => "power the CVM off first (its power button ends it in order); the disk was not changed".into(),
            Self::TooLarge { .. } => {
                "provision with a larger user_data_drive_size (or `data` in the layout file), or put less in; the disk was not changed"
                    .into()
            }
        }
    }
}

/// Replaces p6's content by a new ext4 with the files of `folder`. The disk is replaced whole, by a rename, or not at all.
///
/// # Errors
/// [`UserDataError`]: a file that the CVM's unprivileged user could not read, a disk that a running CVM holds, too much data.
pub fn put(bundle: &Path, folder: &Path) -> Result<u64, UserDataError> {
    tool::require(&["mkfs.ext4", "qemu-img", "qemu-io", "cp"])?;
    let path = bundle.join("disk.qcow2");
    let bytes = readable(folder, 0)?;
    if disk::in_use(&path)? {
        return Err(UserDataError::InUse { disk: path });
    }
    let entry = disk::partition(&path, DATA)?;
    let scratch = Scratch::in_folder(bundle)?;
    let (data, copy) = (scratch.join("data"), scratch.join("disk.qcow2"));
    let too_large = |error| match error {
        WorkError::Tool { .. } => UserDataError::TooLarge { room: entry.length, source: error },
        other => other.into(),
    };
    disk::data_ext4(&data, entry.length, folder).map_err(|error| match error {
        BootError::Work(error) => too_large(error),
        other => other.into(),
    })?;
    let mut command = tool::command("cp");
    command.args(["--sparse=always", "--reflink=auto"]).arg(&path).arg(&copy);
    tool::run("cp", "copying the disk", command)?;
    disk::replace(&copy, &entry, &data)?;
    fs::File::open(&copy).and_then(|file| file.sync_all()).map_err(WorkError::io("write", &copy))?;
    fs::rename(&copy, &path).map_err(WorkError::io("replace", &path))?;
    Ok(bytes)
}

/// The bytes of a folder's files; an error names the first that everybody cannot read.
fn readable(folder: &Path, depth: usize) -> Result<u64, UserDataError> {
    let wrong = |path: &Path, problem| Err(UserDataError::File { path: path.to_owned(), problem });
    let metadata = fs::metadata(folder).map_err(WorkError::io("read", folder))?;
    if !metadata.is_dir() {
        return wrong(folder, "is not a folder");
    }
    if metadata.mode() & 0o005 != 0o005 && depth > 0 {
        return wrong(folder, "is a folder that not everybody may read and enter");
    }
    if depth > MAX_DEPTH {
        return wrong(folder, "lies too deep");
    }
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(WorkError::io("read", folder))? {
        let path = entry.map_err(WorkError::io("read", folder))?.path();
        let metadata = fs::symlink_metadata(&path).map_err(WorkError::io("read", &path))?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            bytes += readable(&path, depth + 1)?;
        } else if kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device() {
            return wrong(&path, "is neither a file, a folder nor a link");
        } else if kind.is_file() {
            if metadata.mode() & 0o004 == 0 {
                return wrong(&path, "is a file that not everybody may read");
            }
            bytes += metadata.len();
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_what_nvflares_user_can_read_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rows.csv");
        fs::write(&file, "1,2").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(readable(dir.path(), 0).unwrap(), 3);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(readable(dir.path(), 0).unwrap_err().code(), "DATA-001");
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
        assert_eq!(readable(dir.path(), 0).unwrap_err().code(), "DATA-001");
        assert_eq!(readable(&dir.path().join("absent"), 0).unwrap_err().code(), "WORK-003");
    }
}
