//! Images that enrol themselves by their documents, the attacks on that, and what is stated of a
//! CVM's key.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use crate::common::{
    Ceremony, LOG, OTHER_LOG, Serving, log, rego, site,
    swtpm::{TpmAttester, boot, root_sha256},
};
use cvm_base::{Bytes, Explain, time};
use cvm_ceremony::{Date, PartyRole};
use cvm_collect::tpm::Tpm;
use cvm_custody::Unlock;
use cvm_keyholder::{
    KeyHolderError,
    documents::{Documents, Identity},
    service::{Config, Limits, Service},
    store::SqliteStore,
};
use cvm_layout::{
    manifest::{ImageId, Stage},
    names::Role,
};
use cvm_release::{client::ReleaseError, messages::PresentImage};
use cvm_release_https::Session;
use cvm_release_server::{Reason, Step, Subject, Verdict};
use cvm_testkit::swtpm::Swtpm;
use cvm_verify::ak_certificate::AkCertificate;
use ed25519_dalek::VerifyingKey;

struct Scene {
    /// Measured as [`LOG`] says.
    tpm: Mutex<Tpm>,
    swtpm: Swtpm,
    ceremony: Ceremony,
    serving: Serving,
    state: tempfile::TempDir,
}

fn config(ceremony: &Ceremony, party: &str, state: &Path, agreement: Option<String>) -> Config {
    Config {
        folder: ceremony.party_folder(party),
        state: state.join("keyholder"),
        listen: "127.0.0.1:0".into(),
        policy: ceremony.party_folder(party),
        enrol_presented: agreement.map(String::into_bytes),
        limits: Limits::default(),
    }
}

/// The key holder of `party` in a federation of alice, bob and carol: server1's image is alice's
/// and bob's, site-1's carol's and bob's.
fn scene(party: &str, open: bool) -> Scene {
    let swtpm = Swtpm::new();
    let owner = PartyRole::ModelOwner;
    let parties = [("alice", owner), ("bob", PartyRole::DataOwner), ("carol", owner)];
    let sites = vec![
        site("server1", Role::Server, &["alice", "bob"]),
        site("site-1", Role::Client, &["bob", "carol"]),
    ];
    let ceremony = Ceremony::hold_with(&rego(Some(root_sha256(&swtpm))), &parties, sites);
    ceremony.policy_folder(party, &swtpm.roots(), false);
    let state = tempfile::tempdir().unwrap();
    let agreement = open.then(|| ceremony.agreement.text());
    let serving = Serving::start_with(config(&ceremony, party, state.path(), agreement));
    Scene { tpm: boot(&swtpm, &log(LOG)).into(), swtpm, ceremony, serving, state }
}

fn presented(documents: &Documents, enrolment: &[u8]) -> Arc<PresentImage> {
    let Documents { manifest, manifest_signature, reference, reference_signature, .. } =
        documents.clone();
    Arc::new(PresentImage {
        manifest,
        manifest_sig: manifest_signature,
        reference,
        reference_sig: reference_signature,
        enrolment: enrolment.to_owned(),
    })
}

impl Scene {
    /// A boot that presents these documents when it is told that nobody knows its image.
    fn boot(
        &self,
        image: &ImageId,
        documents: &Documents,
        enrolment: &[u8],
    ) -> Result<Session, ReleaseError> {
        let mut tpm = self.tpm.lock().unwrap();
        let attester = TpmAttester::new(&mut tpm, log(LOG));
        self.serving.holder().presenting(presented(documents, enrolment)).release(
            image,
            Stage::Boot,
            &attester,
        )
    }

    fn refused(
        &self,
        image: &ImageId,
        documents: &Documents,
        enrolment: &[u8],
        reason: Reason,
        detail: &str,
    ) {
        self.boot(image, documents, enrolment).err().expect("must be refused");
        let last = self.serving.last_refusal();
        assert_eq!(last.0, reason, "{}", last.1);
        assert!(last.1.contains(detail), "{}", last.1);
    }

    fn store(&self, party: &str) -> SqliteStore {
        let identity = Identity::from(self.ceremony.party(party).card());
        SqliteStore::open(&self.state.path().join("keyholder"), identity, None).unwrap()
    }

    /// For writing.
    fn operator(&self, name: &str) -> SqliteStore {
        let party = self.ceremony.party(name);
        let (identity, signer) = (Identity::from(party.card()), party.identity().clone());
        SqliteStore::open(&self.state.path().join("keyholder"), identity, Some(signer)).unwrap()
    }
}

#[test]
fn an_image_that_nobody_enrolled_presents_itself_and_its_key_is_certified() {
    let scene = scene("carol", true);
    let (documents, manifest, enrolment) =
        scene.ceremony.build_with_marks("site-1", Role::Client, 1, &log(LOG));
    let mut tpm = scene.tpm.lock().unwrap();
    let attester = TpmAttester::new(&mut tpm, log(LOG));
    let holder = scene.serving.holder().presenting(presented(&documents, &enrolment));
    let session = holder.release(&manifest.image_id, Stage::Boot, &attester).unwrap();
    assert_eq!(session.half(), scene.ceremony.half("carol", &manifest).as_bytes());

    let certificate = session.attestation_key().unwrap().unwrap();
    let certificate = AkCertificate::parse(certificate.to_string().as_bytes()).unwrap();
    let carol = scene.ceremony.party("carol").card().clone();
    let identity = VerifyingKey::from_bytes(&carol.identity.0).unwrap();
    let statement = certificate.verify(&carol.name, &identity).unwrap();
    assert_eq!(statement.transcript, scene.ceremony.agreement.digest());
    assert_eq!(statement.image_id, manifest.image_id);
    assert_eq!(statement.ek_root_sha256, Some(root_sha256(&scene.swtpm)));
    assert_eq!(statement.trust, "untrusted-host");
    // The next boot is known, and shows the same key.
    let session = holder.release(&manifest.image_id, Stage::Boot, &attester).unwrap();
    let again =
        AkCertificate::parse(session.attestation_key().unwrap().unwrap().to_string().as_bytes())
            .unwrap();
    assert_eq!(again.verify(&carol.name, &identity).unwrap().ak_name, statement.ak_name);

    let store = scene.store("carol");
    store.verify_log().unwrap();
    let steps: Vec<_> =
        store.log().unwrap().iter().map(|e| (e.decision.step, e.decision.verdict)).collect();
    let known = [
        (Step::Attest, Verdict::Attested),
        (Step::Resource, Verdict::Released),
        (Step::AttestationKey, Verdict::Certified),
    ];
    let first = [
        known[0],
        (Step::Resource, Verdict::Refused),
        (Step::Present, Verdict::Enrolled),
        known[1],
        known[2],
    ];
    assert_eq!(steps, [&first[..], &known[..]].concat());
    let enrolled = &store.log().unwrap()[2].decision;
    assert_eq!((enrolled.peer.as_str(), enrolled.site.as_deref()), ("127.0.0.1", Some("site-1")));
    assert!(
        !scene.ceremony.party_folder("carol").join("keyholder.sqlite").exists(),
        "the folder is only read"
    );
}

#[test]
fn attack_documents_of_another_builder_transcript_or_site() {
    let mut scene = scene("carol", true);
    let (good, manifest, marks) =
        scene.ceremony.build_with_marks("site-1", Role::Client, 1, &log(LOG));
    let image = manifest.image_id;
    // Another federation's, which has the same names.
    let stranger = self::scene("carol", true);
    let (foreign, _) = stranger.ceremony.build_for("site-1", Role::Client, 1, &log(LOG));
    scene.refused(
        &image,
        &foreign,
        &marks,
        Reason::DocumentsRefused,
        "not signed by the agreement's builder",
    );
    // Signed by the builder, and of a site whose image carol has no half of.
    let (server, server_manifest) = scene.ceremony.build(2, &log(LOG));
    scene.refused(
        &server_manifest.image_id,
        &server,
        &marks,
        Reason::DocumentsRefused,
        "carol holds no half for site server1",
    );
    // Genuine, presented for another image.
    scene.refused(
        &Bytes([7; 16]),
        &good,
        &marks,
        Reason::DocumentsRefused,
        "they are of image 0101",
    );
    // Genuine, but not a pair.
    let (other, _) = scene.ceremony.build_for("site-1", Role::Client, 3, &log(LOG));
    let mixed = Documents {
        reference: other.reference.clone(),
        reference_signature: other.reference_signature.clone(),
        ..good.clone()
    };
    scene.refused(&image, &mixed, &marks, Reason::DocumentsRefused, "belong to image 0303");
    // The same builder's and parties', under another agreement.
    scene.ceremony.agreement = scene.ceremony.again();
    let (later, _) = scene.ceremony.build_for("site-1", Role::Client, 1, &log(LOG));
    scene.refused(&image, &later, &marks, Reason::DocumentsRefused, "belongs to another ceremony");
    assert!(scene.store("carol").images().unwrap().0.is_empty());
    scene.boot(&image, &good, &marks).unwrap();
}

#[test]
fn attack_a_withdrawn_image_that_presents_itself() {
    let scene = scene("carol", true);
    let (documents, manifest, marks) =
        scene.ceremony.build_with_marks("site-1", Role::Client, 1, &log(LOG));
    let image = manifest.image_id;
    let operator = scene.operator("carol");
    // Its site was withdrawn before anybody knew the image, and the image then.
    operator.withdraw(Subject::Site("site-1".parse().unwrap()), "left").unwrap();
    scene.refused(&image, &documents, &marks, Reason::Withdrawn, "site site-1 was withdrawn");
    operator.restore(Subject::Site("site-1".parse().unwrap())).unwrap();
    scene.boot(&image, &documents, &marks).unwrap();
    operator.withdraw(Subject::Image(image), "").unwrap();
    // A hand that deletes the row, so that the image may come as a new one.
    let file = scene.state.path().join("keyholder").join(cvm_keyholder::store::FILE);
    rusqlite::Connection::open(file).unwrap().execute_batch("DELETE FROM images").unwrap();
    scene.refused(&image, &documents, &marks, Reason::Withdrawn, "was withdrawn");
    operator.restore(Subject::Image(image)).unwrap();
    // The row is lost, the enrolment is not: the same documents put it back, no others do.
    let (softer, _, marks) =
        scene.ceremony.build_with_marks("site-1", Role::Client, 1, &log(OTHER_LOG));
    assert!(scene.boot(&image, &softer, &marks).is_err());
    assert_eq!(scene.store("carol").images().unwrap().0.len(), 0);
}

#[test]
fn attack_presentation_where_only_the_operator_enrols() {
    let scene = scene("alice", false);
    let (documents, manifest, marks) =
        scene.ceremony.build_with_marks("server1", Role::Server, 1, &log(LOG));
    scene.refused(
        &manifest.image_id,
        &documents,
        &marks,
        Reason::EnrolmentClosed,
        "--enroll-presented",
    );
    assert!(scene.store("alice").images().unwrap().0.is_empty());
    scene.store("alice").verify_log().unwrap();
}

#[test]
fn attack_other_reference_values_for_an_enrolled_image() {
    let scene = scene("alice", true);
    let build =
        |measured| scene.ceremony.build_with_marks("server1", Role::Server, 1, &log(measured));
    let (good, manifest, marks) = build(OTHER_LOG);
    // What is enrolled expects another boot than this one, whatever is presented now.
    assert!(scene.boot(&manifest.image_id, &good, &marks).is_err());
    assert_eq!(scene.serving.last_refusal().0, Reason::WrongPcr);
    let (softer, _, marks) = build(LOG);
    assert!(scene.boot(&manifest.image_id, &softer, &marks).is_err());
    assert_eq!(scene.serving.last_refusal().0, Reason::WrongPcr);
    assert_eq!(scene.store("alice").images().unwrap().0[0].enrolled.manifest, manifest);
}

/// The builder's key is stolen after the build, and an image of it has enrolled nowhere yet.
#[test]
fn attack_other_reference_values_signed_with_a_stolen_builders_key() {
    let scene = scene("carol", true);
    let (good, manifest, marks) =
        scene.ceremony.build_with_marks("site-1", Role::Client, 1, &log(OTHER_LOG));
    let image = manifest.image_id;
    let softer = scene.ceremony.sign_other_reference(&good, &manifest, &log(LOG));
    scene.refused(
        &image,
        &softer,
        &marks,
        Reason::DocumentsRefused,
        "not made in the build that made the image",
    );
    // With everything that the parties ever gave to a builder: a build of the thief's own has
    // another e, so other marks.
    let (_, _, own) = scene.ceremony.build_with_marks("site-1", Role::Client, 1, &log(LOG));
    scene.refused(
        &image,
        &softer,
        &own,
        Reason::DocumentsRefused,
        "not made in the build that made the image",
    );
    // An image from before there were permits, or one whose file the host took away.
    scene.refused(&image, &softer, b"", Reason::DocumentsRefused, "enrolment is malformed");
    assert!(scene.store("carol").images().unwrap().0.is_empty());
}

#[test]
fn attack_a_second_image_of_a_build_for_the_same_site() {
    let scene = scene("carol", true);
    let build = |image| scene.ceremony.build_with_marks("site-1", Role::Client, image, &log(LOG));
    let (first, manifest, marks) = build(1);
    scene.boot(&manifest.image_id, &first, &marks).unwrap();
    let (second, other, marks) = build(2);
    scene.refused(
        &other.image_id,
        &second,
        &marks,
        Reason::DocumentsRefused,
        "of the same build is enrolled",
    );
    assert_eq!(scene.store("carol").images().unwrap().0.len(), 1);
}

#[test]
fn attack_a_presentation_after_the_permits_last_day() {
    let mut scene = scene("carol", true);
    let today = scene.ceremony.last_day.clone();
    scene.ceremony.last_day = Date::from_unix(time::now() - 86_400);
    let (late, manifest, marks) =
        scene.ceremony.build_with_marks("site-1", Role::Client, 1, &log(LOG));
    let image = manifest.image_id;
    scene.refused(
        &image,
        &late,
        &marks,
        Reason::DocumentsRefused,
        "carol permitted build build-1 until",
    );
    // The same permit with a later day, which carol did not sign.
    let text = String::from_utf8(marks).unwrap();
    let longer = text.replace(&scene.ceremony.last_day.to_string(), &today.to_string());
    assert_ne!(longer, text);
    scene.refused(
        &image,
        &late,
        longer.as_bytes(),
        Reason::DocumentsRefused,
        "signed no permit for the build",
    );
    // Another party's permit is not carol's.
    let bobs =
        format!("flare-cvm/v1/enrolment\nparty: bob{}", text.split_once("party: bob").unwrap().1);
    assert!(!bobs.contains("carol"));
    scene.refused(&image, &late, bobs.as_bytes(), Reason::DocumentsRefused, "no permit of its own");
    assert!(scene.store("carol").images().unwrap().0.is_empty());
}

#[test]
fn a_key_holder_enrols_under_no_agreement_but_its_own() {
    let scene = scene("alice", true);
    let stranger = self::scene("alice", true);
    let open = |agreement: String| {
        let config = config(&scene.ceremony, "alice", scene.state.path(), Some(agreement));
        Service::open(&config, &Unlock::beside(&config.folder), |_| ())
            .map(drop)
            .map_err(|e: KeyHolderError| e.code())
    };
    assert_eq!(open(stranger.ceremony.agreement.text()), Err("KEY-010"));
    assert_eq!(open("agreement".into()), Err("CER-201"));
    assert_eq!(open(scene.ceremony.again().text()), Ok(()));
}
