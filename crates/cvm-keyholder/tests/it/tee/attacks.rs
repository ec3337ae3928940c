//! Reports that are genuine in part: another guest, VMPL, session, signature, image or chip.

use cvm_collateral::tee::Vendors;
use cvm_keyholder::policy::RegoPolicy;
use cvm_release::messages::Tee;
use cvm_release_server::{PolicyAnswer, Reason, ReleasePolicy};
use cvm_verify::tdx::intel_roots;
use serde_json::json;

use super::{MEASUREMENT, NOW, POLICY, put, scene, scene_of};

#[test]
fn attack_a_guest_after_its_release_in_a_new_session() {
    let scene = scene();
    scene.release(&scene.attest(|_| {}).unwrap()).unwrap();
    // Root in the running guest asks for a fresh report: same launch, same REPORT_ID.
    let (reason, detail) = scene.release(&scene.attest(|_| {}).unwrap()).unwrap_err();
    assert_eq!(reason, Reason::ReleasedBefore, "{detail}");
    // The image's next launch has another one.
    scene.release(&scene.attest(put(0x140, &[0x2e; 32])).unwrap()).unwrap();
}

#[test]
fn attack_a_debug_guest() {
    // Policy bit 19.
    let (reason, detail) = scene().attest(put(8, &[0, 0, 0x0b])).err().unwrap();
    assert_eq!(reason, Reason::ForbiddenGuest, "{detail}");
    assert!(detail.contains("policy_debug_allowed"), "{detail}");
}

#[test]
fn attack_a_migratable_guest() {
    let (reason, detail) = scene().attest(put(8, &[0, 0, 0x07])).err().unwrap();
    assert_eq!(reason, Reason::ForbiddenGuest, "{detail}");
    assert!(detail.contains("policy_migrate_ma"), "{detail}");
}

#[test]
fn attack_a_report_of_another_vmpl() {
    let (reason, detail) = scene().attest(put(0x30, &[1])).err().unwrap();
    assert_eq!(reason, Reason::ForbiddenGuest, "{detail}");
}

#[test]
fn attack_a_report_of_another_session() {
    let scene = scene();
    let first = scene.challenged(Tee::Snp);
    let stolen = scene.evidence(&first.binding("").0, |_| {});
    let (reason, detail) = scene.shown(scene.challenged(Tee::Snp), stolen).err().unwrap();
    assert_eq!(reason, Reason::WrongNonce, "{detail}");
}

#[test]
fn attack_a_report_whose_signature_covers_something_else() {
    let scene = scene();
    let challenged = scene.challenged(Tee::Snp);
    let mut evidence = scene.evidence(&challenged.binding("").0, put(0x90, &[0x66; 48]));
    evidence["attestation_report"]["measurement"] = json!(MEASUREMENT.to_vec());
    let (reason, detail) = scene.shown(challenged, evidence).err().unwrap();
    assert_eq!(reason, Reason::EvidenceInvalid, "{detail}");
}

#[test]
fn attack_another_image_on_a_genuine_chip() {
    let scene = scene();
    let client = scene.attest(put(0x90, &[0x66; 48])).unwrap();
    let (reason, detail) = scene.release(&client).unwrap_err();
    assert_eq!(reason, Reason::WrongMeasurement, "{detail}");
}

/// BadAML: such a guest's report is as genuine as any, because no launch digest covers the host's
/// ACPI tables.
#[test]
fn attack_acpi_code_of_the_host_beside_a_genuine_report() {
    let line = crate::mint::line("Milan");
    let vendors = Vendors::new(line.roots(), intel_roots().unwrap());
    let scene = scene_of(
        vendors.clone(),
        crate::mint::endorse(&line.ask.1, &crate::mint::vcek("Milan-B0")),
    );
    let claims =
        vendors.verify("snp", &scene.evidence(&[7; 48], |_| {}), &[7; 48], NOW).unwrap().claims;
    let acpi = claims["not_checked"]
        .as_array()
        .unwrap()
        .iter()
        .find(|skipped| skipped["check"] == "acpi")
        .unwrap();
    assert!(acpi["reason"].as_str().unwrap().starts_with("host, not measured"), "{acpi}");

    let enrolled = scene.server.store.enrolled(&scene.manifest.image_id).unwrap().unwrap();
    let input =
        json!({ "submods": { "cpu0": { "ear.veraison.annotated-evidence": { "snp": claims } } } });
    let ask = |policy: &str| {
        let policy = RegoPolicy::new(policy.into()).unwrap();
        match policy.decide(&input, &json!({ "reference": enrolled.reference })).unwrap() {
            PolicyAnswer::Yes => None,
            PolicyAnswer::No(reasons) => Some(reasons),
        }
    };
    // As shipped it is accepted, by name; whoever takes the word out refuses every such guest.
    assert_eq!(ask(POLICY), None);
    let strict = POLICY.replace("{\"acpi\", ", "{");
    let refused =
        vec!["acpi was not checked, and accepted_not_checked does not list it".to_owned()];
    assert_eq!(ask(&strict), Some(refused));
}

#[test]
fn attack_a_chip_that_amd_does_not_vouch_for() {
    let other = crate::mint::line("Milan");
    let vcek = crate::mint::endorse(&other.ask.1, &crate::mint::vcek("Milan-B0"));
    let scene = scene_of(Vendors::genuine().unwrap(), vcek);
    let (reason, detail) = scene.attest(|_| {}).err().unwrap();
    assert_eq!(reason, Reason::EvidenceInvalid, "{detail}");
}
