//! The third factor, end to end: an image whose keys need the machine that booted it first.
//!
//! One story in five boots, because each needs the disk and the TPM that the one before left. Every
//! running machine is cut off right after its handoff, so that the next boot meets a disk that lost
//! power.

use std::{fs, path::Path};

use cvm_lab::{
    scene::{PARTIES, Scene},
    tpm::Tpm,
    vm::Machine,
};
use cvm_layout::manifest::Manifest;

const OFFLINE: &str = "opened with key `system` from this machine's TPM, without the network";

/// Boots to the handoff, takes the power away and gives the console.
fn booted(scene: &Scene, machine: &Machine, tpm: &Tpm) -> String {
    let _holders = scene.holders().expect("both key holders");
    let mut vm = machine.start(tpm, "").expect("the VM starts");
    vm.handoff().expect("the handoff");
    vm.console.text()
}

fn says(console: &str, lines: &[&str]) {
    for line in lines {
        assert!(console.contains(line), "expected {line:?} in\n{console}");
    }
}

#[test]
fn an_image_that_is_bound_to_its_machine_moves_only_with_both_parties() {
    let scene =
        Scene::new("bound", 17_453, "small.yaml", |line| eprintln!("{line}")).trusting_machines();
    for old in ["parties", "exchange", "builder", "bundles", "machines", "tpm", "other-tpm"] {
        let _ = fs::remove_dir_all(scene.root.join(old));
    }
    let (pristine, tpm) = scene.sealed().expect("the scene");
    let machine = pristine.twin(&scene.root.join("machines/first")).expect("a machine");
    let other = tpm.another(&scene.root.join("other-tpm")).expect("another machine's TPM");

    let console = booted(&scene, &machine, &tpm);
    says(
        &console,
        &[
            "machine: from now on the keys need this machine",
            "jobs: made",
            "the TPM keeps p3's key",
        ],
    );
    let console = booted(&scene, &machine, &tpm);
    says(
        &console,
        &[OFFLINE, "machine: the keys need this machine; its TPM keeps", "jobs: opened"],
    );

    // Nobody answers: p3 opens all the same, and nothing else does.
    let refusal = machine.refused(&tpm).expect("a refused boot");
    assert_eq!(refusal.code.as_deref(), Some("FC-401"), "{}", refusal.console);
    says(&refusal.console, &[OFFLINE]);
    assert!(
        !refusal.console.contains("jobs: ") && !refusal.console.contains("state: "),
        "{}",
        refusal.console
    );

    // The whole disk on another machine, with both key holders willing to release their halves.
    let moved = machine.twin(&scene.root.join("machines/moved")).expect("the disk's copy");
    let refused = |why: &str| {
        let _holders = scene.holders().expect("both key holders");
        let refusal = moved.refused(&other).expect("a refused boot");
        assert_eq!(refusal.code.as_deref(), Some("FC-618"), "{why}: {}", refusal.console);
        assert!(!refusal.console.contains("p3: opened"), "{why}: {}", refusal.console);
    };
    allow_move(&scene, 0);
    refused("only one party allows it");
    allow_move(&scene, 1);
    let console = booted(&scene, &moved, &other);
    says(&console, &["machine: moved here: all parties gave their shares", "jobs: opened"]);
    assert!(!console.contains(OFFLINE), "the first boot there has no copy of p3's key");
    for (index, (name, _)) in PARTIES.iter().enumerate() {
        let log = scene
            .flare_cvm(&["keyholder", "log", "--dir", &text(&scene.party(index))])
            .expect("the log");
        says(&log, &["seal-move", "which is another one now"]);
        assert!(log.contains("its share of the machine's secret, to move"), "{name}: {log}");
    }
}

fn allow_move(scene: &Scene, index: usize) {
    let manifest = fs::read(scene.bundle().join("manifest.json")).expect("the manifest");
    let manifest: Manifest = serde_json::from_slice(&manifest).expect("a manifest");
    let image = manifest.image_id.to_string();
    scene
        .flare_cvm(&["keyholder", "seal", "move", &image, "--dir", &text(&scene.party(index))])
        .expect("seal move");
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
