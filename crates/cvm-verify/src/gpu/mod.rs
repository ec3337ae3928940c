//! NVIDIA GPUs (Hopper, Blackwell) and NVSwitches: reports, certificate chains, reference
//! manifests, result policies, and sets of devices.
//!
//! | step | module | against |
//! |---|---|---|
//! | report | `report`, `opaque` | SPDM 1.1, NVIDIA's opaque data |
//! | chain, firmware digest | `chain`, `identity` | NVIDIA's device root; DICE |
//! | revocation | `ocsp` | responses that travel with the evidence |
//! | manifests | `canonical`, `xmldsig`, `rim` | NVIDIA's CoRIM signing root |
//! | measurements | `verify` | the manifests' golden values |
//! | result policy | `policy` | NVIDIA's policy files 1.0 to 4.0 |
//! | acceptance | `accept` | the site's own rules |
//! | several devices | `topology` | each other |
//!
//! NVIDIA's vocabulary is made of booleans. Here a check that fails is an error; a boolean is false
//! only where a check could not be made, and then `not_checked` names it. The facts are those of
//! NVIDIA's attestation SDK (github.com/NVIDIA/attestation-sdk, nvtrust); nothing is taken from its
//! code.

mod accept;
mod canonical;
mod chain;
mod claims;
mod der;
mod error;
mod evidence;
mod identity;
mod mismatch;
mod needed;
mod ocsp;
mod opaque;
mod policy;
mod report;
mod rim;
mod roots;
mod topology;
mod verify;
mod xmldsig;

pub use accept::GpuPolicy;
pub use claims::{
    ChainClaims, DeviceFacts, GpuClaims, LegacyClaims, Measres, ReportClaims, RimClaims,
    SwitchClaims,
};
pub use error::GpuError;
pub use evidence::{DeviceEvidence, MAX_DEVICES, MAX_SET_BYTES};
pub use identity::Arch;
pub use mismatch::{Mismatch, Source};
pub use ocsp::{MAX_OCSP_BYTES, OcspResponse};
pub use opaque::{Feature, Pdi};
pub use policy::{ClaimSet, MAX_POLICY_BYTES, PolicyMismatch, ResultPolicy};
pub use report::{MAX_REPORT_BYTES, Report};
pub use rim::Rim;
pub use roots::Roots;
pub use topology::Topology;
pub use verify::{Collateral, DeviceClaims, Verifier, verify};
