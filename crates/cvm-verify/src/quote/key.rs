//! The attestation key, in the forms in which tools write it.

use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use x509_cert::{
    der::{Decode, asn1::UintRef, oid::ObjectIdentifier},
    spki::SubjectPublicKeyInfoRef,
};

use cvm_evidence::{
    AttestError,
    tpm::{Digest, HashAlg, Key, Public, SigningScheme, spki},
};

/// More than any public key here; longer ones are refused unread.
const MAX_BYTES: usize = 4096;
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// A public key that signs quotes: RSA, P-256 or P-384.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationKey {
    key: Key,
    /// Present when the TPM's own public area was given: what the key may sign is known then.
    name: Option<Vec<u8>>,
    /// The one scheme that it signs with, where that is known.
    scheme: Option<SigningScheme>,
}

impl AttestationKey {
    /// Reads TPMT_PUBLIC, TPM2B_PUBLIC, or a SubjectPublicKeyInfo in DER or PEM.
    ///
    /// A TPM's public area must be a restricted signing key's; a SubjectPublicKeyInfo does not say
    /// what its key may sign.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for another form and for trailing bytes,
    /// [`AttestError::AttestationKey`] for a key that could sign anything.
    pub fn parse(bytes: &[u8]) -> Result<Self, AttestError> {
        let malformed = |problem: &str| AttestError::malformed("attestation key", problem);
        if bytes.len() > MAX_BYTES {
            return Err(malformed("longer than 4096 bytes"));
        }
        match bytes {
            [0x30, ..] => Self::from_spki(bytes),
            _ if bytes.trim_ascii_start().starts_with(b"-----BEGIN") => {
                let mut found = SubjectPublicKeyInfoDer::pem_slice_iter(bytes);
                match (found.next(), found.next()) {
                    (Some(Ok(der)), None) => Self::from_spki(&der),
                    (Some(Err(error)), _) => Err(malformed(&error.to_string())),
                    (None, _) => Err(malformed("no PUBLIC KEY in this PEM text")),
                    (_, Some(_)) => Err(malformed("more than one key in this PEM text")),
                }
            }
            [high, low, area @ ..]
                if usize::from(u16::from_be_bytes([*high, *low])) == area.len() =>
            {
                Self::from_public(&Public::parse(area)?)
            }
            _ => Self::from_public(&Public::parse(bytes)?),
        }
    }

    /// A key that is known to sign with RSASSA-PKCS1-v1_5 and SHA-256 alone.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for a modulus that is not of 2048, 3072 or 4096 bits.
    pub fn rsassa_sha256(modulus: &[u8], exponent: u32) -> Result<Self, AttestError> {
        let key = rsa(modulus, exponent)?;
        Ok(Self { key, name: None, scheme: Some(SigningScheme::RsaSsa(HashAlg::Sha256)) })
    }

    fn from_public(public: &Public) -> Result<Self, AttestError> {
        let scheme = public.check_restricted_signing()?;
        Ok(Self { key: public.key().clone(), name: Some(public.name()), scheme: Some(scheme) })
    }

    fn from_spki(der: &[u8]) -> Result<Self, AttestError> {
        let malformed = |problem: String| AttestError::malformed("attestation key", problem);
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|e| malformed(e.to_string()))?;
        let bits = info.subject_public_key.raw_bytes();
        let curve = info.algorithm.parameters.and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
        let key = match (info.algorithm.oid, curve) {
            (RSA_ENCRYPTION, None) => {
                let numbers =
                    Vec::<UintRef<'_>>::from_der(bits).map_err(|e| malformed(e.to_string()))?;
                let [modulus, exponent] = &numbers[..] else {
                    return Err(malformed(format!("{} numbers in an RSA key", numbers.len())));
                };
                let exponent = exponent.as_bytes().iter().try_fold(0_u32, |value, byte| {
                    Some(value.checked_mul(256)? | u32::from(*byte))
                });
                rsa(
                    modulus.as_bytes(),
                    exponent.ok_or_else(|| malformed("an exponent over 32 bits".into()))?,
                )?
            }
            (EC_PUBLIC_KEY, Some(P256)) => Key::P256 { point: point(bits)? },
            (EC_PUBLIC_KEY, Some(P384)) => Key::P384 { point: point(bits)? },
            (oid, _) => {
                return Err(malformed(format!("algorithm {oid}: RSA, P-256 or P-384 expected")));
            }
        };
        // One key has one encoding: what could hide in another is refused.
        if spki::encode(&key) != der {
            return Err(malformed("not the DER encoding of its key".into()));
        }
        Ok(Self { key, name: None, scheme: None })
    }

    /// The key's type and value.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The TPM's Name of the key, where its public area was given.
    pub fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }

    /// The key as X.509 SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> Vec<u8> {
        spki::encode(&self.key)
    }

    /// SHA-256 of [`spki`](Self::spki): what a policy can name.
    pub fn sha256(&self) -> Digest {
        HashAlg::Sha256.digest([&self.spki()[..]])
    }

    pub(super) fn scheme(&self) -> Option<SigningScheme> {
        self.scheme
    }

    /// What a certificate's BIT STRING holds for this key.
    pub(super) fn public_key_bits(&self) -> Vec<u8> {
        spki::public_key_bits(&self.key)
    }
}

fn rsa(modulus: &[u8], exponent: u32) -> Result<Key, AttestError> {
    if !matches!(modulus.len(), 256 | 384 | 512) || modulus.first().is_none_or(|b| b & 0x80 == 0) {
        let problem =
            format!("a modulus of {} bytes; 2048, 3072 or 4096 bits expected", modulus.len());
        return Err(AttestError::malformed("attestation key", problem));
    }
    if exponent < 3 || exponent.is_multiple_of(2) {
        return Err(AttestError::malformed("attestation key", format!("the exponent {exponent}")));
    }
    Ok(Key::Rsa { modulus: modulus.to_vec(), exponent })
}

/// The uncompressed form (SEC 1 §2.3.3); whether it lies on the curve is checked with the
/// signature.
fn point<const N: usize>(bits: &[u8]) -> Result<[u8; N], AttestError> {
    bits.strip_prefix(&[4]).and_then(|point| point.try_into().ok()).ok_or_else(|| {
        AttestError::malformed("attestation key", "not an uncompressed point of its curve")
    })
}
