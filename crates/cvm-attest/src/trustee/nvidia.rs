//! `nvidia`: GPUs beside a CPU, in the map of `additional_evidence`.

use serde::{Deserialize, Serialize};

use crate::wire::Base64;

/// The protocol's name of the kind.
pub const NVIDIA: &str = "nvidia";

/// `{"device_evidence_list": […]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvidiaBody {
    device_evidence_list: Vec<NvidiaDevice>,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NvidiaDevice {
    /// `HOPPER`, `BLACKWELL`.
    arch: String,
    /// Names the device to people. A stock attester writes NVML's; ours the certified serial number, which no driver
    /// can make up.
    uuid: String,
    /// Request and response.
    evidence: Base64,
    /// PEM, leaf first.
    certificate: Base64,
}

#[cfg(all(feature = "verifier", feature = "collect"))]
impl NvidiaBody {
    /// From what the devices gave.
    ///
    /// # Errors
    /// [`crate::AttestError::Malformed`] for what no verifier would read either.
    pub fn new(gpus: &[crate::collect::Gpu]) -> Result<Self, crate::AttestError> {
        let device = |gpu: &crate::collect::Gpu| {
            let evidence = crate::gpu::DeviceEvidence::parse(&gpu.report, &gpu.certificates)
                .map_err(|e| crate::AttestError::malformed("a GPU's evidence", e.to_string()))?;
            Ok(NvidiaDevice {
                arch: format!("{:?}", evidence.arch()).to_uppercase(),
                uuid: evidence.serial().to_owned(),
                evidence: Base64(gpu.report.clone()),
                certificate: Base64(gpu.certificates.clone()),
            })
        };
        Ok(Self { device_evidence_list: gpus.iter().map(device).collect::<Result<_, _>>()? })
    }

    /// The text of `additional_evidence` with nothing but these devices.
    pub fn additional_evidence(&self) -> String {
        serde_json::json!({ NVIDIA: self }).to_string()
    }
}
