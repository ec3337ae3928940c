//! Evidence bodies as stock Trustee's attesters write them: `primary_evidence` of the release
//! protocol.
//!
//! Both ends use these: `cvm-init` writes them, as a stock Trustee reads them; the verifiers read
//! them, so that our key holders verify stock attesters. (Trustee v0.21, `deps/verifier` and
//! guest-components' `attester`, read off their sources.)

mod nvidia;
mod snp;

pub use nvidia::{NVIDIA, NvidiaBody, NvidiaDevice};
pub use snp::{CertificateEntry, SnpBody};

use serde::{Deserialize, Serialize};

use crate::wire::Base64;

/// The member of a TEE's body that holds a cache of collateral, as `cvm_collateral::Cache::pack`
/// writes it. Stock verifiers pass it over.
pub const COLLATERAL: &str = "collateral";

/// `tdx`: a DCAP quote, and the log of what the firmware measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TdxBody {
    /// The ACPI table CCEL's log area; `null` if there is none.
    pub cc_eventlog: Option<Base64>,
    /// The quote.
    pub quote: Base64,
}

/// The protocol's digest in a TEE's 64 bytes of report data: zeros follow it.
pub fn report_data(binding: &[u8; 48]) -> [u8; 64] {
    let mut data = [0; 64];
    data[..48].copy_from_slice(binding);
    data
}
