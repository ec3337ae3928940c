//! The first boot: an authenticated area with a file system, made without wiping the disk.
//!
//! A sector has no integrity tag until it is written, and writing all sectors of 10 GiB takes a
//! minute. Instead the file system is made in a sparse file in RAM, and only what `mkfs` wrote is
//! copied to the device. Then every allocated block has a tag, and a free block is written before
//! it is read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{device::close, extents, sealed::open_sealed};
use crate::{
    error::SealError,
    format::{HEADER_BYTES, Protection},
    guard::{GuardedHeader, record},
    keys::{DiskKey, MacKey},
    luks,
    ram::RamFile,
};

/// Bytes at each end of a device in which signatures of file systems and RAIDs are looked for.
const PROBED: u64 = 1024 * 1024;

/// Formats `device`, makes a file system in it and leaves it open as the mapping `name`.
///
/// `mkfs` gets the path of a sparse file of the mapped device's length, made at `scratch` (on a
/// tmpfs, where the tool can see it) and removed afterwards: see [`super::mkfs`] for what it must
/// write. The header reaches the disk after the file system, and its seal record last of all. A
/// first boot that dies in the middle leaves an area that the guard refuses, so the next boot can
/// begin again.
///
/// Returns the mapping's path and the header, whose digest the key holders must remember.
pub fn create_authenticated<E>(
    name: &str,
    device: &Path,
    key: &DiskKey,
    mac_key: &MacKey,
    scratch: &Path,
    mkfs: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(PathBuf, GuardedHeader), SealError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let header = make_header(device, key, mac_key)?;
    let path = open_sealed(name, device, &header, key)?;
    let fill = || {
        make_file_system(name, &path, scratch, mkfs)?;
        write_header(device, header.as_bytes())
    };
    if let Err(error) = fill() {
        // The first error is the one to report.
        let _ = close(name);
        return Err(error);
    }
    Ok((path, header))
}

/// Makes the header in RAM, and dm-integrity's superblock and journal on the disk.
fn make_header(device: &Path, key: &DiskKey, mac_key: &MacKey) -> Result<GuardedHeader, SealError> {
    let protection = Protection::Authenticated;
    let ram = RamFile::zeroed(HEADER_BYTES as u64)?;
    let volume_key = luks::random_volume_key(protection)?;
    luks::format_header(&ram, Some(device), protection, key, &volume_key)?;
    luks::finish_header(&ram, protection, mac_key)
}

fn make_file_system<E>(
    name: &str,
    mapped: &Path,
    scratch: &Path,
    mkfs: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), SealError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let length = File::open(mapped)
        .and_then(|mut device| device.seek(SeekFrom::End(0)))
        .map_err(SealError::io("measure", mapped))?;
    let image = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(scratch)
        .and_then(|file| sparse(&file, length).map(|()| file))
        .map_err(SealError::io("make the sparse file", scratch))?;
    let filled = mkfs(scratch)
        .map_err(|source| SealError::MakeFileSystem {
            name: name.to_owned(),
            source: source.into(),
        })
        .and_then(|()| extents::copy(&image, mapped));
    let removed = fs::remove_file(scratch).map_err(SealError::io("remove", scratch));
    filled.and(removed)
}

/// Gives the file its length, and zeros at both ends: udev and blkid look there for other formats'
/// signatures, and a read of a block without a tag would fill the kernel's log with false alarms.
fn sparse(file: &File, length: u64) -> io::Result<()> {
    file.set_len(length)?;
    let zeros = vec![0; PROBED.min(length) as usize];
    file.write_all_at(&zeros, 0)?;
    file.write_all_at(&zeros, length - zeros.len() as u64)
}

/// Writes all but the seal record, and when that is on the disk, the record.
fn write_header(device: &Path, header: &[u8]) -> Result<(), SealError> {
    let write = || {
        let file = OpenOptions::new().write(true).open(device)?;
        let (body, record) = header.split_at(record::OFFSET);
        for (bytes, offset) in [(body, 0), (record, record::OFFSET as u64)] {
            file.write_all_at(bytes, offset)?;
            file.sync_all()?;
        }
        Ok(())
    };
    write().map_err(SealError::io("write the header of", device))
}
