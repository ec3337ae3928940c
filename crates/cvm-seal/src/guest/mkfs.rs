//! How `mke2fs` must be run so that ext4 never reads a block that was not copied.

use std::{ffi::OsString, path::Path};

/// Bytes of device for each inode: an inode table is written and copied whole, so there are few.
const BYTES_PER_INODE: u64 = 256 * 1024;
const MIB: u64 = 1024 * 1024;

/// Environment of `mke2fs`.
///
/// `UNIX_IO_NOZEROOUT`: on a file, `mke2fs` "writes" the zeros of inode tables and of the journal
/// by punching holes. A hole is not copied, and the kernel reads those blocks.
pub const ENVIRONMENT: &[(&str, &str)] = &[("UNIX_IO_NOZEROOUT", "1")];

/// Arguments of `mke2fs` (e2fsprogs 1.47) for a file system of `length` bytes in the file `image`,
/// whose root folder belongs to `owner` (user and group id).
///
/// Nothing is left for later (`lazy_*=0`), blocks are dm-crypt's sectors, the journal is small (it
/// is written whole), and there is no resize inode (its reserved blocks would be written for
/// nothing). After an error, which here is a sector with a wrong tag, nothing is written any more.
pub fn arguments(image: &Path, length: u64, owner: (u32, u32)) -> Vec<OsString> {
    let journal = if length >= 1024 * MIB { 8 } else { 4 };
    let (user, group) = owner;
    let mut arguments: Vec<OsString> =
        ["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0", "-e", "remount-ro"]
            .map(Into::into)
            .into();
    arguments.extend([
        "-O".into(),
        "metadata_csum,^resize_inode".into(),
        "-i".into(),
        BYTES_PER_INODE.to_string().into(),
        "-J".into(),
        format!("size={journal}").into(),
        "-E".into(),
        format!("lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner={user}:{group}")
            .into(),
        image.into(),
    ]);
    arguments
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::FileExt as _, process::Command};

    use super::*;

    #[test]
    fn a_file_system_that_meets_an_error_is_written_no_more() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let length = 64 * MIB;
        image.as_file().set_len(length).unwrap();
        let mut command = Command::new("/usr/sbin/mkfs.ext4");
        command.args(arguments(image.path(), length, (990, 990))).envs(ENVIRONMENT.iter().copied());
        assert!(command.status().unwrap().success());
        // The superblock's s_errors: 1 continues, 2 remounts read-only.
        let mut errors = [0; 2];
        image.as_file().read_exact_at(&mut errors, 1024 + 60).unwrap();
        assert_eq!(u16::from_le_bytes(errors), 2);
    }
}
