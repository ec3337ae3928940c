//! The TPM as a source of evidence: a quote of the SHA-256 bank under its attestation key.

use super::{connection::Tpm, error::TpmError};
use crate::{
    device::{Device, Kind, Raw, short_nonce},
    error::CollectError,
};

/// A TPM as a [`Device`]: it gives a quote.
pub struct TpmDevice(Tpm);

impl TpmDevice {
    /// Uses this TPM.
    pub fn new(tpm: Tpm) -> Self {
        Self(tpm)
    }
}

impl Device for TpmDevice {
    fn kind(&self) -> Kind {
        Kind::Tpm
    }

    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<Raw, CollectError> {
        let fail = |error: TpmError| CollectError::refused("the TPM", "make a quote", error);
        let mut key = self.0.create_quoting_key().map_err(fail)?;
        let quote = key.quote(&short_nonce(report_data)).map_err(fail)?;
        Ok(Raw::Tpm { ak_public: key.public().clone(), quote: Box::new(quote) })
    }
}
