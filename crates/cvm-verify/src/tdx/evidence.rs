//! A TD's quote and its event log.

use super::{Body, CcEventLog, Collateral, Quote, TdxError, pck, tcb};

/// A TD's evidence: parsed, and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdxEvidence {
    pub(super) quote: Quote,
    pub(super) event_log: Option<CcEventLog>,
}

impl TdxEvidence {
    /// Reads a quote, and the event log where there is one (a CCEL log area, or dstack's JSON).
    ///
    /// # Errors
    /// [`TdxError::Quote`], [`TdxError::Unsupported`], [`TdxError::EventLog`].
    pub fn parse(quote: &[u8], event_log: Option<&[u8]>) -> Result<Self, TdxError> {
        Ok(Self {
            quote: Quote::parse(quote)?,
            event_log: event_log.map(CcEventLog::parse).transpose()?,
        })
    }

    pub(crate) fn quote(&self) -> &Quote {
        &self.quote
    }
}

impl Quote {
    /// The error that says that collateral is another platform's, by what both state, neither of
    /// them believed. It explains why collateral was refused: what else is wrong with another
    /// platform's collateral does not matter.
    pub(crate) fn differs_from(&self, collateral: &Collateral) -> Option<TdxError> {
        let chain = pck::read_chain(self.signature.pck_chain.as_deref()?).ok()?;
        let platform = pck::sgx_extension(chain.first()?).ok()?;
        let kind = if matches!(self.body, Body::Td(_)) { "TDX" } else { "SGX" };
        tcb::TcbInfo::parse(collateral.tcb_info()).ok()?.check_platform(&platform, kind).err()
    }
}
