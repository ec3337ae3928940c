//! The seal record: the last 4096 bytes of a header area.
//!
//! | bytes | what |
//! |---|---|
//! | 16 | [`MAGIC`] |
//! | 32 | HMAC-SHA-256 (RFC 2104) with the area's `header-mac` key of all bytes before it |
//! | 4048 | zeros |
//!
//! It is written after everything else, so that it also marks an area as finished.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::error::GuardError;
use crate::{format::HEADER_BYTES, keys::MacKey};

/// First bytes of the record.
pub const MAGIC: &[u8; 16] = b"FLARECVM-SEAL-1\0";
/// Bytes of the record.
pub const BYTES: usize = 4096;
/// Where it starts in the header area.
pub const OFFSET: usize = HEADER_BYTES - BYTES;

/// Writes the record into a header area of [`HEADER_BYTES`] bytes.
pub fn write(area: &mut [u8], key: &MacKey) -> Result<(), GuardError> {
    let found = area.len();
    let (body, record) = area.split_at_mut_checked(OFFSET).ok_or(GuardError::Length { found })?;
    let record: &mut [u8; BYTES] = record.try_into().map_err(|_| GuardError::Length { found })?;
    let mac = mac(body, key).finalize().into_bytes();
    record.fill(0);
    for (to, from) in record.iter_mut().zip(MAGIC.iter().chain(mac.iter())) {
        *to = *from;
    }
    Ok(())
}

/// Verifies the record of a header area; the MAC in constant time.
pub fn verify(area: &[u8], key: &MacKey) -> Result<(), GuardError> {
    let length = || GuardError::Length { found: area.len() };
    let (body, record) = area.split_at_checked(OFFSET).ok_or_else(length)?;
    let record: &[u8; BYTES] = record.try_into().map_err(|_| length())?;
    let rest = record.strip_prefix(MAGIC).ok_or(GuardError::NoRecord)?;
    let (tag, padding) = rest.split_at_checked(32).ok_or(GuardError::NoRecord)?;
    if padding.iter().any(|b| *b != 0) {
        return Err(GuardError::Mac);
    }
    mac(body, key).verify_slice(tag).map_err(|_| GuardError::Mac)
}

fn mac(body: &[u8], key: &MacKey) -> Hmac<Sha256> {
    // HMAC pads a short key with zeros up to the hash's block.
    let mut block = Zeroizing::new([0; 64]);
    for (to, from) in block.iter_mut().zip(key.expose()) {
        *to = *from;
    }
    <Hmac<Sha256> as KeyInit>::new((&*block).into()).chain_update(body)
}
