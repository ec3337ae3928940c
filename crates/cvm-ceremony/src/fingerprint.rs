//! What two people read to each other.

use std::{fmt, str::FromStr};

use cvm_base::Bytes32;
use serde::{Serialize, Serializer};

use crate::values::ValueError;

/// Letters and digits that are hard to mishear or misread (Crockford's base32).
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Five groups of five characters of five bits.
const CHARACTERS: usize = 25;

/// The first 125 bits of a statement's SHA-256, as `K7Q2M-…`, to be compared by voice.
///
/// Why 125: an attacker between the parties must find a forged statement with the fingerprint of
/// the genuine one, 2^125 work. Fewer bits would do for that. But people also compare the
/// fingerprint of a transcript, to which both sides contributed; there an attacker needs only a
/// collision, 2^62. Reading 25 characters aloud guards against both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Of the SHA-256 of a statement's body.
    pub fn of(digest: &Bytes32) -> Self {
        let mut text = String::with_capacity(CHARACTERS + 4);
        let (mut bits, mut count) = (0u32, 0);
        for &byte in &digest.0[..16] {
            bits = bits << 8 | u32::from(byte);
            count += 8;
            while count >= 5 && text.len() < CHARACTERS + 4 {
                count -= 5;
                if text.len() % 6 == 5 {
                    text.push('-');
                }
                text.push(char::from(ALPHABET[(bits >> count & 31) as usize]));
            }
        }
        Self(text)
    }
}

impl FromStr for Fingerprint {
    type Err = ValueError;

    /// Forgives case, missing or other separators, and O, I, L for 0, 1, 1.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refuse = || ValueError::new("a fingerprint of 25 letters and digits", text);
        let mut plain = String::new();
        for c in text.chars().filter(|c| !matches!(c, '-' | ' ')) {
            let c = match c.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                c => c,
            };
            if plain.len() == CHARACTERS || !c.is_ascii() || !ALPHABET.contains(&(c as u8)) {
                return Err(refuse());
            }
            plain.push(c);
        }
        if plain.len() != CHARACTERS {
            return Err(refuse());
        }
        let groups: Vec<_> = plain.as_bytes().chunks(5).map(String::from_utf8_lossy).collect();
        Ok(Self(groups.join("-")))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_125_bits_and_survives_a_telephone() {
        let all_ones = Fingerprint::of(&Bytes32 { 0: [0xff; 32] });
        assert_eq!(all_ones.to_string(), "ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ");
        let mut digest = [0; 32];
        digest[0] = 0b0000_1000;
        digest[15] = 0b0000_1000; // The 125th bit.
        let one = Fingerprint::of(&Bytes32 { 0: digest });
        assert_eq!(one.to_string(), "10000-00000-00000-00000-00001");
        assert_eq!(
            "ioooo ooooo-00000 0000000l".replace("0000000l", "00000 0000l").parse(),
            Ok(one)
        );
        for bad in [
            "",
            "10000-00000-00000-00000-0000",
            "10000-00000-00000-00000-000011",
            "U0000-00000-00000-00000-00001",
        ] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad:?}");
        }
    }
}
