//! Whether 1 MiB of a stranger's bytes is a LUKS2 header that we made.
//!
//! The host owns the disk, so a header is hostile input twice over: to the parser, and in what it
//! asks for. CVE-2025-59054 and CVE-2025-58356 broke eight confidential-VM systems whose guests
//! opened whatever header stood on the disk: with cipher `cipher_null` the "encrypted" disk is
//! plain text of the host's choice, and with a header of the host's own key so is everything later.
//!
//! [`check`] therefore works on one copy in memory, is pure, and wants all of:
//! 1. the binary headers, both copies, whole and equal ([`binary`]);
//! 2. a JSON that says exactly what [`crate::luks`] writes, and not a member more ([`json`]);
//! 3. a valid MAC over every byte before the seal record, and zeros behind it ([`record`]).
//!
//! Its result, [`GuardedHeader`], is the only thing from which [`crate::guest`] opens a device.

pub mod binary;
pub mod json;
pub mod record;

use std::fmt;

use cvm_base::{Bytes32, Explain, sha256};

use crate::{HEADER_BYTES, MacKey};

/// How an area's sectors are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// AES-256-XTS: p3's first area, whose content dm-verity authenticates.
    Encrypted,
    /// AES-256-XTS and HMAC-SHA-256 of every sector: p5 and `state`.
    Authenticated,
}

impl Protection {
    /// The JSON's `integrity.type`.
    pub fn integrity(self) -> Option<&'static str> {
        match self {
            Self::Encrypted => None,
            Self::Authenticated => Some("hmac(sha256)"),
        }
    }

    /// Bytes of the volume key: two AES-256 keys, and one of HMAC-SHA-256.
    pub fn volume_key_bytes(self) -> usize {
        match self {
            Self::Encrypted => 64,
            Self::Authenticated => 96,
        }
    }
}

/// What the caller knows of an area, from the manifest and from the layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    protection: Protection,
}

impl Expected {
    /// An area with this protection; everything else is fixed by [`crate::luks`].
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

/// Why a header area is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// Not [`HEADER_BYTES`] long.
    #[error("the header area has {found} bytes: expected {HEADER_BYTES}")]
    Length {
        /// Its length in bytes.
        found: usize,
    },
    /// Zeros only: never made, or wiped.
    #[error("the header area is blank")]
    Blank,
    /// A binary header is malformed, or its two copies differ.
    #[error("the LUKS2 header's {what}")]
    Binary {
        /// What is wrong, as the rest of the sentence.
        what: &'static str,
    },
    /// The JSON is malformed, or has members that we never write.
    #[error("the LUKS2 header's JSON is not one that we write: {detail}")]
    Json {
        /// The parser's words, with the place.
        detail: String,
    },
    /// A parameter is not the one we write.
    #[error("the LUKS2 header says {name} = {found}: expected {expected}")]
    Parameter {
        /// Path of the parameter in the JSON.
        name: &'static str,
        /// The only accepted value.
        expected: String,
        /// The value found, at most 80 characters.
        found: String,
    },
    /// There is no seal record: the area was being made when the power went.
    #[error("the header area carries no seal record")]
    NoRecord,
    /// The MAC is wrong: another key's header, or a changed one.
    #[error("the header area's MAC is wrong")]
    Mac,
}

impl Explain for GuardError {
    fn code(&self) -> &'static str {
        match self {
            Self::Length { .. } => "SEAL-100",
            Self::Blank => "SEAL-101",
            Self::Binary { .. } => "SEAL-102",
            Self::Json { .. } => "SEAL-103",
            Self::Parameter { .. } => "SEAL-104",
            Self::NoRecord => "SEAL-105",
            Self::Mac => "SEAL-106",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Length { .. } => {
                "the partition is smaller than the manifest says: compare the disk with the bundle".into()
            }
            Self::Blank => {
                "nothing was ever sealed here, or somebody wiped it: restore the disk from the \
                 bundle or a backup"
                    .into()
            }
            Self::NoRecord => "the first boot was interrupted, or somebody wiped the record: \
                restore the disk".into(),
            Self::Binary { .. } | Self::Json { .. } | Self::Parameter { .. } => {
                "the disk is damaged or somebody replaced the header (CVE-2025-59054, CVE-2025-58356): \
                 do not use this host before you know which"
                    .into()
            }
            Self::Mac => "the header was made for another key or another image, or somebody changed it: \
                          do not use this host before you know which"
                .into(),
        }
    }
}

/// Passes `bytes`, read once from the disk, if they are a header area that we made with `mac_key`.
///
/// The whitelist comes before the MAC so that a refusal names what is wrong; nothing acts on the
/// parsed values. Time does not depend on the MAC's bytes.
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
/// Returns whether the header passed, so that tests can use it, too.
pub fn fuzz(bytes: &[u8]) -> bool {
    let key = MacKey::new(&[0x42; 32]);
    // Most inputs die at the length or at a checksum: mend both, to reach what lies behind.
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
