//! Images of the profiles beside the demo's: each is built whole and booted.

use std::{fs, time::Duration};

use cvm_lab::{
    scene::{Scene, text},
    vm::{BOOT_LIMIT, Machine},
};

const PORT: u16 = 23_002;

/// A scene of that profile, with images of its own and the demo's cc_config, changed.
fn scene(
    profile: &'static str,
    site: (&'static str, &'static str),
    change: impl Fn(String) -> String,
) -> Scene {
    let mut scene = Scene::new(profile, 23_443, "small.yaml", |line| eprintln!("{line}"));
    for old in ["parties", "exchange", "builder", "bundles", "packed", "project"] {
        let _ = fs::remove_dir_all(scene.root.join(old));
    }
    scene.images = scene.root.join("images");
    fs::create_dir_all(&scene.images).expect("a folder");
    (scene.profile, scene.site) = (profile, site);
    let config = scene.root.join("cc_config.yml");
    let theirs =
        fs::read_to_string(scene.repository.join("tests/demo/cc_site-1.yml")).expect("a cc_config");
    fs::write(&config, change(theirs)).expect("a cc_config");
    scene.cc_config = Some(config);
    scene
}

/// On a machine without a GPU: NVIDIA's modules are of this image and the kernel takes them, and no
/// others; what they lack is a device. What a GPU would do from there on needs one.
#[test]
#[ignore = "builds NVIDIA's driver: some minutes and 300 MB of packages; make drills runs it"]
fn nvidias_modules_are_loaded_by_their_signature_and_only_so() {
    let mut scene = scene("debian-12-nvidia", ("site-1", "client"), |config| {
        config + "cc_gpu_mechanism: nvidia_cc\n"
    });
    // The last stage, with a unit that tells what the kernel says.
    scene.last_stage = text(&scene.repository.join("tests/profiles/provision_build"));
    let (machine, tpm) = scene.sealed().expect("the scene");

    let _holders = scene.holders().expect("both key holders");
    let mut vm = machine.start(&tpm, "").expect("the VM starts");
    vm.handoff().expect("the handoff");
    vm.console
        .wait_for(&["reboot: Power down"], 2 * BOOT_LIMIT)
        .expect("the end of a machine without GPUs");
    vm.console.wait(BOOT_LIMIT).expect("powered off");
    let console = vm.console.text();
    for expected in [
        // p3 opened with the half of the boot, so PCR 7 with both certificates in db is what was
        // predicted.
        "p3: opened",
        "probe: genuine: insmod: ERROR: could not insert module",
        "No such device",
        "NVRM: No NVIDIA GPU found",
        "probe: loaded libcuda.so.1",
        "probe: loaded libnvidia-pkcs11-openssl3.so.550.163.01",
        "probe: cuInit 100",
        // NVFLARE sees a GPU's device and no disk.
        "probe: nvidia3 reads 0000",
        "probe: devices: nvidia3\n",
        "probe: end",
        "FC-407",
    ] {
        assert!(console.contains(expected), "expected {expected:?} in\n{console}");
    }
    for copy in ["changed", "unsigned"] {
        let line = console
            .lines()
            .find(|line| line.contains(&format!("probe: {copy}:")))
            .unwrap_or_default();
        assert!(line.contains("Key was rejected by service"), "{line:?} in\n{console}");
    }
    let genuine = console.lines().find(|line| line.contains("probe: genuine:")).unwrap_or_default();
    assert!(!genuine.contains("rejected"), "{genuine}");
    for shut in ["jobs: ", "state: "] {
        assert!(!console.contains(shut), "p5 and `state` stay shut:\n{console}");
    }
}

/// That provisioning takes `intel_tdx` shows that the kernel can extend RTMR3; the boot, on a TPM,
/// that everything else of the image works with that kernel. A TD needs its hardware.
#[test]
#[ignore = "builds three stages of its own; make drills runs it"]
fn an_image_for_tdx_boots_with_its_later_kernel() {
    let scene = scene("debian-12-tdx", ("server1", "server"), |config| {
        config.replace("role: client", "role: server") + "cc_cpu_mechanism: intel_tdx\n"
    });
    let (machine, tpm): (Machine, _) = scene.sealed().expect("the scene");
    let _holders = scene.holders().expect("both key holders");
    for volume in ["jobs: made", "jobs: opened"] {
        let mut vm =
            machine.start(&tpm, &format!("tcp:127.0.0.1:{PORT}-:8002")).expect("the VM starts");
        vm.handoff().expect("the handoff");
        let status = scene.admin_status(PORT, Duration::from_secs(300)).expect("NVFLARE's status");
        assert!(status["server_status"].is_string(), "{status}");
        let console = vm.console.text();
        assert!(console.contains(volume), "{volume}:\n{console}");
        vm.power_button().expect("an orderly end");
    }
}
