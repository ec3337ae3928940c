//! The one form of a LUKS2 area that we make and accept: sizes, parameters, protection.

/// Bytes of a LUKS2 area before its data.
pub const HEADER_BYTES: usize = cvm_layout::manifest::LUKS_HEADER_BYTES as usize;
/// Bytes of a sector of dm-crypt, of a block of dm-verity, of erofs and of ext4; the alignment of
/// everything.
pub const BLOCK: u64 = 4096;
/// Bytes of one copy of the binary header and its JSON.
pub const METADATA_BYTES: u64 = 16 * 1024;
/// Bytes of the keyslots area after both copies.
pub const KEYSLOTS_BYTES: u64 = 960 * 1024;
/// Rounds of PBKDF2 over the passphrase, and of the digest. The passphrase has 256 random bits:
/// stretching adds nothing to it, and this is the least that LUKS2 takes.
pub const PBKDF2_ITERATIONS: u32 = 1000;

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
