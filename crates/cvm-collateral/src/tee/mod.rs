//! Evidence of a TEE in the release protocol: SEV-SNP, TDX, and both under Azure's vTPM.
//!
//! A key holder and an agent call this module, and not the verifiers in `cvm-verify` themselves.
//! It is in this crate because a verdict needs both: what the evidence says, which `cvm-verify`
//! checks, and what vendors published about the machine, which a [`crate::Cache`] holds.
//! `cvm-verify` takes collateral as bytes and knows no cache; this is the lowest crate that knows
//! both.
//!
//! [`Vendors`] knows whom to believe and what they published. [`Vendors::verify`] turns a stock
//! attester's evidence body and the session's digest into [`TeeClaims`], laid out as Trustee does.
//! [`Vendors::verify_devices`] does the same for the GPUs beside a CPU. Nothing is fetched. The
//! claims' `not_checked` names each check for which neither the evidence nor the local cache holds
//! the collateral. Evidence may bring a whole cache along (its member `collateral`, which a site
//! puts on its p1). It counts if a collector signed it who is trusted here.
//!
//! Some guests may never get a secret, whatever a policy says: those that the host may read (debug
//! mode), those that may move to another platform, and those whose report was asked for from
//! another VMPL than the boot's 0. They are refused here.
//!
//! | module | content |
//! |---|---|
//! | `kinds` | [`KINDS`] |
//! | `vendors` | [`Vendors`], [`TeeClaims`]: evidence of a CPU |
//! | `devices` | [`Submodule`], [`check_gpus`]: evidence of GPUs |
//! | `published` | the local cache and the one that travelled, searched as one |

mod devices;
mod error;
mod kinds;
mod published;
mod vendors;

pub use devices::{MAX_ADDITIONAL_BYTES, Submodule, check_gpus};
pub use error::TeeError;
pub use kinds::KINDS;
pub use vendors::{TeeClaims, Vendors};
