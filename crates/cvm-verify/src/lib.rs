//! What a party checks: from evidence to claims.
//!
//! | module | evidence |
//! |---|---|
//! | [`snp`] | SEV-SNP reports, VCEK and VLEK chains |
//! | [`tdx`] | TDX and SGX quotes with DCAP collateral, CCEL event logs |
//! | [`azure`] | Azure's vTPM over SNP and TDX |
//! | [`quote`] | TPM 2.0 quotes and event logs alone |
//! | [`gpu`] | NVIDIA GPUs and switches, reference manifests, result policies |
//! | [`token`] | tokens of other verifiers, and our own EAR |
//! | [`appraise`] | files of any of these kinds, to one verdict |
//!
//! [`verify`] binds a TPM's evidence to one session of the release protocol; for TEEs,
//! `cvm-collateral` does so with what vendors published.
//!
//! # The shape of a verifier
//!
//! Every module has the same four steps, each with types of its own:
//!
//! 1. **parse**: bytes become evidence, `XEvidence::parse`. Layout alone; nothing is believed.
//! 2. **verify**: `verify(&evidence, &roots, …, now)` checks signatures, chains and dates against
//!    roots that the caller names. `now` is an argument, and nothing is fetched.
//! 3. **claims**: `XClaims` says what is true. A check that could not be made is in its
//!    `not_checked` ([`NotChecked`]), because a check that was left out must not look like one
//!    that passed.
//! 4. **policy**: `XPolicy::check(&claims)` says what is acceptable, with safe defaults.
//!
//! ```no_run
//! use cvm_verify::snp::{SnpEvidence, SnpExpected, SnpPolicy, SnpRoots, verify};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (report, vcek) = (std::fs::read("report.bin")?, std::fs::read("vcek.der")?);
//! let asked = [7; 64];
//! let now = 1_780_000_000;
//!
//! let evidence = SnpEvidence::parse(&report, &vcek)?;
//! let expected = SnpExpected { report_data: Some(&asked), host_data: None };
//! let claims = verify(&evidence, SnpRoots::amd()?, &[], &expected, now)?;
//! SnpPolicy::default().check(&claims)?;
//! println!("{} of a {:?}", claims.measurement, claims.product);
//! # Ok(())
//! # }
//! ```
//!
//! A new kind of evidence is a module of this shape, an arm in [`appraise`], and a row in
//! `tests/vectors/evidence/PROVENANCE.md` whose real evidence a test verifies.

pub mod acpi;
pub mod ak_certificate;
pub mod appraise;
pub mod azure;
mod claims;
pub mod files;
pub mod gpu;
pub mod measured;
mod not_checked;
pub mod quote;
pub mod snp;
pub mod tdx;
pub mod token;
mod verifier;
pub mod x509;

pub use claims::{Claims, PcrMismatch, Phase, TpmClaims};
pub use not_checked::NotChecked;
pub use verifier::{
    Binding, CredentialState, Difference, QuotedEvidence, QuotedTpm, Roots, challenge, verify,
    verify_quoted,
};
