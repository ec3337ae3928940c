//! Machines of several devices: none twice, none missing, all of one session.

use std::sync::LazyLock;

use cvm_verify::gpu::{Feature, GpuClaims, GpuError, ResultPolicy, SwitchClaims, Topology};
use serde_json::json;

use super::synthetic::{Device, World};

/// Eight GPUs and four switches, all verified.
static MACHINE: LazyLock<(Vec<GpuClaims>, Vec<SwitchClaims>)> = LazyLock::new(|| {
    let world = World::new();
    let gpus = (1..=8).map(|n| world.gpu(&Device::ppcie_gpu(n))).collect();
    (gpus, (1..=4).map(|n| world.switch(&Device::ppcie_switch(n))).collect())
});

#[test]
fn eight_gpus_and_four_switches() {
    let (gpus, switches) = &*MACHINE;
    let topology = Topology::check(gpus, switches).unwrap();
    assert_eq!((topology.gpu_count, topology.switch_count), (8, 4));
    assert_eq!((topology.mode, topology.driver_version.as_str()), (Some(Feature::Ppcie), "575.32"));
    assert_eq!(topology.not_checked, []);
    // Switches that know their GPUs by other names than the GPUs' certificates: genuine perhaps,
    // and said.
    let mut others = switches.clone();
    for switch in &mut others {
        for pdi in &mut switch.gpu_pdis {
            pdi.0[1] = 1;
        }
    }
    let topology = Topology::check(gpus, &others).unwrap();
    assert_eq!(topology.not_checked[0].check, "gpu-pdis");
}

#[test]
fn gpus_without_a_fabric() {
    let world = World::new();
    let gpu = |serial, nonce| {
        let pdi = [0xb1, 0, 0, 0, 0, 0, 0, serial];
        world.gpu(&Device { serial: serial.into(), nonce, pdi, ..Device::blackwell() })
    };
    let two = [gpu(1, [7; 32]), gpu(2, [7; 32])];
    let topology = Topology::check(&two, &[]).unwrap();
    assert_eq!((topology.gpu_count, topology.mode), (2, Some(Feature::Spt)));
    assert!(Topology::check(&[], &[]).is_err());
}

#[test]
fn attack_sets_that_are_no_machine() {
    let (gpus, switches) = &*MACHINE;
    let refused = |change: &dyn Fn(&mut Vec<GpuClaims>, &mut Vec<SwitchClaims>), expected: &str| {
        let (mut gpus, mut switches) = (gpus.clone(), switches.clone());
        change(&mut gpus, &mut switches);
        let error = Topology::check(&gpus, &switches).unwrap_err();
        let GpuError::Topology { problem } = &error else { panic!("{error}") };
        assert!(problem.contains(expected), "{problem}");
    };
    refused(&|gpus, _| gpus[7] = gpus[0].clone(), "is there twice");
    refused(&|_, switches| switches[3] = switches[0].clone(), "is there twice");
    // The same GPU under a new attestation key.
    refused(
        &|gpus, _| {
            gpus[7] = gpus[0].clone();
            gpus[7].facts.ueid = "1".into();
        },
        "GPU 6B00000000000001 is there twice",
    );
    refused(&|gpus, _| drop(gpus.pop()), "7 GPUs");
    refused(&|_, switches| drop(switches.pop()), "3 switches");
    refused(&|_, switches| switches.clear(), "0 switches");
    refused(&|gpus, _| gpus[3].facts.eat_nonce.replace_range(..2, "ff"), "nonce");
    refused(&|_, switches| switches[1].facts.eat_nonce.replace_range(..2, "ff"), "nonce");
    refused(&|gpus, _| gpus[5].driver_version = "1.0".into(), "driver");
    refused(&|gpus, _| gpus[5].feature = Some(Feature::Spt), "mode");
    refused(&|gpus, _| gpus[5].feature = None, "mode");
    // Wires that lead elsewhere.
    refused(&|gpus, _| gpus[2].switch_pdis.truncate(3), "is connected to switches");
    refused(&|gpus, _| gpus[2].switch_pdis[0].0[0] ^= 1, "is connected to switches");
    refused(
        &|gpus, _| gpus.iter_mut().for_each(|gpu| gpu.switch_pdis[0].0[0] ^= 1),
        "is connected to switches",
    );
    refused(&|_, switches| switches[0].gpu_pdis.truncate(7), "is connected to GPUs");
    refused(&|_, switches| switches[2].gpu_pdis[0].0[0] ^= 1, "is connected to GPUs");
    refused(&|_, switches| switches[2].pdi = None, "has no PDI");
    refused(&|_, switches| switches[2].pdi = switches[1].pdi, "is there twice");
    // Firmware older than the flag says it otherwise.
    let mut old = Device::ppcie_gpu(1);
    old.opaque.retain(|(field, _)| *field < 34);
    old.set(21, vec![0xaa]);
    let old = World::new().gpu(&old);
    assert_eq!(old.feature, Some(Feature::Ppcie));
    assert!(Topology::check(&[old], &[]).is_err());
    // A GPU in PPCIE mode alone: its links to others would be in clear, and nobody looked at them.
    let error = Topology::check(&gpus[..1], &[]).unwrap_err();
    assert!(error.to_string().contains("1 GPUs in PPCIE mode, 8 expected"), "{error}");
}

#[test]
fn a_policy_for_switches() {
    let (_, switches) = &*MACHINE;
    let policy = json!({"version": "4.0", "authorization-rules": {
        "type": "JWT",
        "overall-claims": {"iss": "LOCAL_SWITCH_VERIFIER", "x-nvidia-ver": "3.0"},
        "detached-claims": {
            "x-nvidia-switch-arch-check": true,
            "x-nvidia-switch-attestation-report-nonce-match": true,
            "x-nvidia-switch-attestation-report-cert-chain": {"x-nvidia-cert-status": "valid"},
            "x-nvidia-switch-bios-rim-fetched": true,
        },
    }});
    let policy = ResultPolicy::parse(policy.to_string().as_bytes()).unwrap();
    let broken = policy.evaluate_switches(switches).unwrap_err();
    assert_eq!(broken.len(), 4, "no manifest was given for any of the four");
    assert!(broken.iter().all(|broken| broken.rule == "x-nvidia-switch-bios-rim-fetched"));
    assert!(broken[3].to_string().starts_with("SWITCH-3: "), "{}", broken[3]);
}
