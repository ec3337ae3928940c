//! SubjectPublicKeyInfo (RFC 5280 §4.1.2.7) of a TPM key, written rather than parsed.

use super::Key;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
// AlgorithmIdentifiers: rsaEncryption with NULL; id-ecPublicKey with the named curve.
const RSA: &[u8] = &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
const P256: &[u8] = &[
    0x30, 19, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7,
];
const P384: &[u8] =
    &[0x30, 16, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 34];

/// The whole SubjectPublicKeyInfo, DER.
pub fn encode(key: &Key) -> Vec<u8> {
    let algorithm = match key {
        Key::Rsa { .. } => RSA,
        Key::P256 { .. } => P256,
        Key::P384 { .. } => P384,
    };
    tlv(SEQUENCE, &[algorithm, &bit_string(key)].concat())
}

/// Its BIT STRING alone, DER: how it ends whatever its algorithm identifier.
pub fn bit_string(key: &Key) -> Vec<u8> {
    tlv(BIT_STRING, &[&[0], &public_key_bits(key)[..]].concat())
}

/// What the BIT STRING holds: RSAPublicKey (RFC 8017 §A.1.1), or the uncompressed point.
pub fn public_key_bits(key: &Key) -> Vec<u8> {
    match key {
        Key::Rsa { modulus, exponent } => {
            let e = exponent.to_be_bytes();
            tlv(SEQUENCE, &[integer(modulus), integer(&e)].concat())
        }
        Key::P256 { point } => [&[4], &point[..]].concat(),
        Key::P384 { point } => [&[4], &point[..]].concat(),
    }
}

/// Ecdsa-Sig-Value (RFC 3279 §2.2.3).
pub fn ecdsa_signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[integer(r), integer(s)].concat())
}

/// An unsigned INTEGER: no leading zeros but the one that keeps it positive.
fn integer(big_endian: &[u8]) -> Vec<u8> {
    let start = big_endian.iter().position(|b| *b != 0).unwrap_or(big_endian.len());
    let digits = big_endian.get(start..).unwrap_or_default();
    let sign: &[u8] = if digits.first().is_none_or(|b| b & 0x80 != 0) { &[0] } else { &[] };
    tlv(INTEGER, &[sign, digits].concat())
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes() {
        [0, short @ 0..=0x7f] => out.push(short),
        [0, long] => out.extend([0x81, long]),
        [high, low] => out.extend([0x82, high, low]),
    }
    out.extend(content);
    out
}
