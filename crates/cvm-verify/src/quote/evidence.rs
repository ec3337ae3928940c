//! A quote and what was shown with it.

use super::{AttestationKey, PcrValues, TpmError, sign::QuoteSignature};
use cvm_evidence::{
    eventlog::{self, Log},
    tpm::{Quote, parse_quote},
};

/// A quote and what was shown with it, read and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteEvidence<'a> {
    pub(super) message: &'a [u8],
    pub(super) quote: Quote,
    pub(super) signature: QuoteSignature,
    pub(super) ak: AttestationKey,
    pub(super) pcrs: Option<PcrValues>,
    pub(super) log: Option<(&'a [u8], Log<'a>)>,
}

impl<'a> QuoteEvidence<'a> {
    /// Reads TPMS_ATTEST and a signature of `ak`: TPMT_SIGNATURE, or the bare bytes of an RSA or
    /// ECDSA (DER, or r ‖ s) signature.
    ///
    /// # Errors
    /// [`TpmError::Structure`] for what is not a quote or a signature of that key's type, and for
    /// trailing bytes.
    pub fn parse(
        message: &'a [u8],
        signature: &[u8],
        ak: AttestationKey,
    ) -> Result<Self, TpmError> {
        let quote = parse_quote(message)?;
        let signature = QuoteSignature::parse(signature, ak.key())?;
        Ok(Self { message, quote, signature, ak, pcrs: None, log: None })
    }

    /// With the values of the quoted registers; others may be among them, and are not claimed.
    #[must_use]
    pub fn with_pcrs(self, pcrs: PcrValues) -> Self {
        Self { pcrs: Some(pcrs), ..self }
    }

    /// With the event log that explains the values.
    ///
    /// # Errors
    /// [`TpmError::Structure`] for what is not a log.
    pub fn with_event_log(self, log: &'a [u8]) -> Result<Self, TpmError> {
        let parsed = Log::parse(log, eventlog::Registers::Pcrs)?;
        Ok(Self { log: Some((log, parsed)), ..self })
    }
}
