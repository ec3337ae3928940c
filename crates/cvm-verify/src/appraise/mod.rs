//! From files to a verdict: what `flare-cvm attest verify` does, without reading a file.
//!
//! [`EvidenceSet`] takes files in any order and tells what each one is; [`EvidenceSet::verify`]
//! verifies every piece of evidence among them and lays the claims out as Trustee's token does, a
//! submodule for each: `cpu0`, `tpm0`, `gpu0` …, `token0` …. A composite is good only as a whole,
//! and every device in it answers the same nonce.

mod appraisal;
mod claims;
mod compare;
mod explain;
mod kinds;
mod refusal;
mod reports;
mod set;
mod stage;
mod submodule;
mod terms;
mod trust;
mod verify;

pub use appraisal::Appraisal;
pub use claims::{
    CcEventLogClaims, EarClaims, EventLogClaims, EvidenceClaims, ManifestClaims,
    SnpCertificateClaims,
};
pub use compare::{compare, note_unjudged_tcb};
pub use explain::{Explanation, explain};
pub use refusal::Refusal;
pub use reports::Reports;
pub use set::EvidenceSet;
pub use terms::{Enclosed, GpuRules, Rules, Terms};
