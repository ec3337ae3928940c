//! Fixed-size public values (digests, identifiers, public keys) written as lowercase hex.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

/// Not the expected number of lowercase hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} lowercase hex digits, found {found:?}")]
pub struct HexError {
    expected: usize,
    found: String,
}

/// `N` public bytes; text form is `2 N` lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bytes<const N: usize>(pub [u8; N]);

/// 16 bytes: an image's identifier.
pub type Bytes16 = Bytes<16>;
/// 32 bytes: a SHA-256 digest, a verity root hash, a salt, an X25519 or Ed25519 public key.
pub type Bytes32 = Bytes<32>;

/// SHA-256 (FIPS 180-4) of `bytes`.
pub fn sha256(bytes: &[u8]) -> Bytes32 {
    Bytes(Sha256::digest(bytes).into())
}

impl<const N: usize> fmt::Display for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl<const N: usize> fmt::Debug for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> FromStr for Bytes<N> {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        let fail = || HexError { expected: 2 * N, found: text.chars().take(80).collect() };
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(fail());
        }
        let mut bytes = [0; N];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| fail())?;
        Ok(Self(bytes))
    }
}

impl<const N: usize> Serialize for Bytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_strict() {
        let good = "000102030405060708090a0b0c0d0e0f";
        assert_eq!(good.parse::<Bytes16>().unwrap().to_string(), good);
        for bad in
            ["", "00", "000102030405060708090A0B0C0D0E0F", "zz0102030405060708090a0b0c0d0e0f"]
        {
            assert!(bad.parse::<Bytes16>().is_err(), "{bad:?}");
        }
    }
}
