//! Little-endian numbers at an offset, of bytes that may end before it.

use cvm_evidence::tpm::Reader;

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Reader::new("file", bytes.get(at..)?).u16_le().ok()
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Reader::new("file", bytes.get(at..)?).u32_le().ok()
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Reader::new("file", bytes.get(at..)?).array().map(u64::from_le_bytes).ok()
}
