//! Detached Ed25519 signatures over documents, with the document's kind in what is signed.

use ed25519_dalek::{Signature, SignatureError, Signer, SigningKey, VerifyingKey};

/// What a signature is for; a signature of one kind never verifies as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `manifest.json`.
    Manifest,
    /// `boot.json`.
    Boot,
    /// `reference.json`: the measurements predicted for an image.
    Reference,
    /// The index of a cache of attestation collateral.
    Collateral,
    /// What a key holder states about an attestation key.
    AttestationKey,
}

impl Kind {
    fn context(self) -> &'static [u8] {
        match self {
            Self::Manifest => b"flare-cvm/v1/manifest\0",
            Self::Boot => b"flare-cvm/v1/boot\0",
            Self::Reference => b"flare-cvm/v1/reference\0",
            Self::Collateral => b"flare-cvm/v1/collateral\0",
            Self::AttestationKey => b"flare-cvm/v1/attestation-key\0",
        }
    }
}

fn message(kind: Kind, document: &[u8]) -> Vec<u8> {
    [kind.context(), document].concat()
}

/// Signs `context(kind) ‖ document` (RFC 8032, pure Ed25519). The signature file holds these 64
/// bytes.
pub fn sign(key: &SigningKey, kind: Kind, document: &[u8]) -> [u8; 64] {
    key.sign(&message(kind, document)).to_bytes()
}

/// Verifies what [`sign`] made, strictly (no small-order keys).
pub fn verify(
    key: &VerifyingKey,
    kind: Kind,
    document: &[u8],
    signature: &[u8; 64],
) -> Result<(), SignatureError> {
    key.verify_strict(&message(kind, document), &Signature::from_bytes(signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_of_another_kind_or_document_is_refused() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let signature = sign(&key, Kind::Manifest, b"doc");
        verify(&key.verifying_key(), Kind::Manifest, b"doc", &signature).unwrap();
        assert!(verify(&key.verifying_key(), Kind::Boot, b"doc", &signature).is_err());
        assert!(verify(&key.verifying_key(), Kind::Manifest, b"dod", &signature).is_err());
    }
}
