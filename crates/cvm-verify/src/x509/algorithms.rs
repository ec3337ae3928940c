//! The algorithms that are believed.

use rustls_pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};
use webpki::aws_lc_rs::{
    ECDSA_P256_SHA256, ECDSA_P384_SHA384, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
};

/// What vendors of evidence sign certificates with; nothing else is believed.
pub(super) const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    ECDSA_P384_SHA384,
    ECDSA_P256_SHA256,
    &AmdRsaPss,
    RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384,
];

/// RSASSA-PSS with SHA-384 as AMD writes it: with the default trailer field spelled out, against
/// DER.
#[derive(Debug)]
struct AmdRsaPss;

impl SignatureVerificationAlgorithm for AmdRsaPss {
    fn verify_signature(
        &self,
        key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        RSA_PSS_2048_8192_SHA384_LEGACY_KEY.verify_signature(key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_ENCRYPTION
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        // RFC 4055 §3.1: id-RSASSA-PSS, SHA-384, MGF1 with SHA-384, salt of 48 bytes, trailer field
        // 1.
        AlgorithmIdentifier::from_slice(&[
            0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a, 0x30, 0x39, 0xa0,
            0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02,
            0x05, 0x00, 0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d,
            0x01, 0x01, 0x08, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04,
            0x02, 0x02, 0x05, 0x00, 0xa2, 0x03, 0x02, 0x01, 0x30, 0xa3, 0x03, 0x02, 0x01, 0x01,
        ])
    }
}
