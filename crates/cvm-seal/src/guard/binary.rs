//! The two binary headers of LUKS2 (on-disk format 1.1.3, section 2.1).
//!
//! Each copy is 4096 bytes, big-endian, followed by its JSON, zero-padded to 16 KiB together:
//!
//! | offset | bytes | field | accepted |
//! |---|---|---|---|
//! | 0 | 6 | magic | `LUKS\xba\xbe`, second copy `SKUL\xba\xbe` |
//! | 6 | 2 | version | 2 |
//! | 8 | 8 | length of the copy | 16384 |
//! | 16 | 8 | sequence number | the same in both, 1 to 255 |
//! | 24 | 48 | label | zeros |
//! | 72 | 32 | checksum algorithm | `sha256` |
//! | 104 | 64 | salt | any (makes the copies' checksums differ) |
//! | 168 | 40 | UUID | the same in both: 36 of `0-9a-f-`, then zeros |
//! | 208 | 48 | subsystem | zeros |
//! | 256 | 8 | offset of the copy | 0, second copy 16384 |
//! | 264 | 184 | padding | zeros |
//! | 448 | 64 | checksum | SHA-256 of the copy with this field zero, then zeros |
//! | 512 | 3584 | padding | zeros |

use cvm_base::Reader;
use sha2::{Digest, Sha256};

use super::error::GuardError;
use crate::format::METADATA_BYTES;

/// Bytes of one copy with its JSON.
const COPY: usize = METADATA_BYTES as usize;
const JSON_OFFSET: usize = 4096;
const CHECKSUM_OFFSET: usize = 448;
const MAX_SEQUENCE: u64 = 255;

/// Checks both copies and returns their common JSON: `12288` bytes with the padding.
pub fn json_of_both(area: &[u8]) -> Result<&[u8], GuardError> {
    let first = HeaderCopy::parse(area, 0, b"LUKS\xba\xbe")?;
    let second = HeaderCopy::parse(area, COPY, b"SKUL\xba\xbe")?;
    if first != second {
        return Err(GuardError::Binary { what: "two copies differ" });
    }
    Ok(first.json)
}

/// What both copies must agree on.
#[derive(PartialEq, Eq)]
struct HeaderCopy<'a> {
    sequence: u64,
    uuid: &'a [u8],
    json: &'a [u8],
}

impl<'a> HeaderCopy<'a> {
    fn parse(area: &'a [u8], offset: usize, magic: &[u8; 6]) -> Result<Self, GuardError> {
        let bad = |what| GuardError::Binary { what };
        let copy = area.get(offset..offset + COPY).ok_or(bad("area is too short"))?;
        let mut fields = Reader::new("LUKS2 header", copy);
        let require = |good: bool, what| if good { Ok(()) } else { Err(bad(what)) };

        require(fields.take(6)? == magic, "magic is wrong")?;
        require(fields.take(2)? == 2u16.to_be_bytes(), "version is not 2")?;
        require(fields.u64()? == COPY as u64, "length of a copy is not 16 KiB")?;
        let sequence = fields.u64()?;
        require((1..=MAX_SEQUENCE).contains(&sequence), "sequence number is not one of ours")?;
        require(is_zero(fields.take(48)?), "label is not empty")?;
        require(is_text(fields.take(32)?, b"sha256"), "checksum algorithm is not sha256")?;
        fields.take(64)?;
        let uuid = fields.take(40)?;
        let (text, padding) = uuid.split_at_checked(36).ok_or(bad("UUID is malformed"))?;
        let good =
            text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-')) && is_zero(padding);
        require(good, "UUID is malformed")?;
        require(is_zero(fields.take(48)?), "subsystem is not empty")?;
        require(fields.u64()? == offset as u64, "copy says that it belongs elsewhere")?;
        require(is_zero(fields.take(184)?), "padding is not zero")?;
        let (checksum, unused) =
            fields.take(64)?.split_at_checked(32).ok_or(bad("checksum is malformed"))?;
        require(checksum == checksum_of(copy).as_slice() && is_zero(unused), "checksum is wrong")?;
        require(is_zero(fields.take(JSON_OFFSET - CHECKSUM_OFFSET - 64)?), "padding is not zero")?;
        Ok(Self { sequence, uuid, json: fields.rest() })
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0)
}

fn is_text(field: &[u8], text: &[u8]) -> bool {
    field.strip_prefix(text).is_some_and(is_zero)
}

fn checksum_of(copy: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (part, zeroed) in
        [(0..CHECKSUM_OFFSET, false), (CHECKSUM_OFFSET..CHECKSUM_OFFSET + 64, true)]
    {
        match copy.get(part) {
            Some(_) if zeroed => hash.update([0; 64]),
            Some(bytes) => hash.update(bytes),
            None => {}
        }
    }
    hash.update(copy.get(CHECKSUM_OFFSET + 64..).unwrap_or_default());
    hash.finalize().into()
}

/// Writes correct checksums into both copies. An attacker can do that, so tests and the fuzzer do
/// it too.
pub fn mend(area: &mut [u8]) {
    for copy in area.chunks_exact_mut(COPY).take(2) {
        let sum = checksum_of(copy);
        if let Some(field) = copy.get_mut(CHECKSUM_OFFSET..CHECKSUM_OFFSET + 32) {
            field.copy_from_slice(&sum);
        }
    }
}
