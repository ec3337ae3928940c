//! What both ends of an attestation read: evidence as it travels, and the values that it is
//! compared with.
//!
//! The guest writes these bytes and a party reads them, so both link this crate, and neither gets
//! the other's: what talks to devices is `cvm-collect`, what believes evidence is `cvm-verify`.
//! Nothing here checks a signature.
//!
//! | module | content |
//! |---|---|
//! | [`wire`], [`trustee`] | evidence bodies of the release protocol: a TPM's, and a stock Trustee's |
//! | [`tpm`] | TPM 2.0 structures |
//! | [`eventlog`], [`rtmr`] | what firmware and guest measured, and its replay |
//! | [`certificate_table`] | what an SEV-SNP host hands over beside a report |
//! | [`reference`], [`reference_set`], [`platform`], [`tcb`] | reference values of an image, least firmware of a host |
//! | [`moments`] | what the guest measures of its own boot |

pub mod certificate_table;
mod error;
pub mod eventlog;
mod evidence;
pub mod moments;
pub mod platform;
pub mod reference;
pub mod reference_set;
pub mod rtmr;
pub mod tcb;
pub mod tpm;
pub mod trustee;
pub mod wire;

pub use error::AttestError;
pub use evidence::{Evidence, tpm_nonce};
pub use moments::{
    HANDOFF_EVENT, JOBS_EVENT, JOBS_PCR, UNTOUCHED, handoff_digest, jobs_digest, td_handoff_digest,
    td_jobs_digest,
};
pub use reference::Reference;
pub use reference_set::ReferenceSet;
