//! What a CVM proves and how it is checked.
//!
//! Every kind of evidence has a module with the same shape: bytes are parsed into evidence,
//! `verify` turns evidence, roots and collateral into claims at a given time, and a small policy
//! with safe defaults judges claims. A check that could not be made stands in the claims
//! ([`NotChecked`]).
//!
//! | module | evidence |
//! |---|---|
//! | [`snp`] | SEV-SNP reports, VCEK and VLEK chains |
//! | [`tdx`] | TDX and SGX quotes with DCAP collateral, CCEL event logs |
//! | [`azure`] | Azure's vTPM over SNP and TDX |
//! | [`tpm`] | TPM 2.0 quotes and event logs |
//! | [`gpu`] | NVIDIA GPUs and switches, reference manifests, result policies |
//! | [`token`] | tokens of other verifiers, and our own EAR |
//! | [`tee`] | SNP, TDX and Azure in the release protocol, with what vendors published |
//!
//! The release protocol's [`Evidence`] and [`verify`] bind a TPM's evidence to one session.
//!
//! | feature | who needs it | brings |
//! |---|---|---|
//! | none | both ends | wire types, TPM structures, event logs, reference values |
//! | `ak-certificate` | whoever reads or signs AK certificates | the [`ak_certificate`] format alone |
//! | `verifier` | key holders, `flare-cvm attest` | all verifiers, [`Roots`], software MakeCredential |
//! | `policy` | key holders, agents, `flare-cvm policy` | Rego over claims |
//! | `attester` | `cvm-init` | `attester::Tpm` over libtss2 |
//! | `predict` | the build | PCRs, launch digests, MRTD and RTMRs from files alone |
//! | `collateral` | key holders, `flare-cvm` | the signed cache of vendors' collateral, without a network |
//! | `collateral-fetch` | `flare-cvm` alone | asking vendors' services |
//! | `collect`, `collect-gpu` | guests | evidence from SNP, TDX and GPUs; with `attester` also Azure's |

#[cfg(feature = "ak-certificate")]
pub mod ak_certificate;
pub mod certificate_table;
mod error;
pub mod eventlog;
mod evidence;
pub mod fuzz;
pub mod reference;
pub mod reference_set;
pub mod rtmr;
pub mod tcb;
pub mod tpm;
pub mod trustee;
pub mod wire;

#[cfg(feature = "verifier")]
pub mod acpi;
#[cfg(feature = "verifier")]
pub mod appraise;
#[cfg(feature = "attester")]
pub mod attester;
#[cfg(feature = "verifier")]
pub mod azure;
#[cfg(feature = "verifier")]
mod claims;
#[cfg(feature = "collateral")]
pub mod collateral;
#[cfg(feature = "collect")]
pub mod collect;
#[cfg(feature = "verifier")]
pub mod files;
#[cfg(feature = "verifier")]
pub mod gpu;
#[cfg(feature = "policy")]
pub mod policy;
#[cfg(feature = "predict")]
pub mod predict;
#[cfg(feature = "verifier")]
pub mod snp;
#[cfg(feature = "verifier")]
pub mod tdx;
#[cfg(feature = "collateral")]
pub mod tee;
#[cfg(feature = "verifier")]
pub mod token;
#[cfg(feature = "verifier")]
mod verifier;
#[cfg(feature = "verifier")]
pub mod x509;

pub use error::AttestError;
pub use evidence::Evidence;
pub use reference::Reference;
pub use reference_set::ReferenceSet;

#[cfg(feature = "verifier")]
pub use {
    claims::{Claims, NotChecked, PcrMismatch, Phase, TpmClaims},
    verifier::{
        Binding, CredentialState, Difference, QuotedEvidence, QuotedTpm, Roots, challenge, verify,
        verify_quoted,
    },
};

/// What `cvm-init` measures into PCR 11 before it hands off: SHA-256 of this text.
pub const HANDOFF_EVENT: &str = "flare-cvm:handoff";

/// The digest that `cvm-init` extends into PCR 11 before it hands off.
///
/// From then on a quote shows that boot is over, and no key holder answers it (invariant 6).
pub fn handoff_digest() -> cvm_base::Bytes32 {
    cvm_base::sha256(HANDOFF_EVENT.as_bytes())
}

/// The same for a TD, extended into RTMR3: SHA-384 of the text.
pub fn td_handoff_digest() -> rtmr::Bytes48 {
    rtmr::sha384(HANDOFF_EVENT.as_bytes())
}

/// What the running system of an image that requires GPUs measures once p5 is open: SHA-256 of this
/// text into PCR 15, or its SHA-384 into a TD's RTMR3.
pub const JOBS_EVENT: &str = "flare-cvm:jobs";
/// The register for it: nothing that is predicted of an image lies in it.
pub const JOBS_PCR: u8 = 15;
/// A register that nobody extended since the machine was started.
pub(crate) const UNTOUCHED: cvm_base::Bytes32 = cvm_base::Bytes([0; 32]);

/// The digest that is extended into PCR 15 once p5 is open.
///
/// From then on a quote shows that p5's half was used, and no key holder releases it again to this
/// boot.
pub fn jobs_digest() -> cvm_base::Bytes32 {
    cvm_base::sha256(JOBS_EVENT.as_bytes())
}

/// The same for a TD, extended into RTMR3 behind the handoff.
pub fn td_jobs_digest() -> rtmr::Bytes48 {
    rtmr::sha384(JOBS_EVENT.as_bytes())
}

/// The part of the release protocol's SHA-384 binding that a TPM quote carries: its first 32 bytes.
pub fn tpm_nonce(binding: &[u8; 48]) -> [u8; 32] {
    let mut nonce = [0; 32];
    nonce.copy_from_slice(&binding[..32]);
    nonce
}
