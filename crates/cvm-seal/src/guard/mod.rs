//! Whether 1 MiB of a stranger's bytes is a LUKS2 header that we made.
//!
//! The host owns the disk, so a header is hostile input twice over: to the parser, and in what it
//! asks for. CVE-2025-59054 and CVE-2025-58356 broke eight confidential-VM systems whose guests
//! opened whatever header was on the disk. With the cipher `cipher_null`, the "encrypted" disk is
//! plain text of the host's choice. With a header for a key of the host's own, the host reads
//! whatever the guest writes from then on.
//!
//! [`check`] therefore works on one copy in memory, is pure, and requires all of:
//! 1. two binary headers, whole and equal ([`binary`]);
//! 2. a JSON that has exactly the members and values that [`crate::luks`] writes ([`json`]);
//! 3. a valid MAC over every byte before the seal record, and zeros after the MAC ([`record`]).
//!
//! [`crate::guest`] opens a device only from its result, a [`GuardedHeader`].

pub mod binary;
mod error;
pub mod json;
pub mod record;

use std::fmt;

use cvm_base::{Bytes32, sha256};

use crate::{format::HEADER_BYTES, keys::MacKey};

pub use crate::format::Protection;
pub use error::GuardError;

/// What the caller expects of an area, from the manifest and the layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    protection: Protection,
}

impl Expected {
    /// An area with this protection. Everything else is the same in all areas ([`crate::luks`]).
    pub fn new(protection: Protection) -> Self {
        Self { protection }
    }
}

/// A header area that passed [`check`]; immutable.
#[derive(Clone, PartialEq, Eq)]
pub struct GuardedHeader {
    bytes: Box<[u8]>,
    protection: Protection,
}

impl GuardedHeader {
    /// SHA-256 of the whole area, seal record included: what key holders remember of p5.
    pub fn digest(&self) -> Bytes32 {
        sha256(&self.bytes)
    }

    /// The area: [`HEADER_BYTES`] bytes, public.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How its sectors are protected.
    pub fn protection(&self) -> Protection {
        self.protection
    }
}

impl fmt::Debug for GuardedHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuardedHeader({:?}, sha256 {})", self.protection, self.digest())
    }
}

/// Passes `bytes`, read once from the disk, if they are a header area that we made with `mac_key`.
///
/// The whitelist comes before the MAC, so that a refusal names what is wrong; nothing acts on the
/// parsed values. The time that it takes does not depend on the MAC's bytes.
pub fn check(
    bytes: &[u8],
    expected: &Expected,
    mac_key: &MacKey,
) -> Result<GuardedHeader, GuardError> {
    if bytes.len() != HEADER_BYTES {
        return Err(GuardError::Length { found: bytes.len() });
    }
    if bytes.iter().all(|b| *b == 0) {
        return Err(GuardError::Blank);
    }
    json::check(binary::json_of_both(bytes)?, expected.protection)?;
    record::verify(bytes, mac_key)?;
    Ok(GuardedHeader { bytes: bytes.into(), protection: expected.protection })
}

/// What a fuzzer runs: every parser on any bytes, with a MAC key that the fuzzer knows.
///
/// Returns whether the header passed, for tests.
pub fn fuzz(bytes: &[u8]) -> bool {
    let key = MacKey::new(&[0x42; 32]);
    // Most inputs fail at the length or at a checksum: mend both, to reach the rest.
    let mut mended = vec![0; HEADER_BYTES];
    let length = bytes.len().min(HEADER_BYTES);
    if let (Some(to), Some(from)) = (mended.get_mut(..length), bytes.get(..length)) {
        to.copy_from_slice(from);
    }
    binary::mend(&mut mended);
    let _ = record::write(&mut mended, &key);
    [Protection::Encrypted, Protection::Authenticated].iter().any(|protection| {
        let expected = Expected::new(*protection);
        let _ = check(bytes, &expected, &key);
        check(&mended, &expected, &key).is_ok()
    })
}
