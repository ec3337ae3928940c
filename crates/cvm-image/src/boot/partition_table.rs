//! Writes the partition table: with the `gpt` crate, and with GUIDs that follow from the image id.
//! [`cvm_layout::gpt`] reads it.

use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom, Write},
};

use cvm_base::sha256;
use cvm_layout::{gpt::SECTOR, layout::Placement, manifest::ImageId};
use gpt::{
    GptConfig, disk::LogicalBlockSize, mbr::ProtectiveMBR, partition::Partition,
    partition_types as types,
};
use uuid::{Builder, Uuid};

use super::BootError;

/// Writes the protective MBR and both tables for `placement`; the same `image` gives the same
/// bytes.
///
/// `disk` is `placement.disk_bytes` long already. Types: ESP, XBOOTLDR, and "Linux file system"
/// for the rest, so that no automatism of systemd mounts what it finds.
pub(crate) fn write<D>(
    disk: &mut D,
    placement: &Placement,
    image: &ImageId,
) -> Result<(), BootError>
where
    D: Read + Write + Seek + std::fmt::Debug,
{
    let fail = |e: &dyn std::fmt::Display| BootError::Table(e.to_string());
    let sectors = u32::try_from(placement.disk_bytes / SECTOR - 1).unwrap_or(u32::MAX);
    disk.seek(SeekFrom::Start(0)).map_err(|e| fail(&e))?;
    ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(disk).map_err(|e| fail(&e))?;
    let mut table = GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .create_from_device(disk, Some(derived_guid(image, 0)))
        .map_err(|e| fail(&e))?;
    let partitions: BTreeMap<u32, Partition> = placement
        .partitions
        .iter()
        .map(|p| {
            let partition = Partition {
                part_type_guid: match p.number {
                    1 => types::EFI,
                    2 => types::FREEDESK_BOOT,
                    _ => types::LINUX_FS,
                },
                part_guid: derived_guid(image, p.number),
                first_lba: p.offset / SECTOR,
                last_lba: (p.offset + p.length) / SECTOR - 1,
                flags: 0,
                name: p.name.as_str().to_owned(),
            };
            (p.number, partition)
        })
        .collect();
    table.update_partitions(partitions).map_err(|e| fail(&e))?;
    table.write().map_err(|e| fail(&e)).map(drop)
}

/// A version 8 UUID (RFC 9562) from the image id; number 0 is the disk's.
fn derived_guid(image: &ImageId, number: u32) -> Uuid {
    let digest = sha256(&[b"flare-cvm:gpt".as_slice(), &image.0, &number.to_be_bytes()].concat());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.0[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use cvm_layout::{
        gpt::read,
        layout::{Contents, Layout, MIB, NAMES},
    };

    use super::*;

    fn disk() -> (Placement, Vec<u8>) {
        let layout = Layout::parse(include_str!("../../../../partitions/small.yaml")).unwrap();
        let placement = layout.place(&Contents::default()).unwrap();
        let mut disk = Cursor::new(vec![0; placement.disk_bytes as usize]);
        let image: ImageId = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
        write(&mut disk, &placement, &image).unwrap();
        (placement, disk.into_inner())
    }

    #[test]
    fn what_is_written_is_read_back_and_is_the_same_each_time() {
        let (placement, bytes) = disk();
        let entries = read(&bytes[..2 * MIB as usize]).unwrap();
        assert_eq!(entries.len(), 6);
        for ((entry, placed), name) in entries.iter().zip(&placement.partitions).zip(NAMES) {
            assert_eq!(
                (entry.number, entry.offset, entry.length),
                (placed.number, placed.offset, placed.length)
            );
            assert_eq!(entry.name, name);
        }
        assert_eq!(disk().1, bytes);
    }
}
