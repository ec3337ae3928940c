//! One piece of evidence, verified and judged.

use std::fmt::Display;

use cvm_base::Explain;

use super::{EvidenceClaims, Refusal};

/// What one piece of evidence proved, and why a policy refuses it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Submodule {
    pub claims: EvidenceClaims,
    pub refusals: Vec<Refusal>,
}

/// A piece of evidence that was verified, or the verifier's refusal.
pub(super) type Verified = Result<Submodule, Refusal>;

impl From<EvidenceClaims> for Submodule {
    fn from(claims: EvidenceClaims) -> Self {
        Self { claims, refusals: vec![] }
    }
}

impl Submodule {
    /// With a policy's verdict.
    pub(super) fn judged<E: Explain + Display>(
        claims: EvidenceClaims,
        verdict: Result<(), E>,
    ) -> Self {
        let refusals = verdict.err().map(|error| Refusal::new(claims.kind(), &error));
        Self { refusals: refusals.into_iter().collect(), claims }
    }
}
