//! The finished disk: partitions placed into one raw image, packed as qcow2; and its parts read
//! back.
//!
//! A qcow2 file is read and changed through `qemu-img` and `qemu-io` only, one partition at a time:
//! they open a window of the disk as if it were a whole one.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use cvm_layout::{gpt, layout::Placement, manifest::ImageId};

use super::{BootError, partition_table};
use crate::{
    WorkError, sparse,
    tool::{self, Scratch},
};

/// Zeros of this length are left out of the image.
const BLOCK: usize = 64 * 1024;
/// Bytes at the disk's start that hold a whole partition table.
const TABLE_BYTES: u64 = 64 * 1024;

/// What goes into a partition.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// Nothing: p5, which the CVM makes on its first boot.
    Nothing,
    /// These bytes.
    Bytes(&'a [u8]),
    /// This file's bytes.
    File(&'a Path),
}

/// Makes `output` (qcow2), whole or not at all, from the contents of p1 to p6 in order.
///
/// While it works, it needs room beside `output` for one uncompressed copy of the contents.
pub fn build(
    output: &Path,
    placement: &Placement,
    image: &ImageId,
    contents: [Content; 6],
) -> Result<(), BootError> {
    let scratch = Scratch::in_folder(tool::folder_of(output))?;
    let (raw_path, packed) = (scratch.join("raw"), scratch.join("qcow2"));
    let fail = |path: &Path| WorkError::io("write", path.to_owned());
    let mut raw = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&raw_path)
        .map_err(fail(&raw_path))?;
    raw.set_len(placement.disk_bytes).map_err(fail(&raw_path))?;
    partition_table::write(&mut raw, placement, image)?;
    for (partition, content) in placement.partitions.iter().zip(contents) {
        let room = if partition.number == 3 { placement.state_offset } else { partition.length };
        let length = match content {
            Content::Nothing => continue,
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File(path) => path.metadata().map_err(WorkError::io("measure", path))?.len(),
        };
        if length > room {
            let problem = format!("its content is longer than its {room} bytes");
            return Err(BootError::Partition { number: partition.number, problem });
        }
        let mut copy = |mut from: &mut dyn Read, at| {
            raw.seek(SeekFrom::Start(partition.offset + at))?;
            copy_sparse(&mut from, &mut raw)
        };
        match content {
            Content::Nothing => {}
            Content::Bytes(mut bytes) => copy(&mut bytes, 0).map_err(fail(&raw_path))?,
            Content::File(path) => {
                let mut file = File::open(path).map_err(WorkError::io("read", path))?;
                for extent in sparse::extents(&file).map_err(WorkError::io("read", path))? {
                    file.seek(SeekFrom::Start(extent.start))
                        .map_err(WorkError::io("read", path))?;
                    copy(&mut (&file).take(extent.end - extent.start), extent.start)
                        .map_err(fail(&raw_path))?;
                }
            }
        }
    }

    let mut command = tool::command("qemu-img");
    command.args(["convert", "-f", "raw", "-O", "qcow2"]).arg(&raw_path).arg(&packed);
    tool::run("qemu-img", "packing the disk", command)?;
    File::open(&packed).and_then(|file| file.sync_all()).map_err(fail(&packed))?;
    std::fs::rename(&packed, output).map_err(WorkError::io("replace", output.to_owned()))?;
    Ok(())
}

/// Copies all of `from`, and seeks over zeros instead of writing them.
fn copy_sparse(from: &mut dyn Read, to: &mut File) -> std::io::Result<()> {
    let mut buffer = vec![0; BLOCK];
    loop {
        let mut filled = 0;
        while filled < BLOCK {
            match from.read(&mut buffer[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            return Ok(());
        }
        if buffer[..filled].iter().all(|byte| *byte == 0) {
            to.seek(SeekFrom::Current(filled as i64))?;
        } else {
            to.write_all(&buffer[..filled])?;
        }
    }
}

/// Makes an empty ext4 of `bytes` bytes for p6 at `path`; the same image id gives the same bytes.
///
/// Without a journal: the CVM mounts it read-only and could not replay one.
pub fn empty_ext4(path: &Path, bytes: u64, image: &ImageId) -> Result<(), BootError> {
    let uuid = tool::uuid(image);
    make_ext4(
        path,
        bytes,
        &[
            "-U",
            &uuid,
            "-E",
            &format!("hash_seed={uuid},lazy_itable_init=0,root_owner=0:0,nodiscard"),
        ],
    )
}

/// Makes the same with the files of `folder` in it, which has `entries` files, folders and links.
///
/// An ext4 has a fixed number of inodes; by default it is one for each 16 KiB, so that small files
/// would run out of inodes before they run out of room.
pub(crate) fn data_ext4(
    path: &Path,
    bytes: u64,
    folder: &Path,
    entries: u64,
) -> Result<(), BootError> {
    /// ext4 itself uses eleven, two of them for the root folder and `lost+found`.
    const RESERVED: u64 = 16;
    let (folder, inodes) = (folder.display().to_string(), (entries + RESERVED).to_string());
    make_ext4(
        path,
        bytes,
        &["-d", &folder, "-N", &inodes, "-E", "lazy_itable_init=0,root_owner=0:0,nodiscard"],
    )
}

fn make_ext4(path: &Path, bytes: u64, arguments: &[&str]) -> Result<(), BootError> {
    let file = File::create(path).map_err(WorkError::io("make", path))?;
    file.set_len(bytes).map_err(WorkError::io("write", path))?;
    let mut command = tool::command("mkfs.ext4");
    command
        .args(["-q", "-F", "-L", "data", "-m", "0", "-O", "^has_journal"])
        .args(arguments)
        .arg(path);
    tool::run("mkfs.ext4", "making the data partition", command)?;
    Ok(())
}

/// The partitions of a disk.
pub fn partitions(disk: &Path) -> Result<Vec<gpt::GptEntry>, BootError> {
    Ok(gpt::read(&table(disk)?)?)
}

/// A disk's first sectors: the partition table.
pub fn table(disk: &Path) -> Result<Vec<u8>, BootError> {
    let scratch = Scratch::new()?;
    let table = scratch.join("table");
    extract_window(disk, 0, TABLE_BYTES, &table)?;
    Ok(std::fs::read(&table).map_err(WorkError::io("read", &table))?)
}

/// Copies partition `number` of a disk into a (sparse) file at `to`.
pub fn extract(disk: &Path, number: u32, to: &Path) -> Result<(), BootError> {
    let entry = partition(disk, number)?;
    extract_window(disk, entry.offset, entry.length, to)
}

/// Changes bytes of a partition in place: what an attacker with the disk can do.
pub fn patch(disk: &Path, number: u32, offset: u64, bytes: &[u8]) -> Result<(), BootError> {
    let entry = partition(disk, number)?;
    let end = offset.saturating_add(bytes.len() as u64);
    if end > entry.length {
        let problem = format!("byte {end} lies after its end");
        return Err(BootError::Partition { number, problem });
    }
    let scratch = Scratch::new()?;
    let content = scratch.join("content");
    std::fs::write(&content, bytes).map_err(WorkError::io("write", &content))?;
    let mut command = tool::command("qemu-io");
    let write =
        format!("write -q -s {} {} {}", content.display(), entry.offset + offset, bytes.len());
    command.args(["-f", "qcow2", "-c", &write]).arg(disk);
    tool::run("qemu-io", "changing the disk", command)?;
    Ok(())
}

/// Whether another program, a running CVM most likely, has the disk open for writing.
pub(crate) fn in_use(disk: &Path) -> Result<bool, BootError> {
    let mut command = tool::command("qemu-io");
    command.args(["-f", "qcow2", "-c", "length"]).arg(disk);
    match tool::run("qemu-io", "opening the disk", command) {
        Ok(_) => Ok(false),
        Err(WorkError::Tool { output, .. }) if output.contains("lock") => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Writes `content`, which is as long as the partition, over it.
pub(crate) fn replace(disk: &Path, entry: &gpt::GptEntry, content: &Path) -> Result<(), BootError> {
    let mut command = tool::command("qemu-img");
    command.args(["convert", "-n", "-f", "raw", "--target-image-opts"]).arg(content);
    command.arg(window(disk, entry.offset, entry.length));
    tool::run("qemu-img", "writing the partition", command)?;
    Ok(())
}

pub(crate) fn partition(disk: &Path, number: u32) -> Result<gpt::GptEntry, BootError> {
    let missing =
        || BootError::Partition { number, problem: format!("{} has none", disk.display()) };
    partitions(disk)?.into_iter().find(|entry| entry.number == number).ok_or_else(missing)
}

fn extract_window(disk: &Path, offset: u64, length: u64, to: &Path) -> Result<(), BootError> {
    let mut command = tool::command("qemu-img");
    command
        .args(["convert", "-O", "raw", "--image-opts"])
        .arg(window(disk, offset, length))
        .arg(to);
    tool::run("qemu-img", "reading the disk", command)?;
    Ok(())
}

/// A part of a qcow2 disk, as qemu names it.
fn window(disk: &Path, offset: u64, length: u64) -> String {
    // In qemu's option syntax, a comma in a path is doubled.
    let path = disk.display().to_string().replace(',', ",,");
    format!(
        "driver=raw,offset={offset},size={length},file.driver=qcow2,file.file.driver=file,\
         file.file.filename={path}"
    )
}

#[cfg(test)]
mod tests {
    use cvm_layout::layout::{Contents, Layout, MIB, NAMES};

    use super::*;

    fn image() -> ImageId {
        "000102030405060708090a0b0c0d0e0f".parse().unwrap()
    }

    fn small() -> Placement {
        let layout = Layout::parse(include_str!("../../../../partitions/small.yaml")).unwrap();
        layout.place(&Contents::default()).unwrap()
    }

    #[test]
    fn partitions_come_back_as_they_went_in() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk.qcow2");
        let data = dir.path().join("data");
        let placement = small();
        empty_ext4(&data, placement.partitions[5].length, &image()).unwrap();
        let root: Vec<u8> = (0..3 * MIB).map(|i| (i / 4096 % 7) as u8).collect();
        let contents = [
            Content::Bytes(b"esp"),
            Content::Nothing,
            Content::Bytes(&root),
            Content::Bytes(b"config"),
            Content::Nothing,
            Content::File(&data),
        ];
        build(&disk, &placement, &image(), contents).unwrap();
        assert!(disk.metadata().unwrap().len() < 8 * MIB, "sparse");
        assert_eq!(dir.path().read_dir().unwrap().count(), 2, "no temporary file stays");

        let entries = partitions(&disk).unwrap();
        assert_eq!(entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), NAMES);
        let out = dir.path().join("out");
        extract(&disk, 3, &out).unwrap();
        let read = std::fs::read(&out).unwrap();
        assert_eq!(read.len() as u64, placement.partitions[2].length);
        assert!(read[..root.len()] == root[..] && read[root.len()..].iter().all(|b| *b == 0));
        extract(&disk, 6, &out).unwrap();
        assert!(std::fs::read(&out).unwrap() == std::fs::read(&data).unwrap());

        // Unaligned, as an attacker would.
        patch(&disk, 4, 3, b"XYZ").unwrap();
        extract(&disk, 4, &out).unwrap();
        assert_eq!(std::fs::read(&out).unwrap()[..8], *b"conXYZ\0\0");
        assert!(patch(&disk, 4, placement.partitions[3].length, b"x").is_err());
        assert!(patch(&disk, 7, 0, b"x").is_err());
    }

    #[test]
    fn the_same_contents_make_the_same_disk_and_other_tools_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let disk = dir.path().join(name);
            let contents = [Content::Bytes(&[5; 70_000]); 6];
            build(&disk, &small(), &image(), contents).unwrap();
            disk
        };
        let disk = make("a");
        assert!(std::fs::read(&disk).unwrap() == std::fs::read(make("b")).unwrap());

        let raw = dir.path().join("raw");
        let convert = |arguments: &[&str]| {
            std::process::Command::new("qemu-img").args(arguments).status().unwrap()
        };
        let (from, to) = (disk.to_str().unwrap(), raw.to_str().unwrap());
        assert!(convert(&["convert", "-O", "raw", from, to]).success());
        let output = std::process::Command::new("/usr/sbin/sfdisk")
            .args(["--verify", "--json", to])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !complaints.contains("corrupt"), "{text}{complaints}");
        let json =
            std::process::Command::new("/usr/sbin/sfdisk").args(["--json", to]).output().unwrap();
        let json = String::from_utf8_lossy(&json.stdout);
        for name in NAMES {
            assert!(json.contains(&format!("\"name\": \"{name}\"")), "{json}");
        }
        assert!(json.contains("BC13C2FF-59E6-4262-A352-B275FD6F7172"), "{json}");
    }

    #[test]
    fn content_that_is_too_long_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk.qcow2");
        std::fs::write(&disk, b"an earlier build").unwrap();
        let placement = small();
        // p3's room ends where `state` begins.
        let long = vec![1; placement.state_offset as usize + 1];
        let mut contents = [Content::Nothing; 6];
        contents[2] = Content::Bytes(&long);
        assert!(matches!(
            build(&disk, &placement, &image(), contents),
            Err(BootError::Partition { number: 3, .. })
        ));
        assert_eq!(std::fs::read(&disk).unwrap(), b"an earlier build");
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }
}
