//! JWE in the one form the protocol uses: flattened JSON (RFC 7516 §7.2.2), ECDH-ES+A256KW on
//! P-256 (RFC 7518 §4.6), A256GCM, one recipient.

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use aes_kw::KwAes256;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use p256::{PublicKey, SecretKey, elliptic_curve::sec1::ToSec1Point};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::messages::{Jwe, TeePubKey};

/// Key agreement and key wrapping.
pub const ALG: &str = "ECDH-ES+A256KW";
/// Content encryption.
pub const ENC: &str = "A256GCM";
/// The only curve.
pub const CURVE: &str = "P-256";
/// The longest plaintext, in bytes.
pub const MAX_PLAINTEXT: usize = 4096;

/// Why a key or a JWE is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JweError {
    /// A public key is of another kind, or not a point on the curve.
    #[error("the public key is not a {ALG} key on {CURVE}")]
    Key,
    /// Not the one form that is understood.
    #[error("the JWE's {0} is malformed or of another kind than {ALG} with {ENC}")]
    Malformed(&'static str),
    /// The key or the content does not authenticate.
    #[error("the JWE does not authenticate: it is for another key, or was changed")]
    Authentication,
    /// The system's random generator failed.
    #[error("no randomness: {0}")]
    Random(String),
    /// The plaintext is longer than [`MAX_PLAINTEXT`].
    #[error("the plaintext is longer than {MAX_PLAINTEXT} bytes")]
    TooLong,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    enc: String,
    epk: Epk,
}

/// Members in alphabetical order, as Trustee writes them.
#[derive(Serialize, Deserialize)]
struct Epk {
    crv: String,
    kty: String,
    x: String,
    y: String,
}

/// A P-256 key pair that lives for one session. Wiped when dropped (by [`SecretKey`]).
pub struct TeeKey(SecretKey);

impl TeeKey {
    /// Draws a key from the system's random generator.
    pub fn generate() -> Result<Self, JweError> {
        random_scalar().map(Self)
    }

    /// The public half as the protocol writes it.
    pub fn public(&self) -> TeePubKey {
        let (x, y) = coordinates(&self.0.public_key());
        TeePubKey::EC { alg: ALG.into(), crv: CURVE.into(), x, y }
    }

    /// Decrypts what was encrypted to this key.
    pub fn decrypt(&self, jwe: &Jwe) -> Result<Zeroizing<Vec<u8>>, JweError> {
        decrypt(&self.0, jwe)
    }
}

/// Checks that `key` is one that [`encrypt`] can use.
pub fn check_key(key: &TeePubKey) -> Result<(), JweError> {
    public_key(key).map(drop)
}

/// Encrypts `plaintext` (at most [`MAX_PLAINTEXT`] bytes) to `recipient`.
pub fn encrypt(recipient: &TeePubKey, plaintext: &[u8]) -> Result<Jwe, JweError> {
    if plaintext.len() > MAX_PLAINTEXT {
        return Err(JweError::TooLong);
    }
    let ephemeral = random_scalar()?;
    let mut content_key = Zeroizing::new([0; 32]);
    fill(content_key.as_mut_slice())?;
    let mut iv = [0; 12];
    fill(&mut iv)?;
    encrypt_with(&public_key(recipient)?, plaintext, &ephemeral, &content_key, iv)
}

fn encrypt_with(
    recipient: &PublicKey,
    plaintext: &[u8],
    ephemeral: &SecretKey,
    content_key: &[u8; 32],
    iv: [u8; 12],
) -> Result<Jwe, JweError> {
    let wrapping_key = agree(ephemeral, recipient);
    let mut wrapped = [0; 40];
    wrapping(&wrapping_key)?.wrap_key(content_key, &mut wrapped).map_err(|_| JweError::Key)?;
    let (x, y) = coordinates(&ephemeral.public_key());
    let epk = Epk { crv: CURVE.into(), kty: "EC".into(), x, y };
    let header = Header { alg: ALG.into(), enc: ENC.into(), epk };
    let header =
        serde_json::to_vec(&header).map_err(|_| JweError::Malformed("protected header"))?;
    let protected = B64.encode(header);
    let mut sealed = cipher(content_key)?
        .encrypt(&iv.into(), Payload { msg: plaintext, aad: protected.as_bytes() })
        .map_err(|_| JweError::TooLong)?;
    let tag = sealed.split_off(plaintext.len());
    Ok(Jwe {
        protected,
        encrypted_key: B64.encode(wrapped),
        iv: B64.encode(iv),
        ciphertext: B64.encode(sealed),
        tag: B64.encode(tag),
    })
}

fn decrypt(secret: &SecretKey, jwe: &Jwe) -> Result<Zeroizing<Vec<u8>>, JweError> {
    let header = decode(&jwe.protected, "protected header")?;
    let header: Header =
        serde_json::from_slice(&header).map_err(|_| JweError::Malformed("protected header"))?;
    if header.alg != ALG || header.enc != ENC || header.epk.kty != "EC" || header.epk.crv != CURVE {
        return Err(JweError::Malformed("algorithm"));
    }
    let wrapped: [u8; 40] = decode_fixed(&jwe.encrypted_key, "encrypted key")?;
    let iv: [u8; 12] = decode_fixed(&jwe.iv, "iv")?;
    let tag: [u8; 16] = decode_fixed(&jwe.tag, "tag")?;
    let mut sealed = decode(&jwe.ciphertext, "ciphertext")?;
    if sealed.len() > MAX_PLAINTEXT {
        return Err(JweError::TooLong);
    }
    sealed.extend_from_slice(&tag);

    let wrapping_key = agree(secret, &point(&header.epk.x, &header.epk.y)?);
    let mut content_key = Zeroizing::new([0; 32]);
    wrapping(&wrapping_key)?
        .unwrap_key(&wrapped, content_key.as_mut_slice())
        .map_err(|_| JweError::Authentication)?;
    cipher(&content_key)?
        .decrypt(&iv.into(), Payload { msg: &sealed, aad: jwe.protected.as_bytes() })
        .map(Zeroizing::new)
        .map_err(|_| JweError::Authentication)
}

fn agree(secret: &SecretKey, public: &PublicKey) -> Zeroizing<[u8; 32]> {
    let shared = p256::ecdh::diffie_hellman(secret.to_nonzero_scalar(), public.as_affine());
    concat_kdf(shared.raw_secret_bytes(), ALG, b"", b"", 256)
}

/// One round of NIST SP 800-56A's Concat KDF as RFC 7518 §4.6.2 profiles it: enough for 256 bits.
fn concat_kdf(
    secret: &[u8],
    algorithm: &str,
    party_u: &[u8],
    party_v: &[u8],
    key_bits: u32,
) -> Zeroizing<[u8; 32]> {
    let mut hash = Sha256::new();
    hash.update(1u32.to_be_bytes());
    hash.update(secret);
    for part in [algorithm.as_bytes(), party_u, party_v] {
        // The three parts are constants of a few bytes.
        hash.update((part.len() as u32).to_be_bytes());
        hash.update(part);
    }
    hash.update(key_bits.to_be_bytes());
    Zeroizing::new(hash.finalize().into())
}

fn wrapping(key: &[u8; 32]) -> Result<KwAes256, JweError> {
    KwAes256::new_from_slice(key).map_err(|_| JweError::Key)
}

fn cipher(key: &[u8; 32]) -> Result<Aes256Gcm, JweError> {
    Aes256Gcm::new_from_slice(key).map_err(|_| JweError::Key)
}

fn public_key(key: &TeePubKey) -> Result<PublicKey, JweError> {
    match key {
        TeePubKey::EC { alg, crv, x, y } if alg == ALG && crv == CURVE => point(x, y),
        _ => Err(JweError::Key),
    }
}

fn point(x: &str, y: &str) -> Result<PublicKey, JweError> {
    let x: [u8; 32] = decode_fixed(x, "key").map_err(|_| JweError::Key)?;
    let y: [u8; 32] = decode_fixed(y, "key").map_err(|_| JweError::Key)?;
    PublicKey::from_sec1_bytes(&[&[4], &x[..], &y].concat()).map_err(|_| JweError::Key)
}

fn coordinates(key: &PublicKey) -> (String, String) {
    let bytes = key.to_uncompressed_point();
    let (x, y) = bytes.split_at(1).1.split_at(32);
    (B64.encode(x), B64.encode(y))
}

fn decode(text: &str, what: &'static str) -> Result<Vec<u8>, JweError> {
    B64.decode(text).map_err(|_| JweError::Malformed(what))
}

fn decode_fixed<const N: usize>(text: &str, what: &'static str) -> Result<[u8; N], JweError> {
    decode(text, what)?.try_into().map_err(|_| JweError::Malformed(what))
}

fn fill(bytes: &mut [u8]) -> Result<(), JweError> {
    getrandom::fill(bytes).map_err(|e| JweError::Random(e.to_string()))
}

fn random_scalar() -> Result<SecretKey, JweError> {
    loop {
        let mut bytes = Zeroizing::new([0; 32]);
        fill(bytes.as_mut_slice())?;
        // A draw outside 1..n happens once in 2^32 and is drawn again.
        if let Ok(key) = SecretKey::from_slice(bytes.as_slice()) {
            return Ok(key);
        }
    }
}

/// Entry point for the fuzzer: a client reads this from a key holder.
#[doc(hidden)]
pub fn fuzz_parse(bytes: &[u8]) {
    let Ok(key) = SecretKey::from_slice(&[7; 32]) else { return };
    if let Ok(jwe) = serde_json::from_slice(bytes) {
        let _ = TeeKey(key).decrypt(&jwe);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bytes: &str) -> SecretKey {
        SecretKey::from_slice(&B64.decode(bytes).unwrap()).unwrap()
    }

    /// RFC 7518, Appendix C: ECDH-ES, A128GCM, apu "Alice", apv "Bob".
    #[test]
    fn rfc_7518_appendix_c() {
        let alice = key("0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo");
        let bob = key("VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw");
        let shared =
            p256::ecdh::diffie_hellman(alice.to_nonzero_scalar(), bob.public_key().as_affine());
        let derived = concat_kdf(shared.raw_secret_bytes(), "A128GCM", b"Alice", b"Bob", 128);
        assert_eq!(B64.encode(&derived[..16]), "VqqN6vgjbSBcIijNcacQGg");
    }

    /// RFC 3394 §4.6: 256 bits of key data with a 256-bit key.
    #[test]
    fn rfc_3394_section_4_6() {
        let kek = hex::decode("000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F")
            .unwrap();
        let data = hex::decode("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F")
            .unwrap();
        let mut wrapped = [0; 40];
        KwAes256::new_from_slice(&kek).unwrap().wrap_key(&data, &mut wrapped).unwrap();
        let expected =
            "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21";
        assert_eq!(hex::encode(wrapped), expected);
    }

    #[test]
    fn what_is_encrypted_to_a_key_opens_with_it_and_no_other() {
        let tee = TeeKey::generate().unwrap();
        let jwe = encrypt(&tee.public(), b"half of a key").unwrap();
        assert_eq!(tee.decrypt(&jwe).unwrap().as_slice(), b"half of a key");
        assert_eq!(TeeKey::generate().unwrap().decrypt(&jwe), Err(JweError::Authentication));
    }

    #[test]
    fn a_changed_member_is_refused() {
        let tee = TeeKey::generate().unwrap();
        let jwe = encrypt(&tee.public(), &[7; 32]).unwrap();
        let flip = |text: &str, at: usize| {
            let mut bytes = B64.decode(text).unwrap();
            bytes[at] ^= 1;
            B64.encode(bytes)
        };
        let changed = [
            Jwe { encrypted_key: flip(&jwe.encrypted_key, 3), ..jwe.clone() },
            Jwe { iv: flip(&jwe.iv, 0), ..jwe.clone() },
            Jwe { ciphertext: flip(&jwe.ciphertext, 31), ..jwe.clone() },
            Jwe { tag: flip(&jwe.tag, 15), ..jwe.clone() },
            // The same header with a space more: equal in meaning, another text under the tag.
            Jwe {
                protected: B64
                    .encode([B64.decode(&jwe.protected).unwrap(), b" ".to_vec()].concat()),
                ..jwe.clone()
            },
        ];
        for jwe in changed {
            assert_eq!(tee.decrypt(&jwe), Err(JweError::Authentication), "{jwe:?}");
        }
    }

    #[test]
    fn other_algorithms_curves_and_points_off_the_curve_are_refused() {
        let tee = TeeKey::generate().unwrap();
        let jwe = encrypt(&tee.public(), &[7; 32]).unwrap();
        let header = String::from_utf8(B64.decode(&jwe.protected).unwrap()).unwrap();
        for (from, to) in [
            ("ECDH-ES+A256KW", "dir"),
            ("A256GCM", "A128GCM"),
            ("P-256", "P-521"),
            ("\"EC\"", "\"OKP\""),
        ] {
            let jwe = Jwe { protected: B64.encode(header.replace(from, to)), ..jwe.clone() };
            assert_eq!(tee.decrypt(&jwe), Err(JweError::Malformed("algorithm")), "{to}");
        }
        let TeePubKey::EC { alg, crv, x, .. } = tee.public() else { unreachable!() };
        let off = TeePubKey::EC { alg, crv, y: x.clone(), x };
        assert_eq!(encrypt(&off, b"").unwrap_err(), JweError::Key);
    }

    #[test]
    fn too_long_a_plaintext_is_refused() {
        let tee = TeeKey::generate().unwrap();
        assert_eq!(encrypt(&tee.public(), &[0; MAX_PLAINTEXT + 1]), Err(JweError::TooLong));
    }
}
