//! Intel TDX (and SGX) quotes, verified offline with DCAP collateral.
//!
//! ```text
//! Intel SGX Root CA ─┬─ TCB signing ── TCB info, QE identity          collateral
//!                    └─ PCK CA ── PCK (this platform)                 in the quote
//!                                  └─ signs the quoting enclave's report: QE identity fits,
//!                                     REPORT_DATA = SHA-256(attestation key ‖ authentication data)
//!                                       └─ the attestation key signs header ‖ TD report
//! ```
//!
//! **Why our own code** and not the crate `dcap-qvl`, which is good: it verifies all collateral
//! with each quote (`benches/verify.rs` measures both), its errors name no check, it brings 30
//! crates, and it does three things that we do not want: collateral's `pck_certificate_chain`
//! replaces the quote's own chain, the PCE id is not compared, and a revocation list from the
//! future is believed. It is the oracle in our tests instead: on every vector, on hundreds of
//! damaged quotes and collaterals and on every minted one, what we accept it must accept with the
//! same status and advisories, and what it alone accepts must fail one of our stricter checks.
//!
//! Status, advisories and attributes are claims; [`TdxPolicy`] refuses what is not safe. Revoked
//! platforms are refused here.

mod ccel;
mod claims;
mod collateral;
mod error;
mod evidence;
mod fuzz;
mod pck;
mod policy;
mod qe;
mod quote;
mod roots;
mod status;
mod tcb;
mod time;
mod verifier;

pub use ccel::{CcEvent, CcEventLog, MAX_LOG_BYTES};
pub use claims::{
    DigestClaim, EventClaim, EventDetails, PlatformClaims, QuoteClaims, SgxClaims, SgxHeader,
    TdAttributes, TdxClaims,
};
pub use collateral::{Collateral, MAX_COLLATERAL_BYTES};
pub use error::TdxError;
pub use evidence::TdxEvidence;
#[doc(hidden)]
pub use fuzz::fuzz_signed_documents;
pub use pck::fmspc;
pub use policy::{SgxPolicy, TdxPolicy};
pub use quote::{Body, EnclaveReport, Header, MAX_QUOTE_BYTES, Quote, TdReport};
pub use roots::{INTEL_ROOT_PEM, intel_roots};
pub use status::TcbStatus;
pub use time::Timestamp;
pub use verifier::{DcapVerifier, verify};
