//! A quote's signature, in the forms in which tools write it.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::{AttestationKey, TpmError};
use cvm_evidence::tpm::{HashAlg, Key, Signature, SigningScheme, parse_signature, spki};

/// RSA-4096, or TPMT_SIGNATURE around it.
const MAX_BYTES: usize = 600;

/// A signature: TPMT_SIGNATURE, or the bare bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum QuoteSignature {
    Tpmt(Signature),
    /// RSA: as long as the modulus. ECDSA: DER, or r ‖ s.
    Bare(Vec<u8>),
}

impl QuoteSignature {
    pub(super) fn parse(bytes: &[u8], key: &Key) -> Result<Self, TpmError> {
        let tpmt = match parse_signature(bytes) {
            Ok(signature) => return Ok(Self::Tpmt(signature)),
            Err(error) => error,
        };
        let bare = match key {
            Key::Rsa { modulus, .. } => bytes.len() == modulus.len(),
            Key::P256 { .. } => bytes.len() == 64 || is_ecdsa_signature(bytes),
            Key::P384 { .. } => bytes.len() == 96 || is_ecdsa_signature(bytes),
        };
        if !bare || bytes.len() > MAX_BYTES {
            return Err(tpmt.into());
        }
        Ok(Self::Bare(bytes.to_vec()))
    }

    /// Verifies the message with the key's own scheme, and says which that is.
    pub(super) fn verify(
        &self,
        ak: &AttestationKey,
        message: &[u8],
    ) -> Result<SigningScheme, TpmError> {
        let found = match self {
            Self::Tpmt(signature) => vec![scheme_of(signature)?],
            // The signature states no scheme: the key's is tried, or the usual ones where the key
            // states none either.
            Self::Bare(_) => match (ak.scheme(), ak.key()) {
                (Some(scheme), _) => vec![scheme],
                (None, Key::Rsa { .. }) => {
                    vec![
                        SigningScheme::RsaSsa(HashAlg::Sha256),
                        SigningScheme::RsaPss(HashAlg::Sha256),
                    ]
                }
                (None, Key::P256 { .. }) => vec![SigningScheme::Ecdsa(HashAlg::Sha256)],
                (None, Key::P384 { .. }) => vec![SigningScheme::Ecdsa(HashAlg::Sha384)],
            },
        };
        let mut refused = TpmError::Signature { scheme: "none".into() };
        for scheme in found {
            if let Some(expected) = ak.scheme().filter(|expected| *expected != scheme) {
                return Err(TpmError::Scheme {
                    found: scheme.to_string(),
                    expected: expected.to_string(),
                });
            }
            match self.verify_with(ak.key(), scheme, message)? {
                true => return Ok(scheme),
                false => refused = TpmError::Signature { scheme: scheme.to_string() },
            }
        }
        Err(refused)
    }

    fn verify_with(
        &self,
        key: &Key,
        scheme: SigningScheme,
        message: &[u8],
    ) -> Result<bool, TpmError> {
        use HashAlg::{Sha256, Sha384, Sha512};
        use SigningScheme::{Ecdsa, RsaPss, RsaSsa};
        let unusable = || TpmError::Scheme {
            found: scheme.to_string(),
            expected:
                "RSASSA, RSAPSS or ECDSA of the key's type, with sha256, sha384 or sha512 (RSA)"
                    .into(),
        };
        match key {
            Key::Rsa { modulus, exponent } => {
                let parameters = match scheme {
                    RsaSsa(Sha256) => &RSA_PKCS1_2048_8192_SHA256,
                    RsaSsa(Sha384) => &RSA_PKCS1_2048_8192_SHA384,
                    RsaSsa(Sha512) => &RSA_PKCS1_2048_8192_SHA512,
                    RsaPss(Sha256 | Sha384 | Sha512) => {
                        return Ok(self.verify_pss(modulus, *exponent, scheme, message));
                    }
                    _ => return Err(unusable()),
                };
                let bytes = match self {
                    Self::Tpmt(Signature::RsaSsa(_, bytes)) | Self::Bare(bytes) => bytes,
                    Self::Tpmt(_) => return Err(unusable()),
                };
                let e = exponent.to_be_bytes();
                let e = e.split_at(e.iter().take_while(|b| **b == 0).count()).1;
                Ok(RsaPublicKeyComponents { n: &modulus[..], e }
                    .verify(parameters, message, bytes)
                    .is_ok())
            }
            Key::P256 { point } => {
                let algorithm = match scheme {
                    Ecdsa(Sha256) => &ECDSA_P256_SHA256_ASN1,
                    Ecdsa(Sha384) => &ECDSA_P256_SHA384_ASN1,
                    _ => return Err(unusable()),
                };
                Ok(self.verify_ecdsa(algorithm, point, message))
            }
            Key::P384 { point } => {
                let algorithm = match scheme {
                    Ecdsa(Sha256) => &ECDSA_P384_SHA256_ASN1,
                    Ecdsa(Sha384) => &ECDSA_P384_SHA384_ASN1,
                    _ => return Err(unusable()),
                };
                Ok(self.verify_ecdsa(algorithm, point, message))
            }
        }
    }

    /// RSASSA-PSS with any salt: a TPM takes the longest that fits its key (TPM 2.0 part 1, §B.7),
    /// others the digest's length.
    fn verify_pss(
        &self,
        modulus: &[u8],
        exponent: u32,
        scheme: SigningScheme,
        message: &[u8],
    ) -> bool {
        use rsa::{BoxedUint, PublicKey, pss, signature::Verifier as _};
        let (Self::Tpmt(Signature::RsaPss(_, bytes)) | Self::Bare(bytes)) = self else {
            return false;
        };
        let Ok(signature) = pss::Signature::try_from(&bytes[..]) else { return false };
        let modulus = BoxedUint::from_be_slice_vartime(modulus);
        let Ok(key) = PublicKey::new(modulus, exponent.into()) else { return false };
        match scheme {
            SigningScheme::RsaPss(HashAlg::Sha384) => {
                pss::VerifyingKey::<sha2::Sha384>::new_with_auto_salt_len(key)
                    .verify(message, &signature)
                    .is_ok()
            }
            SigningScheme::RsaPss(HashAlg::Sha512) => {
                pss::VerifyingKey::<sha2::Sha512>::new_with_auto_salt_len(key)
                    .verify(message, &signature)
                    .is_ok()
            }
            SigningScheme::RsaPss(HashAlg::Sha256) => {
                pss::VerifyingKey::<sha2::Sha256>::new_with_auto_salt_len(key)
                    .verify(message, &signature)
                    .is_ok()
            }
            _ => false,
        }
    }

    fn verify_ecdsa(
        &self,
        algorithm: &'static EcdsaVerificationAlgorithm,
        point: &[u8],
        message: &[u8],
    ) -> bool {
        let der = match self {
            Self::Tpmt(Signature::Ecdsa(_, r, s)) => spki::ecdsa_signature(r, s),
            Self::Bare(bytes) if !is_ecdsa_signature(bytes) => {
                let (r, s) = bytes.split_at(point.len() / 2);
                spki::ecdsa_signature(r, s)
            }
            Self::Bare(bytes) => bytes.clone(),
            Self::Tpmt(_) => return false,
        };
        let uncompressed = [&[4], point].concat();
        UnparsedPublicKey::new(algorithm, uncompressed).verify(message, &der).is_ok()
    }
}

fn scheme_of(signature: &Signature) -> Result<SigningScheme, TpmError> {
    let (name, id, make): (_, _, fn(HashAlg) -> SigningScheme) = match signature {
        Signature::RsaSsa(hash, _) => ("RSASSA", *hash, SigningScheme::RsaSsa),
        Signature::RsaPss(hash, _) => ("RSAPSS", *hash, SigningScheme::RsaPss),
        Signature::Ecdsa(hash, ..) => ("ECDSA", *hash, SigningScheme::Ecdsa),
    };
    HashAlg::from_id(id).map(make).ok_or_else(|| TpmError::Scheme {
        found: format!("{name} with hash {id:#06x}"),
        expected: "sha256, sha384 or sha512".into(),
    })
}
/// Whether these bytes are an Ecdsa-Sig-Value of P-256 or P-384, and nothing else. Its length says
/// little: r and s lose their leading zeros.
pub(crate) fn is_ecdsa_signature(der: &[u8]) -> bool {
    use x509_cert::der::{Decode as _, asn1::UintRef};
    let numbers = Vec::<UintRef<'_>>::from_der(der).unwrap_or_default();
    numbers.len() == 2 && numbers.iter().all(|number| number.as_bytes().len() <= 48)
}
