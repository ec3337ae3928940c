//! What evidence is judged by: nonces, keys, policies; and devices that are judged together.

use std::path::Path;

use super::{h100_nonce, switch_nonce};
use crate::{EVIDENCE, NOW, VECTORS, explain::machine, folder, verify, write};

/// The command line says whose word counts; the evidence's own word counts only if it says so.
#[test]
fn what_judges_does_not_come_with_the_evidence() {
    let h100 = format!("{EVIDENCE}/gpu/h100-545.00-e2e");
    let gpu: String = ["report.bin", "chain.pem", "driver-rim.xml", "vbios-rim.xml"]
        .map(|file| format!("{h100}/{file} "))
        .concat();
    let gpu = format!("{gpu} {h100}/nonce.hex --at 1700000000");
    let run = verify(&gpu).failed("ATT-362");
    run.says("refused[ATT-420]: the nonce: ").says("--nonce-from-evidence");
    let run = verify(&format!("{gpu} --nonce-from-evidence")).good();
    run.says("gpu0: not checked: nonce: the nonce came with the evidence");
    let run = verify(&format!("{gpu} --nonce {}", "11".repeat(32))).failed("ATT-362");
    run.says("refused[ATT-342]").says("left out: ").says("another nonce than the one given");

    let maa = format!("{EVIDENCE}/maa/maa-1-sgx.jwt --at 1625170400");
    let keys = format!("{EVIDENCE}/maa/maa-1-sgx.jwks.json");
    verify(&format!("{maa} {keys}"))
        .failed("ATT-362")
        .says("refused[ATT-421]: ")
        .says("--jwks-from-evidence");
    verify(&format!("{maa} --jwks {keys}")).failed("ATT-362").says("refused[ATT-422]: ");
    let run = verify(&format!("{maa} {keys} --jwks-from-evidence --issuer-from-evidence")).good();
    run.says("token0: not checked: token-keys: ").says("token0: not checked: issuer: ");
    let others = format!("{EVIDENCE}/nras/nras-prod-20250609.recovered.pub.pem");
    verify(&format!("{maa} {keys} --jwks {others} --issuer-from-evidence"))
        .failed("ATT-362")
        .says("refused[ATT-35");
    for both in [
        "--nonce 00 --nonce-from-evidence",
        "--jwks x --jwks-from-evidence",
        "--issuer x --issuer-from-evidence",
    ] {
        assert_eq!(verify(&format!("{maa} {both}")).status, Some(2), "{both}");
    }
}

/// A policy as NVIDIA writes them.
fn policy(folder: &Path, name: &str, overall: &str, detached: &str) -> String {
    let text = format!(
        r#"{{"version": "4.0", "authorization-rules":
            {{"type": "JWT", "overall-claims": {overall}, "detached-claims": {detached}}}}}"#
    );
    write(folder.join(name), text)
}

/// NVIDIA's own policies ask for OCSP responses, which an offline check does not have. Everything
/// else that they ask for holds.
#[test]
fn nvidias_policies_say_which_check_was_not_made() {
    let h100 = format!("{EVIDENCE}/gpu/h100-545.00-e2e");
    let files = ["report.bin", "chain.pem", "driver-rim.xml", "vbios-rim.xml"];
    let files: String =
        files.map(|file| format!("{h100}/{file} ")).concat() + "--nonce " + &h100_nonce();
    let folder = folder("nvidia");
    let policy = |name, overall, detached| policy(&folder, name, overall, detached);
    let measured = policy(
        "measured.json",
        r#"{"x-nvidia-ver": "3.0"}"#,
        r#"{"measres": "success", "x-nvidia-gpu-arch-check": true}"#,
    );
    verify(&format!("{files} --at 1700000000 --policy {measured}"))
        .good()
        .says("verdict: accepted");
    let asked = policy(
        "ocsp.json",
        r#"{"x-nvidia-ver": "3.0"}"#,
        r#"{"x-nvidia-gpu-driver-rim-cert-chain": {"x-nvidia-cert-ocsp-status": "good"}}"#,
    );
    let run = verify(&format!("{files} --at 1700000000 --policy {asked}")).failed("ATT-362");
    run.says("refused[ATT-363]: ").says("x-nvidia-cert-ocsp-status").says("(not checked: ocsp: ");
    assert_eq!(run.out.matches("refused[").count(), 1, "{}", run.out);
    // A policy for devices that are not there accepts nothing.
    let snp = format!("{EVIDENCE}/snp/milan-virtee --at {NOW}");
    verify(&format!("{snp} --policy {measured}"))
        .failed("ATT-362")
        .says("refused[ATT-363]: ")
        .says("devices is 0");
}

/// The verdict of NVIDIA's service is judged by the same rules as the evidence itself.
#[test]
fn nvidias_policies_judge_switches_and_the_service_too() {
    let folder = folder("nvidia-switch");
    let policy = |name, overall, detached| policy(&folder, name, overall, detached);
    let measured = policy(
        "measured.json",
        r#"{"x-nvidia-ver": "3.0"}"#,
        r#"{"measres": "success", "x-nvidia-gpu-arch-check": true}"#,
    );
    let asked = policy(
        "ocsp.json",
        r#"{"x-nvidia-ver": "3.0"}"#,
        r#"{"x-nvidia-gpu-driver-rim-cert-chain": {"x-nvidia-cert-ocsp-status": "good"}}"#,
    );
    let switch = format!(
        "{VECTORS}/forms/ls10.evidence.json {VECTORS}/forms/ls10.bios-rim.xml --nonce {} --at \
         1780000000",
        switch_nonce()
    );
    let switches = policy(
        "switch.json",
        "{}",
        r#"{"measres": "success", "x-nvidia-switch-arch-check": true}"#,
    );
    verify(&format!("{switch} --policy {switches}")).good();
    verify(&format!("{switch} --policy {measured}")).failed("ATT-362").says("devices is 0");
    // The verdict of NVIDIA's service is judged by the same rules, and there OCSP was asked.
    let nras = format!(
        "{EVIDENCE}/nras/hopperClaimsv3_detached_eat.json \
         --jwks {EVIDENCE}/nras/nras-prod-20250609.recovered.pub.pem \
         --issuer https://nras.attestation.nvidia.com --at 1749601918"
    );
    for good in [&measured, &asked] {
        verify(&format!("{nras} --policy {good}")).good();
    }
    let older = policy(
        "older.json",
        r#"{"x-nvidia-ver": "2.0"}"#,
        r#"{"x-nvidia-gpu-driver-version": "550.90.08"}"#,
    );
    let run = verify(&format!("{nras} --policy {older}")).failed("ATT-362");
    run.says("overall: x-nvidia-ver is \"3.0\"")
        .says("GPU-0: x-nvidia-gpu-driver-version is \"550.90.07\"");

    let both = policy("both.json", "{}", r#"{"measres": "fail"}"#);
    verify(&format!("{switch} --policy {both}")).failed("ATT-362").says("SWITCH-0: measres is");
}

/// CPU and GPU answer one nonce, and are good or refused together.
#[test]
fn a_composite_is_bound_together() {
    let folder = folder("composite");
    let h100 = format!("{EVIDENCE}/gpu/h100-545.00-e2e");
    let nonce = h100_nonce();
    let gpu = ["report.bin", "chain.pem", "driver-rim.xml", "vbios-rim.xml"]
        .map(|file| format!("{h100}/{file} "));
    let gpu = gpu.concat() + "--at 1700000000";
    let cpu = machine(&folder, &"3e".repeat(48), &nonce);
    let run = verify(&format!("{cpu} {gpu}")).good();
    run.says("cpu0: snp, genuine").says("gpu0: nvidia, genuine").says("verdict: accepted");

    // Without the nonce, they may be of two machines.
    let asked = format!(" --nonce {nonce}");
    let run = verify(&format!("{} {gpu}", cpu.replace(&asked, ""))).failed("ATT-362");
    run.says("refused[ATT-361]: the composite: ");
    // The CPU answered another one; then the GPU did.
    let other = machine(&folder, &"3e".repeat(48), &"77".repeat(32));
    let run =
        verify(&format!("{} {gpu}", other.replace(&"77".repeat(32), &nonce))).failed("ATT-362");
    run.says("refused[ATT-308]: ");
    verify(&format!("{other} {gpu}")).failed("ATT-362").says("refused[ATT-342]: ");
}
