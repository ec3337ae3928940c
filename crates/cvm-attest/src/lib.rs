//! What a CVM proves and how it is checked.
//!
//! One [`Evidence`] enum, one [`verify`] that turns evidence into [`Claims`], and the [`Reference`]
//! values that claims are compared with. Kinds of evidence: TPM 2.0 (quote, event log, endorsement
//! chain, attestation key bound by credential activation). [`snp`] verifies SEV-SNP reports.
//!
//! | feature | who needs it | brings |
//! |---|---|---|
//! | none | both ends | wire types, TPM structures, event logs, reference values |
//! | `verifier` | key holders, `flare-cvm attest` | [`verify`], [`Roots`], software MakeCredential |
//! | `policy` | key holders, agents, `flare-cvm policy` | Rego over claims |
//! | `attester` | `cvm-init` | `attester::Tpm` over libtss2 |
//! | `predict` | the build | PCR values and SEV-SNP launch digests from files alone |
//! | `predict` | the build | PCRs, MRTD and RTMRs from files alone |
//! | `collateral` | key holders, `flare-cvm` | the signed cache of vendors' collateral, without a network |
//! | `collateral-fetch` | `flare-cvm` alone | asking vendors' services |
//! | `collect`, `collect-gpu` | guests | evidence from SNP, TDX and GPUs; with `attester` also Azure's |
//! | `predict` | the build | PCR values from files alone |

mod error;
pub mod eventlog;
mod evidence;
#[cfg(feature = "verifier")]
pub mod files;
pub mod fuzz;
#[cfg(feature = "verifier")]
pub mod gpu;
pub mod reference;
pub mod rtmr;
#[cfg(feature = "policy")]
pub mod policy;
pub mod reference;
pub mod reference_set;
pub mod tpm;
pub mod wire;

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
#[cfg(feature = "predict")]
pub mod predict;
#[cfg(feature = "verifier")]
pub mod snp;
pub mod tdx;
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
    verifier::{Binding, CredentialState, Roots, challenge, verify},
};

/// What `cvm-init` measures into PCR 11 before it hands off: SHA-256 of this text.
pub const HANDOFF_EVENT: &str = "flare-cvm:handoff";

/// The digest that `cvm-init` extends into PCR 11 before it hands off.
///
/// From then on a quote shows that boot is over, and no key holder answers it (DESIGN §2.6).
pub fn handoff_digest() -> cvm_base::Bytes32 {
    cvm_base::sha256(HANDOFF_EVENT.as_bytes())
}

/// The part of the release protocol's SHA-384 binding that a TPM quote carries: its first 32 bytes.
pub fn tpm_nonce(binding: &[u8; 48]) -> [u8; 32] {
    let mut nonce = [0; 32];
    nonce.copy_from_slice(&binding[..32]);
    nonce
}
