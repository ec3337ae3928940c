//! The hash algorithms of PCR banks, and digests that know theirs.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A hash algorithm of a PCR bank, an event log or a signature (TCG Algorithm Registry, table 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashAlg {
    /// SHA-1: for old logs and banks. No policy believes it unless it says so.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384: also the one of TDX's registers.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl HashAlg {
    /// Every algorithm known here.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The algorithm with this TPM_ALG_ID, if it is known here.
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.id() == id)
    }

    /// Its TPM_ALG_ID.
    pub fn id(self) -> u16 {
        match self {
            Self::Sha1 => 0x0004,
            Self::Sha256 => 0x000b,
            Self::Sha384 => 0x000c,
            Self::Sha512 => 0x000d,
        }
    }

    /// Bytes in a digest.
    pub fn size(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Its name in claims: `sha1`, `sha256`, `sha384`, `sha512`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }
}

impl fmt::Display for HashAlg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A digest of one of the four algorithms; its text form is lowercase hex, whose length names the
/// algorithm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    alg: HashAlg,
    /// Zeros after the algorithm's size.
    bytes: [u8; 64],
}

impl Digest {
    /// These bytes, if there are as many as the algorithm has.
    pub fn new(alg: HashAlg, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != alg.size() {
            return None;
        }
        let mut all = [0; 64];
        all.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self { alg, bytes: all })
    }

    /// The digest whose length tells the algorithm.
    pub fn of_length(bytes: &[u8]) -> Option<Self> {
        HashAlg::ALL.into_iter().find_map(|alg| Self::new(alg, bytes))
    }

    /// A register that nothing extended: every byte is `fill`.
    pub fn filled(alg: HashAlg, fill: u8) -> Self {
        let mut bytes = [0; 64];
        bytes.iter_mut().take(alg.size()).for_each(|byte| *byte = fill);
        Self { alg, bytes }
    }

    /// PCR 0 as TPM2_Startup leaves it: zeros that end in the locality (PC Client Profile
    /// §10.4.5.3).
    pub fn startup(alg: HashAlg, locality: u8) -> Self {
        let mut start = Self::filled(alg, 0);
        if let Some(last) = start.bytes.get_mut(alg.size() - 1) {
            *last = locality;
        }
        start
    }

    /// Its algorithm.
    pub fn alg(&self) -> HashAlg {
        self.alg
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.alg.size()).unwrap_or_default()
    }

    /// Reads hex of either case.
    pub fn from_hex(text: &str) -> Option<Self> {
        let alg = HashAlg::ALL.into_iter().find(|alg| text.len() == 2 * alg.size())?;
        let mut bytes = [0; 64];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            for digit in digits {
                *byte = *byte << 4 | char::from(*digit).to_digit(16)? as u8;
            }
        }
        Some(Self { alg, bytes })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{self}", self.alg)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| {
            D::Error::custom("not a digest of SHA-1, SHA-256, SHA-384 or SHA-512 in hex")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digests_length_names_its_algorithm() {
        for alg in HashAlg::ALL {
            let digest = Digest::startup(alg, 3);
            assert_eq!(Digest::from_hex(&digest.to_string()), Some(digest));
            assert_eq!(digest.as_bytes().len(), alg.size());
            assert_eq!(HashAlg::from_id(alg.id()), Some(alg));
            assert_eq!(Digest::from_hex(&digest.to_string()[1..]), None);
        }
        assert_eq!(Digest::from_hex(&"zz".repeat(32)), None);
        assert_eq!(HashAlg::from_id(0x0012), None);
    }
}
