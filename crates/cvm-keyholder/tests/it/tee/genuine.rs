//! Genuine guests, and genuine evidence of other sessions.

use std::{fs, path::PathBuf, sync::Arc};

use cvm_collateral::tee::Vendors;
use cvm_layout::manifest::{GpuMechanism, Stage};
use cvm_release::{
    client::{Attested, Client},
    messages::Tee,
};
use cvm_release_server::Reason;
use cvm_verify::tdx::intel_roots;
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};

use super::{collected, scene, scene_of, scene_requiring};

use crate::{
    gpus::{Gpus, golden},
    synthetic::{Device, World},
};

#[test]
fn a_genuine_guest_of_the_image_gets_the_half() {
    let scene = scene();
    let client = scene.attest(|_| {}).unwrap();
    let half = scene.release(&client).unwrap();
    assert_eq!(&*half, scene.ceremony.half("alice", &scene.manifest).as_bytes());
}

/// The host gave no certificate with the report; the site's collector did.
#[test]
fn what_vouches_for_a_chip_travels_in_its_evidence() {
    let collector = SigningKey::from_bytes(&[3; 32]);
    let line = crate::mint::line("Milan");
    let vcek = crate::mint::endorse(&line.ask.1, &crate::mint::vcek("Milan-B0"));
    let vendors = Vendors::new(line.roots(), intel_roots().unwrap());
    let scene = scene_of(vendors.with_collectors(vec![collector.verifying_key()]), vcek);
    let shown = |collateral: Value| {
        let challenged = scene.challenged(Tee::Snp);
        let mut evidence = scene.evidence(&challenged.binding("").0, |_| {});
        evidence["cert_chain"] = Value::Null;
        evidence["collateral"] = collateral;
        scene.shown(challenged, evidence)
    };
    let packed = collected(&scene.vcek.0, &collector);
    scene.release(&shown(packed.clone()).unwrap()).unwrap();
    // Without it, of a stranger, and changed on the way: as if it were not there.
    let mut changed = packed.clone();
    let file = changed["files"].as_object_mut().unwrap().values_mut().next().unwrap();
    *file = json!(file.as_str().unwrap().replacen('A', "B", 1));
    let stranger = collected(&scene.vcek.0, &SigningKey::from_bytes(&[4; 32]));
    for unusable in
        [Value::Null, stranger, changed, json!("A"), json!({ "index": "", "files": {} })]
    {
        let (reason, detail) = shown(unusable).err().unwrap();
        assert_eq!(reason, Reason::EvidenceInvalid, "{detail}");
        assert!(detail.contains("VCEK"), "{detail}");
    }
    // Nor does a stranger's take away what the host gave.
    let challenged = scene.challenged(Tee::Snp);
    let mut evidence = scene.evidence(&challenged.binding("").0, |_| {});
    evidence["collateral"] = json!({ "index": "x" });
    scene.shown(challenged, evidence).map(drop).unwrap();
}

/// SEV-SNP measures no phase: the launch's REPORT_ID gets each stage's half once, p5's with
/// measured GPUs beside the chip.
#[test]
fn a_guest_with_gpus_gets_the_boots_half_and_then_p5s() {
    let (line, world, folder) =
        (crate::mint::line("Milan"), Arc::new(World::new()), tempfile::tempdir().unwrap());
    let vcek = crate::mint::endorse(&line.ask.1, &crate::mint::vcek("Milan-B0"));
    let vendors = Vendors::new(line.roots(), intel_roots().unwrap()).with_gpus(world.roots());
    let vendors = vendors.with_collateral(golden(&world, folder.path()));
    let scene = scene_requiring(Some(GpuMechanism::NvidiaCc), vendors, vcek);
    let gpus =
        || Gpus { world: world.clone(), devices: vec![Device::blackwell()], replayed: false };
    let refused = |client: &Client<Attested>, stage, expected: Reason| {
        let (reason, detail) = scene.release_of(client, stage).unwrap_err();
        assert_eq!(reason, expected, "{detail}");
    };

    let boot = scene.attest(|_| {}).unwrap();
    let first = scene.release(&boot).unwrap();
    // The chip alone opens no p5, in no session.
    refused(&scene.attest(|_| {}).unwrap(), Stage::Running, Reason::NoGpu);
    let running = scene.attest_with(gpus());
    let half = scene.release_of(&running, Stage::Running).unwrap();
    assert_ne!(*half, *first);
    assert_eq!(
        *half,
        *scene.ceremony.half_for("alice", &scene.manifest, Stage::Running).as_bytes()
    );
    // The same launch again: for either stage, with GPUs or without.
    let again = scene.attest_with(gpus());
    refused(&again, Stage::Running, Reason::ReleasedBefore);
    refused(&again, Stage::Boot, Reason::ReleasedBefore);
}

/// Real evidence answers a challenge of its own time. That, and nothing before it, is what it is
/// refused for.
#[test]
fn real_evidence_is_genuine_and_of_another_session() {
    let line = crate::mint::line("Milan");
    let scene = scene_of(
        Vendors::genuine().unwrap(),
        crate::mint::endorse(&line.ask.1, &crate::mint::vcek("Milan-B0")),
    );
    let read = |name: &str| {
        fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)).unwrap()
    };
    let real = read("tests/vectors/snp-trustee-e2e/evidence.json");
    let mut real: Value = serde_json::from_slice(&real).unwrap();
    let (reason, detail) = scene.shown(scene.challenged(Tee::Snp), real.clone()).err().unwrap();
    assert_eq!(reason, Reason::WrongNonce, "{detail}");
    real["attestation_report"]["report_id"][0] = json!(0);
    let (reason, detail) = scene.shown(scene.challenged(Tee::Snp), real).err().unwrap();
    assert_eq!(reason, Reason::EvidenceInvalid, "{detail}");

    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let quote = read("tests/vectors/evidence/tdx/quotes/phala-tdx_quote.bin");
    let body = json!({ "cc_eventlog": null, "quote": STANDARD.encode(&quote) });
    let (reason, detail) = scene.shown(scene.challenged(Tee::Tdx), body).err().unwrap();
    assert_eq!(reason, Reason::WrongNonce, "{detail}");
    let azure = read("tests/vectors/azure-trustee-v2/evidence.json");
    let azure = serde_json::from_slice(&azure).unwrap();
    let (reason, detail) = scene.shown(scene.challenged(Tee::AzSnpVtpm), azure).err().unwrap();
    assert_eq!(reason, Reason::WrongNonce, "{detail}");
    let garbage = json!({ "quote": "AAAA", "cc_eventlog": null });
    let (reason, _) = scene.shown(scene.challenged(Tee::Tdx), garbage).err().unwrap();
    assert_eq!(reason, Reason::Malformed);
}
