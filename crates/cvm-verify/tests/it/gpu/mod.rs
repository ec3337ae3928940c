//! NVIDIA's evidence: every vector with its verdict, and what an attacker would try.

mod attack;
mod devices;
mod ocsp;
mod policy;
mod rim;
#[path = "../../gpu/synthetic.rs"]
pub mod synthetic;
mod topology;
mod vectors;

use std::{fs, path::PathBuf};

use cvm_verify::gpu::{
    Collateral, DeviceClaims, DeviceEvidence, GpuClaims, GpuError, Rim, Roots, verify,
};

/// 2024-06-01, when the signers of the test manifests were valid.
pub(crate) const IN_2024: u64 = 1_717_200_000;
/// 2026-11-22.
pub(crate) const LATER: u64 = 1_795_305_600;

pub(crate) fn read(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/evidence/gpu");
    fs::read(folder.join(name)).unwrap()
}

pub(crate) fn evidence(folder: &str) -> DeviceEvidence {
    DeviceEvidence::parse(
        &read(&format!("{folder}/report.bin")),
        &read(&format!("{folder}/chain.pem")),
    )
    .unwrap()
}

pub(crate) fn nonce(folder: &str) -> [u8; 32] {
    let text = String::from_utf8(read(&format!("{folder}/nonce.hex"))).unwrap();
    hex::decode(text.trim()).unwrap().try_into().unwrap()
}

pub(crate) fn rim(name: &str) -> Rim {
    Rim::parse(&read(name), None).unwrap()
}

/// The two manifests of the complete vector.
pub(crate) fn rims() -> [Rim; 2] {
    ["driver-rim.xml", "vbios-rim.xml"].map(|name| rim(&format!("h100-545.00-e2e/{name}")))
}

pub(crate) fn gpu(claims: Result<DeviceClaims, GpuError>) -> Result<GpuClaims, GpuError> {
    claims.map(|claims| match claims {
        DeviceClaims::Gpu(claims) => claims,
        DeviceClaims::Switch(_) => panic!("a switch"),
    })
}

/// The complete vector.
pub(crate) fn complete(rims: &[Rim], now: u64) -> Result<GpuClaims, GpuError> {
    let roots = Roots::nvidia().unwrap();
    let name = "h100-545.00-e2e";
    let collateral = Collateral { rims, ..Collateral::default() };
    gpu(verify(&evidence(name), &roots, collateral, Some(&nonce(name)), now))
}
