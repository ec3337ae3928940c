//! Known-answer tests: run before the first use of a key.

use aes::{
    Aes256,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
};
use cvm_base::Explain;
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// An algorithm gave a wrong answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the known-answer test of {0} failed")]
pub struct SelfTestError(pub &'static str);

impl Explain for SelfTestError {
    fn code(&self) -> &'static str {
        "CER-110"
    }

    fn help(&self) -> String {
        "this program or the processor under it is broken or was changed: use no key that it makes"
            .into()
    }
}

/// X25519 (RFC 7748 §5.2), HKDF-SHA256 (RFC 5869 A.1) and AES-256 (FIPS 197 C.3).
pub fn self_test() -> Result<(), SelfTestError> {
    check("X25519", x25519()?)?;
    check("HKDF-SHA256", hkdf_sha256()?)?;
    check("AES-256", aes256()?)
}

fn check(name: &'static str, good: bool) -> Result<(), SelfTestError> {
    if good { Ok(()) } else { Err(SelfTestError(name)) }
}

fn bytes<const N: usize>(name: &'static str, text: &str) -> Result<[u8; N], SelfTestError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| SelfTestError(name))?;
    Ok(bytes)
}

fn x25519() -> Result<bool, SelfTestError> {
    let vectors = [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ];
    let name = "X25519";
    let mut good = true;
    for (scalar, point, expected) in vectors {
        let found = x25519_dalek::x25519(bytes(name, scalar)?, bytes(name, point)?);
        good &= bool::from(found.ct_eq(&bytes::<32>(name, expected)?));
    }
    Ok(good)
}

fn hkdf_sha256() -> Result<bool, SelfTestError> {
    let name = "HKDF-SHA256";
    let salt: [u8; 13] = bytes(name, "000102030405060708090a0b0c")?;
    let info: [u8; 10] = bytes(name, "f0f1f2f3f4f5f6f7f8f9")?;
    let expected: [u8; 42] = bytes(
        name,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    )?;
    let mut found = [0; 42];
    Hkdf::<Sha256>::new(Some(&salt), &[0x0b; 22])
        .expand(&info, &mut found)
        .map_err(|_| SelfTestError(name))?;
    Ok(found.ct_eq(&expected).into())
}

fn aes256() -> Result<bool, SelfTestError> {
    let name = "AES-256";
    let key: [u8; 32] =
        bytes(name, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")?;
    let plain: [u8; 16] = bytes(name, "00112233445566778899aabbccddeeff")?;
    let expected: [u8; 16] = bytes(name, "8ea2b7ca516745bfeafc49904b496089")?;
    let cipher = Aes256::new(&key.into());
    let mut block = plain.into();
    cipher.encrypt_block(&mut block);
    let encrypted = bool::from(block.as_slice().ct_eq(&expected));
    cipher.decrypt_block(&mut block);
    Ok(encrypted & bool::from(block.as_slice().ct_eq(&plain)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standards_answers_come_out() {
        assert_eq!(self_test(), Ok(()));
        assert_eq!(check("X25519", false), Err(SelfTestError("X25519")));
    }
}
