//! The GUID partition table (UEFI specification 2.10, chapter 5), read by a bounded parser of our
//! own. `cvm_image` writes it.

use std::ops::RangeInclusive;

use cvm_base::{Explain, ReadError, Reader};

/// Bytes of a sector; both tables count in these.
pub const SECTOR: u64 = 512;
/// More entries than any table of ours has; the usual number.
const MAX_ENTRIES: u32 = 128;
const ENTRY_BYTES: usize = 128;

/// One used entry of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GptEntry {
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
        /// What is there.
        found: String,
    },
}

impl From<ReadError> for GptError {
    fn from(error: ReadError) -> Self {
        Self::Field { field: error.what, expected: "whole", found: error.problem }
    }
}

impl Explain for GptError {
    fn code(&self) -> &'static str {
        match self {
            Self::Short { .. } => "GPT-001",
            Self::Field { .. } => "GPT-002",
        }
    }

    fn help(&self) -> String {
        "this is not a disk of flare-cvm, or it was damaged on the way: build or copy it again"
            .into()
    }
}

/// Bytes of a table's header.
const HEADER_BYTES: usize = 92;

/// A table's header, as far as it is looked at.
struct Header<'a> {
    signature: &'a [u8],
    size: u32,
    checksum: u32,
    first_usable: u64,
    last_usable: u64,
    start: u64,
    count: u32,
    entry_size: u32,
    entries_checksum: u32,
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ReadError> {
        let mut fields = Reader::new("header", bytes);
        let signature = fields.take(8)?;
        let _revision = fields.u32_le()?;
        let (size, checksum) = (fields.u32_le()?, fields.u32_le()?);
        let (_reserved, _here, _backup) = (fields.u32_le()?, fields.u64_le()?, fields.u64_le()?);
        let (first_usable, last_usable) = (fields.u64_le()?, fields.u64_le()?);
        let _disk_guid = fields.take(16)?;
        let start = fields.u64_le()?;
        let (count, entry_size) = (fields.u32_le()?, fields.u32_le()?);
        let entries_checksum = fields.u32_le()?;
        Ok(Self {
            signature,
            size,
            checksum,
            first_usable,
            last_usable,
            start,
            count,
            entry_size,
            entries_checksum,
        })
    }
}

/// Reads the primary table from a disk's first bytes (17 KiB suffice for a table of ours).
///
/// Accepts 512-byte sectors, a 92-byte header, 128-byte entries, at most 128 of them, and right
/// checksums only.
pub fn read(disk: &[u8]) -> Result<Vec<GptEntry>, GptError> {
    let bytes = slice(disk, SECTOR, HEADER_BYTES)?;
    let header = Header::read(bytes)?;
    require("signature", "\"EFI PART\"", header.signature == b"EFI PART", || {
        format!("{:02x?}", header.signature)
    })?;
    require("header size", "92", header.size as usize == HEADER_BYTES, || header.size.to_string())?;
    let mut zeroed = bytes.to_vec();
    zeroed[16..20].fill(0);
    require("header checksum", "that of its bytes", header.checksum == crc32(&zeroed), || {
        format!("{:08x}", header.checksum)
    })?;
    let Header { count, entry_size, start, first_usable, last_usable, .. } = header;
    require("number of entries", "1 to 128", (1..=MAX_ENTRIES).contains(&count), || {
        count.to_string()
    })?;
    require("entry size", "128", entry_size as usize == ENTRY_BYTES, || entry_size.to_string())?;
    require("first entry's sector", "2", start == 2, || start.to_string())?;
    let table = slice(disk, start * SECTOR, count as usize * ENTRY_BYTES)?;
    let stated = header.entries_checksum;
    require("entries' checksum", "that of their bytes", stated == crc32(table), || {
        format!("{stated:08x}")
    })?;

    let mut entries = Vec::new();
    for (number, bytes) in (1..).zip(table.chunks_exact(ENTRY_BYTES)) {
        entries.extend(read_entry(number, bytes, first_usable..=last_usable)?);
    }
    Ok(entries)
}

/// One entry of the table; `None` if it is unused. `usable` are the sectors that it may lie in.
fn read_entry(
    number: u32,
    bytes: &[u8],
    usable: RangeInclusive<u64>,
) -> Result<Option<GptEntry>, GptError> {
    let mut fields = Reader::new("entry", bytes);
    let (type_guid, guid) = (fields.array()?, fields.array()?);
    if type_guid == [0; 16] {
        return Ok(None);
    }
    let (first, last) = (fields.u64_le()?, fields.u64_le()?);
    let _attributes = fields.u64_le()?;
    let inside = usable.contains(&first)
        && first <= last
        && usable.contains(&last)
        && last < u64::MAX / SECTOR;
    require("partition's extent", "inside the usable sectors", inside, || {
        format!("{first} to {last}")
    })?;
    let (units, _) = fields.rest().as_chunks::<2>();
    let units: Vec<u16> =
        units.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0).collect();
    Ok(Some(GptEntry {
        number,
        type_guid,
        guid,
        offset: first * SECTOR,
        length: (last - first + 1) * SECTOR,
        name: String::from_utf16_lossy(&units),
    }))
}

fn require(
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

/// CRC-32 of IEEE 802.3, bit by bit: a table has 16 KiB.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

/// The fuzz target: reads any bytes. A unit test drives it too.
pub fn fuzz(bytes: &[u8]) {
    if let Ok(entries) = read(bytes) {
        assert!(entries.len() <= MAX_ENTRIES as usize);
        assert!(entries.iter().all(|e| e.offset.checked_add(e.length).is_some()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_a_changed_table_is_refused_without_a_panic() {
        let head = include_bytes!("../../../fuzz/seeds/gpt/six.gpt");
        assert_eq!(read(head).unwrap().len(), 6);
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
