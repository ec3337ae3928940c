//! The certificate table of an extended report (GHCB specification 56421, §4.1.8.1, `struct cert_table`).

use super::SnpError;
use crate::x509::{Certificate, MAX_CERTIFICATES};

/// Linux gives at most 16 KiB (`SEV_FW_BLOB_MAX_SIZE`); four certificates have some 6 KiB.
const MAX_TABLE_BYTES: usize = 64 * 1024;
const ENTRY_BYTES: usize = 24;

/// GUIDs of certificates, as they stand in memory: VCEK, VLEK, ASK (also used for the ASVK), ARK.
const CERTIFICATES: [[u8; 16]; 4] = [
    guid(0x63da758d, 0xe664, 0x4564, 0xadc5_f4b93be8accd),
    guid(0xa8074bc2, 0xa25a, 0x483e, 0xaae6_39c045a0b8a1),
    guid(0x4ab7b379, 0xbbac, 0x4fe4, 0xa02f_05aef327c782),
    guid(0xc0b406a4, 0xa803, 0x4952, 0x9743_3fb6014cd0ae),
];

/// The certificates of a table (the `auxblob` of Linux's configfs-tsm); entries of other kinds are passed over.
///
/// # Errors
/// [`SnpError::Malformed`].
pub fn certificates(table: &[u8]) -> Result<Vec<Certificate>, SnpError> {
    if table.len() > MAX_TABLE_BYTES {
        return Err(fail(format!("{} bytes, at most {MAX_TABLE_BYTES} allowed", table.len())));
    }
    let mut found = Vec::new();
    for index in 0..=MAX_CERTIFICATES {
        let entry = table.get(index * ENTRY_BYTES..).and_then(<[u8]>::first_chunk::<ENTRY_BYTES>);
        let Some((guid, place)) = entry.and_then(|entry| entry.split_first_chunk::<16>()) else {
            return Err(fail("it has no entry of zeros at its end".into()));
        };
        if guid == &[0; 16] {
            return Ok(found);
        }
        let number = |at: usize| {
            let bytes = place.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
            usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
        };
        let (offset, length) = (number(0), number(4));
        let content = table.get(offset..).and_then(|rest| rest.get(..length));
        let content = content.ok_or_else(|| {
            fail(format!("entry {index} has {length} bytes at {offset}, behind the table's {}", table.len()))
        })?;
        if CERTIFICATES.contains(guid) {
            found.extend(Certificate::read_all(content)?);
        }
        if found.len() > MAX_CERTIFICATES {
            break;
        }
    }
    Err(fail(format!("more than {MAX_CERTIFICATES} entries")))
}

fn fail(problem: String) -> SnpError {
    SnpError::malformed("certificate table", problem)
}

/// A GUID's first three groups are little endian.
const fn guid(a: u32, b: u16, c: u16, rest: u64) -> [u8; 16] {
    let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    let [d0, d1, d2, d3, d4, d5, d6, d7] = rest.to_be_bytes();
    [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7]
}
