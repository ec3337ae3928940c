//! `nvidia`: GPUs beside a CPU, in the map of `additional_evidence`.

use serde::{Deserialize, Serialize};

#[cfg(all(feature = "verifier", feature = "collect"))]
use super::report_data;
#[cfg(all(feature = "verifier", feature = "collect"))]
use crate::collect::{CollectError, Device, Raw};
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
    /// Names the device to people. A stock attester writes NVML's; ours the certified serial
    /// number, which no driver can make up.
    uuid: String,
    /// Request and response.
    evidence: Base64,
    /// PEM, leaf first.
    certificate: Base64,
}

#[cfg(all(feature = "verifier", feature = "collect"))]
impl NvidiaBody {
    /// What all GPUs of a machine answer to `binding`, a session's digest for devices. There is at
    /// least one.
    ///
    /// # Errors
    /// [`CollectError`]; also for an answer that no verifier would read.
    pub fn collect(gpus: &mut dyn Device, binding: &[u8; 48]) -> Result<Self, CollectError> {
        let absent = |problem: &str| CollectError::Absent {
            device: "NVIDIA GPU".into(),
            problem: problem.into(),
        };
        let answered = match gpus.evidence(&report_data(binding))? {
            Raw::Gpus(list) if !list.is_empty() => list,
            Raw::Gpus(_) => return Err(absent("it lists none")),
            _ => return Err(absent("it is another device")),
        };
        Self::new(&answered).map_err(|e| CollectError::Answer {
            device: "NVIDIA GPU".into(),
            problem: e.to_string(),
        })
    }

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
