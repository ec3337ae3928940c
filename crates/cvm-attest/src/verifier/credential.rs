//! TPM2_MakeCredential in software (TPM 2.0 part 1, §24): a secret for the TPM that holds both keys.

use aws_lc_rs::{
    cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey},
    constant_time, hmac,
    iv::FixedLength,
    rand,
    rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey},
};
use cvm_base::{Bytes32, sha256};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::ek;
use crate::{
    AttestError,
    tpm::Public,
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
        f.debug_struct("CredentialState").field("ek_certificate_sha256", &self.ek_certificate_sha256).finish()
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
        constant_time::verify_slices_are_equal(&self.secret.0, answer).map_err(|_| AttestError::Credential)
    }
}

/// Makes a challenge that only a TPM holding this endorsement key and this attestation key can answer.
///
/// Checks the keys' forms only. Whether anybody endorses the TPM is decided when its evidence arrives, so
/// that a handshake costs one RSA encryption and says nothing about the policy.
///
/// # Errors
/// [`AttestError`] when a key is not what it must be, or the certificate is another key's.
pub fn challenge(params: &HandshakeParams) -> Result<(CredentialChallenge, CredentialState), AttestError> {
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

/// TPM2_MakeCredential for an endorsement key of template L-1 (RSA-2048, SHA-256, AES-128-CFB).
fn make_credential(ek: &Public, name: &[u8], secret: &[u8]) -> Result<CredentialChallenge, AttestError> {
    let (seed, encrypted_secret) = seed(ek)?;
    // §24.4: the secret encrypted under a key bound to the attestation key's name …
    let symmetric = kdf_a(&seed, "STORAGE", name, 128);
    let mut identity = Zeroizing::new([&(secret.len() as u16).to_be_bytes()[..], secret].concat());
    aes_cfb(&symmetric, &mut identity)?;
    // §24.5: … and an integrity value over both.
    let integrity = hmac::Key::new(hmac::HMAC_SHA256, &kdf_a(&seed, "INTEGRITY", &[], 256));
    let outer = hmac::sign(&integrity, &[&identity[..], name].concat());
    let blob = [&(outer.as_ref().len() as u16).to_be_bytes()[..], outer.as_ref(), &identity[..]].concat();
    Ok(CredentialChallenge { credential_blob: blob.into(), encrypted_secret: encrypted_secret.into() })
}

type Seed = (Zeroizing<Vec<u8>>, Vec<u8>);

/// Part 1 §B.4 and §B.10.4: a random seed under RSAES-OAEP with the label "IDENTITY\0".
fn seed(ek: &Public) -> Result<Seed, AttestError> {
    let fail = || AttestError::Crypto { operation: "RSAES-OAEP" };
    let mut seed = Zeroizing::new(vec![0; 32]);
    rand::fill(&mut seed).map_err(|_| AttestError::Crypto { operation: "random bytes" })?;
    let key = PublicEncryptingKey::from_der(&ek.spki())
        .map_err(|_| AttestError::EndorsementTemplate { problem: "not an RSA public key".into() })?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| fail())?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, &seed, &mut ciphertext, Some(b"IDENTITY\0")).map_err(|_| fail())?;
    Ok((seed, ciphertext))
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
