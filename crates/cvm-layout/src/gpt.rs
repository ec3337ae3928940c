//! The GUID partition table (UEFI specification 2.10, chapter 5): written with the `gpt` crate,
//! with GUIDs that follow from the image id, and read by a bounded parser of our own.

use cvm_base::Explain;

/// Bytes of a sector; both tables count in these.
pub const SECTOR: u64 = 512;
/// More entries than any table of ours has; the usual number.
const MAX_ENTRIES: u32 = 128;
const ENTRY_BYTES: usize = 128;

/// One used entry of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// 1-based.
    pub number: u32,
    /// The type GUID as it lies on the disk (mixed-endian).
    pub type_guid: [u8; 16],
    /// The partition's own GUID as it lies on the disk.
    pub guid: [u8; 16],
    /// First byte on the disk.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Its name, up to the first NUL; at most 36 UTF-16 units.
    pub name: String,
}

/// Why a table is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GptError {
    /// The bytes end before the table does.
    #[error("the partition table needs {needed} bytes of the disk, {found} are there")]
    Short {
        /// Bytes that the table reaches to.
        needed: u64,
        /// Bytes given.
        found: u64,
    },
    /// A field has a value that this reader does not accept.
    #[error("the partition table's {field} is {found}, expected {expected}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What would be right.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// Writing failed.
    #[cfg(feature = "gpt")]
    #[error("cannot write the partition table: {0}")]
    Write(String),
}

impl Explain for GptError {
    fn code(&self) -> &'static str {
        match self {
            Self::Short { .. } => "GPT-001",
            Self::Field { .. } => "GPT-002",
            #[cfg(feature = "gpt")]
            Self::Write(_) => "GPT-003",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Short { .. } | Self::Field { .. } => {
                "this is no disk of flare-cvm, or it was damaged on the way: build or copy it again"
                    .into()
            }
            #[cfg(feature = "gpt")]
            Self::Write(_) => "see the message above; most likely the disk is full".into(),
        }
    }
}

/// Reads the primary table from a disk's first bytes (17 KiB suffice for a table of ours).
///
/// Accepts 512-byte sectors, a 92-byte header, 128-byte entries, at most 128 of them, and right
/// checksums only.
pub fn read(disk: &[u8]) -> Result<Vec<Entry>, GptError> {
    let header = slice(disk, SECTOR, 92)?;
    expect("signature", "\"EFI PART\"", slice(header, 0, 8)? == b"EFI PART", || {
        format!("{:02x?}", &header[..8])
    })?;
    let size = u32_at(header, 12)?;
    expect("header size", "92", size == 92, || size.to_string())?;
    let mut zeroed = header.to_vec();
    zeroed[16..20].fill(0);
    let (stated, actual) = (u32_at(header, 16)?, crc32(&zeroed));
    expect("header checksum", "that of its bytes", stated == actual, || format!("{stated:08x}"))?;
    let count = u32_at(header, 80)?;
    expect("number of entries", "1 to 128", (1..=MAX_ENTRIES).contains(&count), || {
        count.to_string()
    })?;
    let entry_size = u32_at(header, 84)?;
    expect("entry size", "128", entry_size as usize == ENTRY_BYTES, || entry_size.to_string())?;
    let (start, first_usable, last_usable) =
        (u64_at(header, 72)?, u64_at(header, 40)?, u64_at(header, 48)?);
    expect("first entry's sector", "2", start == 2, || start.to_string())?;
    let table = slice(disk, start * SECTOR, count as usize * ENTRY_BYTES)?;
    let (stated, actual) = (u32_at(header, 88)?, crc32(table));
    expect("entries' checksum", "that of their bytes", stated == actual, || {
        format!("{stated:08x}")
    })?;

    let mut entries = Vec::new();
    for (number, bytes) in (1..).zip(table.chunks_exact(ENTRY_BYTES)) {
        let type_guid = array(bytes, 0)?;
        if type_guid == [0; 16] {
            continue;
        }
        let (first, last) = (u64_at(bytes, 32)?, u64_at(bytes, 40)?);
        let inside = first_usable <= first
            && first <= last
            && last <= last_usable
            && last < u64::MAX / SECTOR;
        expect("partition's extent", "inside the usable sectors", inside, || {
            format!("{first} to {last}")
        })?;
        let units: Vec<u16> = slice(bytes, 56, 72)?
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .take_while(|unit| *unit != 0)
            .collect();
        entries.push(Entry {
            number,
            type_guid,
            guid: array(bytes, 16)?,
            offset: first * SECTOR,
            length: (last - first + 1) * SECTOR,
            name: String::from_utf16_lossy(&units),
        });
    }
    Ok(entries)
}

fn expect(
    field: &'static str,
    expected: &'static str,
    good: bool,
    found: impl Fn() -> String,
) -> Result<(), GptError> {
    if good { Ok(()) } else { Err(GptError::Field { field, expected, found: found() }) }
}

fn slice(bytes: &[u8], offset: u64, length: usize) -> Result<&[u8], GptError> {
    let needed = offset.saturating_add(length as u64);
    let range = usize::try_from(offset).ok().zip(usize::try_from(needed).ok());
    range
        .and_then(|(start, end)| bytes.get(start..end))
        .ok_or(GptError::Short { needed, found: bytes.len() as u64 })
}

fn array<const N: usize>(bytes: &[u8], offset: u64) -> Result<[u8; N], GptError> {
    let mut out = [0; N];
    out.copy_from_slice(slice(bytes, offset, N)?);
    Ok(out)
}

fn u32_at(bytes: &[u8], offset: u64) -> Result<u32, GptError> {
    array(bytes, offset).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: u64) -> Result<u64, GptError> {
    array(bytes, offset).map(u64::from_le_bytes)
}

/// CRC-32 of IEEE 802.3, bit by bit: a table has 16 KiB.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

#[cfg(feature = "gpt")]
pub use write::write;

#[cfg(feature = "gpt")]
mod write {
    use std::{
        collections::BTreeMap,
        io::{Read, Seek, SeekFrom, Write},
    };

    use cvm_base::sha256;
    use gpt::{
        GptConfig, disk::LogicalBlockSize, mbr::ProtectiveMBR, partition::Partition,
        partition_types as types,
    };
    use uuid::{Builder, Uuid};

    use super::{GptError, SECTOR};
    use crate::{layout::Placement, manifest::ImageId};

    /// Writes the protective MBR and both tables for `placement`; the same `image` gives the same
    /// bytes.
    ///
    /// `disk` is `placement.disk_bytes` long already. Types: ESP, XBOOTLDR, and "Linux file system"
    /// for the rest, so that no automatism of systemd mounts what it finds.
    pub fn write<D>(disk: &mut D, placement: &Placement, image: &ImageId) -> Result<(), GptError>
    where
        D: Read + Write + Seek + std::fmt::Debug,
    {
        let fail = |e: &dyn std::fmt::Display| GptError::Write(e.to_string());
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
        let digest =
            sha256(&[b"flare-cvm:gpt".as_slice(), &image.0, &number.to_be_bytes()].concat());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.0[..16]);
        Builder::from_custom_bytes(bytes).into_uuid()
    }
}

/// Reads whatever `bytes` are: the fuzz target, which a unit test drives as well.
pub fn fuzz(bytes: &[u8]) {
    if let Ok(entries) = read(bytes) {
        assert!(entries.len() <= MAX_ENTRIES as usize);
        assert!(entries.iter().all(|e| e.offset.checked_add(e.length).is_some()));
    }
}

#[cfg(all(test, feature = "gpt"))]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::{
        layout::{Contents, Layout, MIB, NAMES},
        manifest::ImageId,
    };

    fn disk() -> (crate::layout::Placement, Vec<u8>) {
        let layout = Layout::parse(include_str!("../../../partitions/small.yaml")).unwrap();
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

    #[test]
    fn attack_a_changed_table_is_refused_without_a_panic() {
        let (_, bytes) = disk();
        let head = &bytes[..64 * 1024];
        for position in (512..1536).chain((1536..17 * 1024).step_by(97)) {
            let mut changed = head.to_vec();
            changed[position] ^= 0x80;
            let inside = (512..604).contains(&position) || (1024..17408).contains(&position);
            assert_eq!(read(&changed).is_err(), inside, "byte {position}");
            fuzz(&changed);
        }
        for length in [0, 511, 512, 603, 604, 1024, 17 * 1024 - 1] {
            assert!(read(&head[..length]).is_err(), "{length} bytes");
        }
    }
}
