//! What a quote must answer.

use super::TpmError;

/// The nonce that the verifier chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(Vec<Vec<u8>>);

impl Nonce {
    /// These bytes.
    pub fn exact(bytes: &[u8]) -> Self {
        Self(vec![bytes.to_vec()])
    }

    /// Any of these: one nonce in the forms in which it may have been asked. A refusal names the
    /// first.
    pub fn any_of(forms: Vec<Vec<u8>>) -> Self {
        Self(forms)
    }

    pub(super) fn check(&self, found: &[u8]) -> Result<(), TpmError> {
        if self.0.iter().any(Vec::is_empty) {
            return Err(TpmError::EmptyNonce);
        }
        if self.0.iter().any(|form| form == found) {
            return Ok(());
        }
        let expected = self.0.first().map(hex::encode).unwrap_or_default();
        let found = if found.is_empty() { "of no bytes".into() } else { hex::encode(found) };
        Err(TpmError::Nonce { expected, found })
    }
}
