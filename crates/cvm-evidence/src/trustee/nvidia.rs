//! `nvidia`: GPUs beside a CPU, in the map of `additional_evidence`.

use serde::{Deserialize, Serialize};

use crate::wire::Base64;

/// The protocol's name of the kind.
pub const NVIDIA: &str = "nvidia";

/// `{"device_evidence_list": […]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvidiaBody {
    /// In the machine's order.
    pub device_evidence_list: Vec<NvidiaDevice>,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvidiaDevice {
    /// `HOPPER`, `BLACKWELL`.
    pub arch: String,
    /// NVML's name of the device, for people. Nobody vouches for it.
    pub uuid: String,
    /// SPDM GET_MEASUREMENTS request and response.
    pub evidence: Base64,
    /// PEM, leaf first.
    pub certificate: Base64,
}

impl NvidiaBody {
    /// The text of `additional_evidence` with only these devices.
    pub fn additional_evidence(&self) -> String {
        serde_json::json!({ NVIDIA: self }).to_string()
    }
}
