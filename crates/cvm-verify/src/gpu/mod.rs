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
mod ocsp;
mod opaque;
mod policy;
mod report;
mod rim;
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
pub use ocsp::{MAX_OCSP_BYTES, OcspResponse};
pub use opaque::{Feature, Pdi};
pub use policy::{ClaimSet, MAX_POLICY_BYTES, PolicyMismatch, ResultPolicy};
pub use report::{MAX_REPORT_BYTES, Report};
pub use rim::{Mismatch, Rim, Source};
pub use topology::{Expectation, Topology};
pub use verify::{Collateral, DeviceClaims, Verifier, verify};

use crate::x509::Certificate;

const DEVICE_ROOT: &[u8] = include_bytes!("../../../../keys/roots/nvidia/verifier_device_root.pem");
const RIM_ROOT: &[u8] = include_bytes!("../../../../keys/roots/nvidia/verifier_RIM_root.pem");

/// Who is trusted to vouch for devices, and who for their firmware's golden values; by default
/// nobody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roots {
    device: Vec<Certificate>,
    rim: Vec<Certificate>,
}

impl Roots {
    /// NVIDIA's: `NVIDIA Device Identity CA` and `NVIDIA CoRIM signing Root CA`.
    ///
    /// # Errors
    /// None: the files are part of this program, and a test reads them.
    pub fn nvidia() -> Result<Self, GpuError> {
        Self::from_pem(DEVICE_ROOT, RIM_ROOT)
    }

    /// Others: PEM or DER certificates, each trusted alone.
    ///
    /// # Errors
    /// [`GpuError::Malformed`].
    pub fn from_pem(device: &[u8], rim: &[u8]) -> Result<Self, GpuError> {
        let read = |bytes| {
            Certificate::read_all(bytes).map_err(|e| GpuError::malformed("roots", e.to_string()))
        };
        Ok(Self { device: read(device)?, rim: read(rim)? })
    }
}
