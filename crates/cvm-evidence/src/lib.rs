//! What both ends of an attestation read: evidence as it travels, and the values that it is
//! compared with.
//!
//! The guest writes these bytes and a party reads them, so every program of both may link this
//! crate. It has no I/O and checks no signature. `cvm-collect` talks to devices, and `cvm-verify`
//! decides what to believe; this crate must depend on neither, so that a guest gets no verifier and
//! a party no device.
//!
//! | module | content |
//! |---|---|
//! | [`wire`], [`trustee`] | evidence bodies of the release protocol: a TPM's, a stock Trustee's |
//! | [`tpm`] | TPM 2.0 structures, and the bounded [`tpm::Reader`] |
//! | [`eventlog`], [`rtmr`] | what firmware and guest measured, and its replay |
//! | [`certificate_table`] | what an SEV-SNP host hands over beside a report |
//! | [`mod@reference`], [`reference_set`], [`platform`] | reference values of an image |
//! | [`tcb`] | the least firmware of a host |
//! | [`moments`] | what the guest measures of its own boot |
//!
//! ```
//! use cvm_evidence::eventlog::EventLog;
//!
//! // What a machine measured since it started, and the register values that this leads to.
//! let log = std::fs::read(concat!(
//!     env!("CARGO_MANIFEST_DIR"),
//!     "/../../tests/vectors/boot-debian12/eventlog.bin"
//! ))?;
//! let log = EventLog::parse(&log)?;
//! for event in log.events().iter().filter(|event| event.pcr == 4) {
//!     println!("{}: {}", event.describe(), event.digest);
//! }
//! println!("PCR 4: {}", log.replay()[&4]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
