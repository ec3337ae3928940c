//! Devices beside a CPU: `additional_evidence` of the release protocol.
//!
//! The CPU's evidence is bound to the text of this evidence, and every device to the same session
//! (nonce and key), so that both are of one exchange. Only NVIDIA's devices are verified here. A
//! set must be of one machine ([`Topology`]).

use cvm_base::json::check_shape;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    error::TeeError,
    vendors::{TeeClaims, Vendors, json},
};
use cvm_evidence::trustee::NVIDIA;
use cvm_verify::gpu::{
    self, DeviceClaims, DeviceEvidence, GpuClaims, GpuError, GpuPolicy, Rim, SwitchClaims, Topology,
};

/// The longest text that is read, in bytes: sixteen GPUs fit.
pub const MAX_ADDITIONAL_BYTES: usize = 1024 * 1024;

/// What one device proved.
#[derive(Debug, Clone, PartialEq)]
pub struct Submodule {
    /// As Trustee names it in a token: `gpu0`, `gpu1`, `switch0`.
    pub name: String,
    /// The kind's member in the annotated evidence: `nvidia`.
    pub kind: &'static str,
    /// That member's content.
    pub claims: TeeClaims,
}

impl Vendors {
    /// Verifies the text of `additional_evidence`: a map from the kind to a stock attester's
    /// evidence body. `binding` is the session's digest for devices, of which they answer the first
    /// 32 bytes.
    ///
    /// Manifests come from the local cache. If one that a report needs is missing, measurements are
    /// not compared, and the claims' `not_checked` says so. A measurement that differs is an error.
    ///
    /// # Errors
    /// [`TeeError`], for the first check that fails.
    pub fn verify_devices(
        &self,
        text: &str,
        binding: &[u8; 48],
        now: u64,
    ) -> Result<Vec<Submodule>, TeeError> {
        let body = |problem: String| TeeError::Body { tee: "additional evidence", problem };
        if text.len() > MAX_ADDITIONAL_BYTES {
            return Err(body(format!(
                "{} bytes, at most {MAX_ADDITIONAL_BYTES} allowed",
                text.len()
            )));
        }
        check_shape(text.as_bytes()).map_err(|e| body(e.to_string()))?;
        let kinds: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| body(e.to_string()))?;
        if let Some(other) = kinds.keys().find(|kind| *kind != NVIDIA) {
            return Err(TeeError::Kind { found: other.chars().take(40).collect() });
        }
        let set = kinds.get(NVIDIA).ok_or_else(|| body("it names no device".into()))?;
        let set = DeviceEvidence::parse_set(set.to_string().as_bytes())?;
        let nonce = cvm_evidence::tpm_nonce(binding);
        let (mut gpus, mut switches) = (Vec::new(), Vec::new());
        for device in &set {
            let rims = self.manifests(device, now)?;
            let collateral = gpu::Collateral { rims: &rims, ..gpu::Collateral::default() };
            match gpu::verify(device, &self.gpu, collateral, Some(&nonce), now)? {
                DeviceClaims::Gpu(claims) => gpus.push(claims),
                DeviceClaims::Switch(claims) => switches.push(claims),
            }
        }
        // A GPU that is listed twice, or one of another machine, does not count.
        Topology::check(&gpus, &switches)?;
        let of = |class: &str, at: usize, claims| {
            let claims = TeeClaims::new(json(claims)?);
            Ok(Submodule { name: format!("{class}{at}"), kind: NVIDIA, claims })
        };
        let gpus =
            gpus.iter().enumerate().map(|(at, gpu)| of("gpu", at, serde_json::to_value(gpu)));
        let switches = switches
            .iter()
            .enumerate()
            .map(|(at, switch)| of("switch", at, serde_json::to_value(switch)));
        gpus.chain(switches).collect()
    }

    /// The manifests that the report is to be compared with: all of them, or none.
    fn manifests(&self, device: &DeviceEvidence, now: u64) -> Result<Vec<Rim>, TeeError> {
        let mut found = Vec::new();
        for id in device.rim_ids()? {
            let Some(xml) = self.published_by_nvidia(&id, now) else { return Ok(Vec::new()) };
            found.push(Rim::parse(xml, Some(&id))?);
        }
        Ok(found)
    }

    fn published_by_nvidia(&self, rim: &str, now: u64) -> Option<&[u8]> {
        Some(self.collateral.as_ref()?.rim(rim, now).ok()?.bytes)
    }
}

/// Checks a machine's devices before any policy, where GPUs are required. At least one GPU must be
/// there, and each device must have measured NVIDIA's golden values, in this session. `submods` is
/// a token's member of that name.
///
/// # Errors
/// [`TeeError`], for the first device that fails.
pub fn check_gpus(submods: &Value) -> Result<(), TeeError> {
    let policy = GpuPolicy::default();
    let mut gpus = 0;
    let devices = submods.as_object().into_iter().flatten();
    let devices =
        devices.filter_map(|(name, submod)| Some((name, annotated(submod)?.get(NVIDIA)?)));
    for (name, claims) in devices {
        if name.starts_with("gpu") {
            policy.check(&read::<GpuClaims>(claims)?)?;
            gpus += 1;
        } else {
            policy.check_switch(&read::<SwitchClaims>(claims)?)?;
        }
    }
    match gpus {
        0 => Err(GpuError::Topology { problem: "no GPU".into() }.into()),
        _ => Ok(()),
    }
}

fn read<T: DeserializeOwned>(claims: &Value) -> Result<T, TeeError> {
    T::deserialize(claims).map_err(|e| TeeError::Body { tee: "claims", problem: e.to_string() })
}

fn annotated(submod: &Value) -> Option<&Value> {
    submod.get("ear.veraison.annotated-evidence")
}
