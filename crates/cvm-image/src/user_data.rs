//! A site's own data into p6 of a bundle's disk, in user space.
//!
//! p6 belongs to the site: it is neither encrypted nor authenticated, and the CVM mounts it
//! read-only. So no key and no new image are needed to change it, only that the CVM is off.

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
/// Deeper folders are refused: they are most likely a loop.
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
    /// A file could not be used in the CVM.
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
        source: BootError,
    },
}

impl Explain for UserDataError {
    fn code(&self) -> &'static str {
        match self {
            Self::Boot(e) => e.code(),
            Self::Work(e) => e.code(),
            Self::File { .. } => "DATA-011",
            Self::InUse { .. } => "DATA-012",
            Self::TooLarge { .. } => "DATA-013",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Boot(e) => e.help(),
            Self::Work(e) => e.help(),
            Self::File { .. } => {
                "in the CVM everything is read by NVFLARE's user, who owns nothing here: chmod -R \
                 a+rX FOLDER, and take devices, sockets and pipes out; the disk was not changed"
                    .into()
            }
            Self::InUse { .. } => "power the CVM off first (its power button ends it in order); \
                the disk was not changed"
                .into(),
            Self::TooLarge { .. } => {
                "provision with a larger user_data_drive_size (or `data` in the layout file), or \
                 put less in; the disk was not changed"
                    .into()
            }
        }
    }
}

/// Replaces p6's content by a new ext4 with the files of `folder`, and gives their bytes. The disk
/// is replaced whole, by one rename, or not at all.
///
/// # Errors
/// [`UserDataError`]: a file that the CVM's unprivileged user could not read, a disk that a running
/// CVM holds, or too much data.
pub fn put(bundle: &Path, folder: &Path) -> Result<u64, UserDataError> {
    tool::require(&["mkfs.ext4", "qemu-img", "qemu-io", "cp"])?;
    let path = bundle.join("disk.qcow2");
    let FolderContent { bytes, entries } = readable(folder, 0)?;
    if disk::in_use(&path)? {
        return Err(UserDataError::InUse { disk: path });
    }
    let entry = disk::partition(&path, DATA)?;
    let scratch = Scratch::in_folder(bundle)?;
    let (data, copy) = (scratch.join("data"), scratch.join("disk.qcow2"));
    disk::data_ext4(&data, entry.length, folder, entries)
        .map_err(|error| not_made(error, entry.length))?;
    let mut command = tool::command("cp");
    command.args(["--sparse=always", "--reflink=auto"]).arg(&path).arg(&copy);
    tool::run("cp", "copying the disk", command)?;
    disk::replace(&copy, &entry, &data)?;
    fs::File::open(&copy)
        .and_then(|file| file.sync_all())
        .map_err(WorkError::io("write", &copy))?;
    fs::rename(&copy, &path).map_err(WorkError::io("replace", &path))?;
    Ok(bytes)
}

/// Tells a lack of room from other failures, by what `mkfs.ext4` prints (libext2fs,
/// `EXT2_ET_BLOCK_ALLOC_FAIL`, `EXT2_ET_TOOSMALL`).
fn not_made(error: BootError, room: u64) -> UserDataError {
    const NO_ROOM: [&str; 2] = ["Could not allocate block", "Not enough space to build"];
    match error {
        BootError::Work(WorkError::Tool { ref output, .. })
            if NO_ROOM.iter().any(|text| output.contains(text)) =>
        {
            UserDataError::TooLarge { room, source: error }
        }
        other => other.into(),
    }
}

/// What a folder holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct FolderContent {
    /// Of all files.
    bytes: u64,
    /// Files, folders and links.
    entries: u64,
}

/// What a folder holds. An error names the first file that not everybody can read.
fn readable(folder: &Path, depth: usize) -> Result<FolderContent, UserDataError> {
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
    let mut content = FolderContent::default();
    for entry in fs::read_dir(folder).map_err(WorkError::io("read", folder))? {
        let path = entry.map_err(WorkError::io("read", folder))?.path();
        let metadata = fs::symlink_metadata(&path).map_err(WorkError::io("read", &path))?;
        let kind = metadata.file_type();
        content.entries += 1;
        if kind.is_dir() {
            let below = readable(&path, depth + 1)?;
            content.bytes += below.bytes;
            content.entries += below.entries;
        } else if kind.is_fifo()
            || kind.is_socket()
            || kind.is_block_device()
            || kind.is_char_device()
        {
            return wrong(&path, "is neither a file, a folder nor a link");
        } else if kind.is_file() {
            if metadata.mode() & 0o004 == 0 {
                return wrong(&path, "is a file that not everybody may read");
            }
            content.bytes += metadata.len();
        }
    }
    Ok(content)
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
        assert_eq!(readable(dir.path(), 0).unwrap(), FolderContent { bytes: 3, entries: 1 });
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(readable(dir.path(), 0).unwrap_err().code(), "DATA-011");
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(
            &dir.path().join("pipe"),
            nix::sys::stat::Mode::from_bits_truncate(0o644),
        )
        .unwrap();
        assert_eq!(readable(dir.path(), 0).unwrap_err().code(), "DATA-011");
        assert_eq!(readable(&dir.path().join("absent"), 0).unwrap_err().code(), "WORK-003");
    }

    /// 16 MiB have 4096 inodes where nobody asks for more. Seen with 70 000 small pictures on 1 GB.
    #[test]
    fn many_small_files_do_not_run_out_of_inodes() {
        let (dir, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for file in 0..6000 {
            fs::write(dir.path().join(file.to_string()), "").unwrap();
        }
        let FolderContent { entries, .. } = readable(dir.path(), 0).unwrap();
        disk::data_ext4(&image.path().join("data"), 16 << 20, dir.path(), entries).unwrap();
    }

    #[test]
    fn only_a_lack_of_room_is_called_too_large() {
        const ROOM: u64 = 4 << 20;
        let (dir, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(dir.path().join("large"), vec![1; 6 << 20]).unwrap();
        let data = image.path().join("data");
        let large =
            disk::data_ext4(&data, ROOM, dir.path(), 1).map_err(|e| not_made(e, ROOM)).unwrap_err();
        assert_eq!(large.code(), "DATA-013", "{large}");
        let other = disk::data_ext4(&data, ROOM, &dir.path().join("absent"), 1)
            .map_err(|e| not_made(e, ROOM));
        let other = other.unwrap_err();
        assert_ne!(other.code(), "DATA-013", "{other}");
    }
}
