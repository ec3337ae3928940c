//! An attestation key, to be certified.

/// Its P-256 point (uncompressed), as rcgen wants a public key that is not its own.
pub struct Ak(pub Vec<u8>);

impl rcgen::PublicKeyData for Ak {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}
