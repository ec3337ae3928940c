//! TPM2_MakeCredential in software (TPM 2.0 part 1, §24): a secret for the TPM that holds both
//! keys.

use aws_lc_rs::{
    agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral},
    cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey},
    constant_time, digest, hmac,
    iv::FixedLength,
    rand,
    rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey},
};
use cvm_base::{Bytes32, sha256};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::ek;
use cvm_evidence::{
    AttestError,
    tpm::{Key, Public},
    wire::{Base64, CredentialChallenge, HandshakeParams},
};

/// More than any client sends: three fields, a certificate and two public areas.
const MAX_CERTIFICATE: usize = 8192;

/// What the verifier remembers between handshake and evidence.
///
/// It holds the challenge's secret: it travels only encrypted (in the sealed cookie).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialState {
    ak_public: Base64,
    ek_certificate_sha256: Bytes32,
    secret: Secret,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "Base64", into = "Base64")]
struct Secret(Zeroizing<Vec<u8>>);

impl From<Base64> for Secret {
    fn from(bytes: Base64) -> Self {
        Self(Zeroizing::new(bytes.0))
    }
}

impl From<Secret> for Base64 {
    fn from(secret: Secret) -> Self {
        Self(secret.0.to_vec())
    }
}

impl std::fmt::Debug for CredentialState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CredentialState")
            .field("ek_certificate_sha256", &self.ek_certificate_sha256)
            .finish()
    }
}

impl CredentialState {
    pub(super) fn ak_public(&self) -> &[u8] {
        &self.ak_public.0
    }

    pub(super) fn ek_certificate_sha256(&self) -> Bytes32 {
        self.ek_certificate_sha256
    }

    /// Compares the TPM's answer with the secret, in constant time.
    pub(super) fn check(&self, answer: &[u8]) -> Result<(), AttestError> {
        if self.secret.0.len() != 32 {
            return Err(AttestError::Credential);
        }
        constant_time::verify_slices_are_equal(&self.secret.0, answer)
            .map_err(|_| AttestError::Credential)
    }
}

/// Makes a challenge that only a TPM holding this endorsement key and this attestation key can
/// answer.
///
/// Checks the keys' forms only. Whether anybody endorses the TPM is decided when its evidence
/// arrives, so that a handshake costs one public-key operation and says nothing about the policy.
///
/// # Errors
/// [`AttestError`] when a key is not what it must be, or the certificate is another key's.
pub fn challenge(
    params: &HandshakeParams,
) -> Result<(CredentialChallenge, CredentialState), AttestError> {
    let certificate = params.ek_certificate.as_ref();
    if certificate.len() > MAX_CERTIFICATE {
        let problem = format!("{} bytes, at most {MAX_CERTIFICATE} allowed", certificate.len());
        return Err(AttestError::malformed("endorsement certificate", problem));
    }
    let ek = Public::parse(params.ek_public.as_ref())?;
    ek.check_endorsement_key()?;
    if !ek::certifies(certificate, &ek.spki_bit_string())? {
        return Err(AttestError::EndorsementMismatch);
    }
    let ak = Public::parse(params.ak_public.as_ref())?;
    ak.check_attestation_key()?;

    let mut secret = Zeroizing::new(vec![0; 32]);
    rand::fill(&mut secret).map_err(|_| AttestError::Crypto { operation: "random bytes" })?;
    let challenge = make_credential(&ek, &ak.name(), &secret)?;
    let state = CredentialState {
        ak_public: params.ak_public.clone(),
        ek_certificate_sha256: sha256(certificate),
        secret: Secret(secret),
    };
    Ok((challenge, state))
}

/// TPM2_MakeCredential for an endorsement key of template L-1 or L-2 (RSA-2048 or P-256, SHA-256,
/// AES-128-CFB).
fn make_credential(
    ek: &Public,
    name: &[u8],
    secret: &[u8],
) -> Result<CredentialChallenge, AttestError> {
    let (seed, encrypted_secret) = seed(ek)?;
    // §24.4: the secret encrypted under a key bound to the attestation key's name …
    let symmetric = kdf_a(&seed, "STORAGE", name, 128);
    let mut identity = Zeroizing::new([&(secret.len() as u16).to_be_bytes()[..], secret].concat());
    aes_cfb(&symmetric, &mut identity)?;
    // §24.5: … and an integrity value over both.
    let integrity = hmac::Key::new(hmac::HMAC_SHA256, &kdf_a(&seed, "INTEGRITY", &[], 256));
    let outer = hmac::sign(&integrity, &[&identity[..], name].concat());
    let blob =
        [&(outer.as_ref().len() as u16).to_be_bytes()[..], outer.as_ref(), &identity[..]].concat();
    Ok(CredentialChallenge {
        credential_blob: blob.into(),
        encrypted_secret: encrypted_secret.into(),
    })
}

type Seed = (Zeroizing<Vec<u8>>, Vec<u8>);

fn seed(ek: &Public) -> Result<Seed, AttestError> {
    match ek.key() {
        Key::P256 { point } => ecc_seed(point),
        _ => rsa_seed(ek),
    }
}

/// Part 1 §B.4 and §B.10.4: a random seed under RSAES-OAEP with the label "IDENTITY\0".
fn rsa_seed(ek: &Public) -> Result<Seed, AttestError> {
    let fail = || AttestError::Crypto { operation: "RSAES-OAEP" };
    let mut seed = Zeroizing::new(vec![0; 32]);
    rand::fill(&mut seed).map_err(|_| AttestError::Crypto { operation: "random bytes" })?;
    let key = PublicEncryptingKey::from_der(&ek.spki()).map_err(|_| {
        AttestError::EndorsementTemplate { problem: "not an RSA public key".into() }
    })?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| fail())?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, &seed, &mut ciphertext, Some(b"IDENTITY\0"))
        .map_err(|_| fail())?;
    Ok((seed, ciphertext))
}

/// Part 1 §C.6.1 and §C.6.4: a seed that one-pass ECDH with an ephemeral key makes, and that key as
/// a TPMS_ECC_POINT.
fn ecc_seed(ek: &[u8; 64]) -> Result<Seed, AttestError> {
    let fail = |_| AttestError::Crypto { operation: "P-256" };
    let ephemeral =
        EphemeralPrivateKey::generate(&ECDH_P256, &rand::SystemRandom::new()).map_err(fail)?;
    let public = ephemeral.compute_public_key().map_err(fail)?;
    let (x, y) =
        match public.as_ref().strip_prefix(&[4]).and_then(|point| point.split_at_checked(32)) {
            Some(point) => point,
            None => return Err(AttestError::Crypto { operation: "P-256" }),
        };
    let ek_x = ek.first_chunk::<32>().unwrap_or(&[0; 32]);
    let other = UnparsedPublicKey::new(&ECDH_P256, [&[4], &ek[..]].concat());
    // The one thing that can fail here is a point that is not on the curve.
    let off_curve =
        AttestError::EndorsementTemplate { problem: "its point is not on P-256".into() };
    let seed = agree_ephemeral(ephemeral, other, off_curve, |shared_x| {
        Ok(kdf_e(shared_x, "IDENTITY", x, ek_x))
    })?;
    let marshalled = [&[0, 32], x, &[0, 32], y].concat();
    Ok((seed, marshalled))
}

/// KDFe with SHA-256 (part 1, §11.4.10.3), one block.
fn kdf_e(z: &[u8], label: &str, party_u: &[u8], party_v: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&1u32.to_be_bytes());
    hash.update(z);
    hash.update(label.as_bytes());
    hash.update(&[0]);
    hash.update(party_u);
    hash.update(party_v);
    Zeroizing::new(hash.finish().as_ref().to_vec())
}

/// KDFa with SHA-256 (part 1, §11.4.10.2), at most one block.
fn kdf_a(key: &[u8], label: &str, context: &[u8], bits: u32) -> Zeroizing<Vec<u8>> {
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    mac.update(&1u32.to_be_bytes());
    mac.update(label.as_bytes());
    mac.update(&[0]);
    mac.update(context);
    mac.update(&bits.to_be_bytes());
    let mut out = Zeroizing::new(mac.sign().as_ref().to_vec());
    out.truncate(bits as usize / 8);
    out
}

fn aes_cfb(key: &[u8], data: &mut [u8]) -> Result<(), AttestError> {
    let fail = |_| AttestError::Crypto { operation: "AES-128-CFB" };
    let key = UnboundCipherKey::new(&AES_128, key).map_err(fail)?;
    // The IV is zero by the specification; the key is used once.
    let iv = EncryptionContext::Iv128(FixedLength::from([0; 16]));
    EncryptingKey::cfb128(key).and_then(|key| key.less_safe_encrypt(data, iv)).map_err(fail)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        agreement::{PrivateKey, agree},
        cipher::{DecryptingKey, DecryptionContext},
    };

    use super::*;

    /// tpm2_makecredential made it for a key of which we have the private part.
    struct Vector {
        private: Vec<u8>,
        point: [u8; 64],
        name: Vec<u8>,
        challenge: CredentialChallenge,
        secret: Vec<u8>,
    }

    fn vector() -> Vector {
        let text = include_str!("../../../../tests/vectors/ecc-ek/credential.json");
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        let field = |name: &str| hex::decode(json[name].as_str().unwrap()).unwrap();
        // tpm2-tools' file: magic, version, TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET.
        let file = field("credential");
        let blob_end = 10 + usize::from(u16::from_be_bytes([file[8], file[9]]));
        Vector {
            private: field("ek_private"),
            point: field("ek_point")[1..].try_into().unwrap(),
            name: field("ak_name"),
            challenge: CredentialChallenge {
                credential_blob: file[10..blob_end].to_vec().into(),
                encrypted_secret: file[blob_end + 2..].to_vec().into(),
            },
            secret: field("secret"),
        }
    }

    /// Template L-2 around a point.
    fn ecc_ek(point: &[u8; 64]) -> Vec<u8> {
        let mut area = vec![0x00, 0x23, 0x00, 0x0b, 0x00, 0x03, 0x00, 0xb2, 0x00, 0x20];
        area.extend(
            hex::decode("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
                .unwrap(),
        );
        area.extend([0x00, 0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x00, 0x03, 0x00, 0x10]);
        for coordinate in point.chunks(32) {
            area.extend([0x00, 0x20]);
            area.extend(coordinate);
        }
        area
    }

    /// What the TPM does in TPM2_ActivateCredential.
    fn activate(v: &Vector, name: &[u8], challenge: &CredentialChallenge) -> Option<Vec<u8>> {
        let ephemeral = challenge.encrypted_secret.as_ref();
        let (x, y) = (&ephemeral[2..34], &ephemeral[36..]);
        let private = PrivateKey::from_private_key(&ECDH_P256, &v.private).unwrap();
        let peer = UnparsedPublicKey::new(&ECDH_P256, [&[4], x, y].concat());
        let seed =
            agree(&private, peer, (), |z| Ok(kdf_e(z, "IDENTITY", x, &v.point[..32]))).unwrap();
        let blob = challenge.credential_blob.as_ref();
        let (mac, identity) = (&blob[2..34], &blob[34..]);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &kdf_a(&seed, "INTEGRITY", &[], 256));
        hmac::verify(&key, &[identity, name].concat(), mac).ok()?;
        let mut secret = identity.to_vec();
        let key = UnboundCipherKey::new(&AES_128, &kdf_a(&seed, "STORAGE", name, 128)).unwrap();
        let iv = DecryptionContext::Iv128(FixedLength::from([0; 16]));
        DecryptingKey::cfb128(key).unwrap().decrypt(&mut secret, iv).unwrap();
        Some(secret.split_off(2))
    }

    #[test]
    fn a_credential_for_an_ecc_endorsement_key_is_what_tpm2_tools_make() {
        let v = vector();
        // The same steps open theirs …
        assert_eq!(activate(&v, &v.name, &v.challenge).unwrap(), v.secret);
        // … and ours.
        let ek = Public::parse(&ecc_ek(&v.point)).unwrap();
        ek.check_endorsement_key().unwrap();
        let ours = make_credential(&ek, &v.name, b"32 bytes of a secret, or about").unwrap();
        assert_eq!(ours.encrypted_secret.0.len(), v.challenge.encrypted_secret.0.len());
        assert_eq!(activate(&v, &v.name, &ours).unwrap(), b"32 bytes of a secret, or about");
        // Bound to the attestation key's name.
        let mut other = v.name.clone();
        other[5] ^= 1;
        assert_eq!(activate(&v, &other, &ours), None);
    }

    #[test]
    fn an_ecc_endorsement_key_off_its_curve_or_template_is_refused() {
        let v = vector();
        let mut off = v.point;
        off[63] ^= 1;
        let ek = Public::parse(&ecc_ek(&off)).unwrap();
        assert!(matches!(
            make_credential(&ek, &v.name, &[7; 32]),
            Err(AttestError::EndorsementTemplate { .. })
        ));
        for (at, value) in [(4, 4), (7, 0xb6), (12, 0), (45, 0xff)] {
            let mut area = ecc_ek(&v.point);
            area[at] = value;
            let refused = Public::parse(&area).and_then(|ek| ek.check_endorsement_key());
            assert!(refused.is_err(), "byte {at}");
        }
    }
}
