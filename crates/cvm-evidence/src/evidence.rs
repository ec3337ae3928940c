//! Evidence of every kind, as it arrives.

use crate::{AttestError, wire::TpmEvidence};

/// What a CVM offers as proof. A new kind is a variant here and an arm in `cvm_verify::verify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// A TPM 2.0 quote (`tee` = `tpm`).
    Tpm(Box<TpmEvidence>),
}

impl Evidence {
    /// Reads the protocol's `primary_evidence` for the kind that `auth` named as `tee`.
    ///
    /// # Errors
    /// [`AttestError::Kind`] for a kind without a verifier, [`AttestError::Malformed`] for another
    /// body.
    pub fn from_json(tee: &str, body: &serde_json::Value) -> Result<Self, AttestError> {
        match tee {
            "tpm" => serde::Deserialize::deserialize(body)
                .map(|evidence| Self::Tpm(Box::new(evidence)))
                .map_err(|e| AttestError::malformed("tpm evidence", e.to_string())),
            other => Err(AttestError::Kind { found: other.chars().take(40).collect() }),
        }
    }
}

/// The part of the release protocol's SHA-384 binding that a TPM quote carries: its first 32 bytes.
pub fn tpm_nonce(binding: &[u8; 48]) -> [u8; 32] {
    let mut nonce = [0; 32];
    nonce.copy_from_slice(&binding[..32]);
    nonce
}
