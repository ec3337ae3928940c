//! Of several candidates' reasons, the one that says most: that of the candidate which got
//! furthest.
//!
//! Several keys, signatures, forms of a nonce or collections of collateral may lie beside evidence,
//! and one of them belongs to it. Why the others do not fit says nothing.

use crate::{azure::AzureError, quote::TpmError, tdx::TdxError, token::TokenError};

/// Where a candidate was refused, in the order of verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// It cannot be read, or is of another kind.
    Form,
    /// It is another machine's, or another key's.
    Owner,
    /// Its own dates, or the chain above it.
    Chain,
    /// Signatures.
    Signature,
    /// What is signed: issuer, audience, times.
    Claims,
    /// The nonce.
    Nonce,
    /// Values, and what a policy says of them.
    Verdict,
}

/// An error that knows at which check it arose.
pub(super) trait Staged {
    fn stage(&self) -> Stage;
}

/// Tries candidates in their order: what the first good one gave, or the reason of the one that got
/// furthest. Of equals the first counts; `None` where there is no candidate.
pub(super) fn first_good<T, C, E: Staged>(
    candidates: impl IntoIterator<Item = C>,
    mut attempt: impl FnMut(C) -> Result<T, E>,
) -> Option<Result<T, E>> {
    let mut furthest: Option<E> = None;
    for candidate in candidates {
        match attempt(candidate) {
            Ok(found) => return Some(Ok(found)),
            Err(error) if furthest.as_ref().is_none_or(|known| known.stage() < error.stage()) => {
                furthest = Some(error)
            }
            Err(_) => {}
        }
    }
    furthest.map(Err)
}

impl Staged for TdxError {
    fn stage(&self) -> Stage {
        match self {
            Self::Quote { .. }
            | Self::Unsupported { .. }
            | Self::Collateral { .. }
            | Self::EventLog { .. } => Stage::Form,
            Self::OtherPlatform { .. } | Self::Pck { .. } => Stage::Owner,
            Self::Time { .. } | Self::Chain { .. } => Stage::Chain,
            Self::Signature { .. } | Self::AttestationKey { .. } | Self::QuotingEnclave { .. } => {
                Stage::Signature
            }
            Self::ReportData { .. } => Stage::Nonce,
            Self::Tcb { .. }
            | Self::Replay { .. }
            | Self::Status { .. }
            | Self::NoCollateral { .. }
            | Self::Policy { .. } => Stage::Verdict,
        }
    }
}

impl Staged for TpmError {
    fn stage(&self) -> Stage {
        match self {
            Self::Structure(_) | Self::Scheme { .. } => Stage::Form,
            // Another key's, or another quote's.
            Self::Signature { .. } => Stage::Owner,
            Self::Nonce { .. } | Self::EmptyNonce => Stage::Nonce,
            Self::Bank { .. }
            | Self::Selection { .. }
            | Self::PcrDigest { .. }
            | Self::Replay { .. }
            | Self::Endorsement { .. }
            | Self::Certificate(_) => Stage::Verdict,
        }
    }
}

impl Staged for AzureError {
    fn stage(&self) -> Stage {
        match self {
            Self::Quote(error) => error.stage(),
            Self::UserData { .. } => Stage::Nonce,
            Self::Structure(_)
            | Self::Version { .. }
            | Self::ReportType { .. }
            | Self::Kind { .. } => Stage::Form,
            Self::RuntimeClaims { .. }
            | Self::RuntimeBinding { .. }
            | Self::Vmpl { .. }
            | Self::TdReport { .. } => Stage::Signature,
            Self::Snp(_) | Self::Certificate(_) => Stage::Verdict,
        }
    }
}

impl Staged for TokenError {
    fn stage(&self) -> Stage {
        match self {
            Self::Malformed { .. }
            | Self::Header { .. }
            | Self::Algorithm { .. }
            | Self::Symmetric { .. }
            | Self::Keys { .. } => Stage::Form,
            Self::Unverifiable { .. } => Stage::Owner,
            Self::Signature { .. } => Stage::Signature,
            Self::Party { .. } | Self::Time { .. } | Self::Claims { .. } => Stage::Claims,
            Self::Nonce { .. } => Stage::Nonce,
            Self::Refused { .. } => Stage::Verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_the_candidate_that_got_furthest_stands_whatever_their_order() {
        let other =
            || TdxError::OtherPlatform { field: "FMSPC", expected: "a".into(), found: "b".into() };
        let late = || TdxError::Time { what: "TCB info", from: 0, until: 1, now: 2 };
        for candidates in [[late(), other()], [other(), late()]] {
            let refused = first_good(candidates, Err::<(), _>);
            assert_eq!(refused, Some(Err(late())));
        }
        assert_eq!(
            first_good([Err(other()), Ok(7), Err(late())], |candidate| candidate),
            Some(Ok(7))
        );
        assert_eq!(first_good([], |error: TdxError| Err::<(), _>(error)), None);
    }
}
