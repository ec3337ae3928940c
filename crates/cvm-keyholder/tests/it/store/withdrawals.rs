//! Consent that was taken back.

use cvm_base::Explain;
use cvm_keyholder::KeyHolderError;
use cvm_release_server::{Reason, Subject};

use super::scene;

use crate::common::{LOG, log};

#[test]
fn what_is_withdrawn_stays_withdrawn() {
    let scene = scene();
    let (image, other) = (scene.image(), scene.images[1].1.image_id);
    let store = scene.open().unwrap();
    let client = scene.attested("1");
    store.withdraw(Subject::Image(image), "sold").unwrap();
    let (reason, detail) = scene.release(&client);
    assert_eq!(reason, Some(Reason::Withdrawn));
    assert!(detail.ends_with(": sold") && detail.starts_with("image 0101"), "{detail}");
    // No row is the withdrawal: none that goes takes it along, and no enrolment brings the image
    // back.
    scene.sql("DELETE FROM images; DELETE FROM shares; DELETE FROM sessions");
    let store = scene.open().unwrap();
    assert!(matches!(store.image(&image), Err(KeyHolderError::Row { .. })));
    let error = store.enrol(&scene.images[0].0).unwrap_err();
    assert!(error.code() == "KEY-018" && error.to_string().contains("sold"), "{error}");
    assert_eq!(scene.release(&scene.attested("1")).0, Some(Reason::Withdrawn));
    store.enrol(&scene.images[1].0).unwrap();
    store.restore(Subject::Image(image)).unwrap();
    assert_eq!(store.restore(Subject::Image(image)).unwrap_err().code(), "KEY-019");
    store.enrol(&scene.images[0].0).unwrap();
    scene.given();

    let site = Subject::Site("server1".parse().unwrap());
    store.withdraw(site.clone(), "").unwrap();
    assert_eq!(scene.release(&scene.attested("1")).0, Some(Reason::Withdrawn));
    assert_eq!(store.enrol(&scene.ceremony.build(4, &log(LOG)).0).unwrap_err().code(), "KEY-018");
    let (listed, _) = store.images().unwrap();
    assert!(
        listed
            .iter()
            .all(|listed| listed.withdrawn.as_ref().is_some_and(|(subject, _)| *subject == site))
    );
    assert!(listed.iter().any(|listed| listed.enrolled.manifest.image_id == other));
    assert_eq!(store.withdraw(site, &"x".repeat(501)).unwrap_err().code(), "KEY-020");
    store.verify_log().unwrap();
}

#[test]
fn attack_evidence_that_hides_its_chip_from_a_withdrawal() {
    let scene = scene();
    scene
        .open()
        .unwrap()
        .withdraw(Subject::Chip("0123456789abcdef".parse().unwrap()), "stolen")
        .unwrap();
    // Sample evidence names none.
    let (_, answer) = scene.answer("1");
    let decision = scene.send(&answer).decision;
    assert_eq!(decision.reason, Some(Reason::Withdrawn));
    assert!(
        decision.detail.contains("names no chip") && decision.detail.contains("stolen"),
        "{}",
        decision.detail
    );
}
