//! A hand on the store's file: no row of it opens anything, and none that is missing opens anything
//! again.

mod common;

use std::sync::Mutex;

use base64::{Engine, engine::general_purpose::STANDARD};
use common::{
    Ceremony, LOG,
    asked::{PartyHalves, reply, send},
    log, rego,
};
use cvm_attest::{Roots, tee::Vendors};
use cvm_base::{Bytes, Bytes32, Explain, sha256, time};
use cvm_custody::Unlock;
use cvm_keyholder::{
    KeyHolderError,
    enroll::{Documents, Identity},
    evidence::Verifier,
    log::Tampering,
    policy::RegoPolicy,
    service::{Config, Limits, Service},
    store::{FILE, SqliteStore},
};
use cvm_layout::manifest::{ImageId, Manifest, Stage};
use cvm_release::{
    client::{Attested, Challenged, Client, Outgoing},
    messages::Tee,
    server::{
        Decision, Effect, Fault, Outcome, Reason, Seal, Server, SessionKeys, Step, Store, Subject,
        Verdict,
    },
};
use rusqlite::{Connection, params};
use serde_json::json;

/// Alice's key holder, which takes sample evidence, two enrolled images, and a hand on its file.
struct Scene {
    ceremony: Ceremony,
    server: Server,
    hand: Connection,
    images: Vec<(Documents, Manifest)>,
}

fn scene() -> Scene {
    let ceremony = Ceremony::hold(&rego(None));
    let images: Vec<_> = (1..=2).map(|image| ceremony.build(image, &log(LOG))).collect();
    let store = ceremony.store("alice");
    images.iter().for_each(|(documents, _)| drop(store.enroll(documents).unwrap()));
    let server = Server {
        party: "alice".parse().unwrap(),
        keys: SessionKeys::derive(&[7; 32]).unwrap(),
        evidence: Box::new(Verifier {
            roots: Roots::default(),
            vendors: Vendors::genuine().unwrap(),
            allow_sample: true,
        }),
        store: Box::new(store),
        policy: Box::new(RegoPolicy::new(rego(None).into()).unwrap()),
        halves: Box::new(PartyHalves(Mutex::new(ceremony.party("alice")))),
        random: Box::new(|bytes| getrandom::fill(bytes).map_err(|e| Fault::new("randomness", e))),
    };
    let hand = Connection::open(ceremony.party_folder("alice").join(FILE)).unwrap();
    Scene { ceremony, server, hand, images }
}

impl Scene {
    fn image(&self) -> ImageId {
        self.images[0].1.image_id
    }

    fn send(&self, outgoing: &Outgoing) -> Outcome {
        send(&self.server, outgoing, time::now())
    }

    fn answer(&self, svn: &str) -> (Client<Challenged>, Outgoing) {
        let start = Client::new(Tee::Sample).unwrap();
        let outcome = self.send(&start.auth_request("").unwrap());
        let challenged = start.challenged(&reply(&outcome)).unwrap();
        let report_data = STANDARD.encode(challenged.binding("").0);
        let answer = challenged
            .attest_request(json!({ "svn": svn, "report_data": report_data }), "")
            .unwrap();
        (challenged, answer)
    }

    /// The policy accepts svn 1.
    fn attested(&self, svn: &str) -> Client<Attested> {
        let (challenged, answer) = self.answer(svn);
        challenged.attested(&reply(&self.send(&answer))).unwrap()
    }

    fn release(&self, client: &Client<Attested>) -> (Option<Reason>, String) {
        let decision = self.send(&client.half_request(&self.image(), Stage::Boot)).decision;
        (decision.reason, decision.detail)
    }

    /// A session that was given the first image's half.
    fn given(&self) -> Client<Attested> {
        let client = self.attested("1");
        assert_eq!(self.release(&client), (None, String::new()));
        client
    }

    fn sql(&self, text: &str) {
        self.hand.execute_batch(text).unwrap();
    }

    fn open(&self) -> Result<SqliteStore, KeyHolderError> {
        let party = self.ceremony.party("alice");
        let folder = self.ceremony.party_folder("alice");
        SqliteStore::open(&folder, Identity::from(party.card()), Some(party.identity().clone()))
    }

    fn serve(&self) -> Result<Service, KeyHolderError> {
        let folder = self.ceremony.party_folder("alice");
        let config = Config {
            folder: folder.clone(),
            state: folder.clone(),
            listen: "127.0.0.1:0".into(),
            policy: folder.clone(),
            enroll_presented: None,
            limits: Limits::default(),
        };
        Service::open(&config, &Unlock::beside(&folder), |_| {})
    }
}

fn done(step: Step, image: ImageId) -> Decision {
    let (time, peer, site) = (time::now(), "192.0.2.1".into(), Some("server1".into()));
    let (verdict, image) = (Verdict::Done, Some(image));
    Decision {
        time,
        peer,
        step,
        verdict,
        reason: None,
        detail: String::new(),
        image,
        site,
        session: None,
        effect: None,
    }
}

#[test]
fn attack_a_forged_session_row() {
    let scene = scene();
    let client = scene.attested("2");
    assert_eq!(scene.release(&client).0, Some(Reason::Policy));
    scene.sql(r#"UPDATE sessions SET attested = replace(attested, '"svn":"2"', '"svn":"1"')"#);
    let (reason, detail) = scene.release(&client);
    assert_eq!(reason, Some(Reason::Internal));
    assert!(detail.contains("not what was attested"), "{detail}");
}

#[test]
fn attack_the_session_row_of_another_guest() {
    let scene = scene();
    let bad = scene.attested("2");
    let text: String =
        scene.hand.query_row("SELECT attested FROM sessions", [], |row| row.get(0)).unwrap();
    scene.attested("1");
    scene.sql(
        "UPDATE sessions SET attested = (SELECT attested FROM sessions WHERE attested LIKE \
        '%\"svn\":\"1\"%')",
    );
    assert_eq!(scene.release(&bad).0, Some(Reason::Internal));
    // Back in its place it is what it was: not enough.
    scene.hand.execute("UPDATE sessions SET attested = ?1", [text]).unwrap();
    assert_eq!(scene.release(&bad).0, Some(Reason::Policy));
}

#[test]
fn attack_a_session_row_for_a_session_that_showed_nothing() {
    let scene = scene();
    scene.attested("1");
    let (challenged, _) = scene.answer("1");
    // The cookie names the session; an attacker who runs it knows the name by the token of any.
    scene.sql("INSERT INTO sessions SELECT randomblob(16), expires, attested FROM sessions");
    let request = challenged.attest_request(json!({}), "").unwrap();
    let path = format!("{}flare-cvm/half/{}", cvm_release::paths::RESOURCE, scene.image());
    let request =
        Outgoing { method: cvm_release::client::Method::Get, path, body: vec![], ..request };
    assert_eq!(scene.send(&request).decision.reason, Some(Reason::NotAttested));
    // Nor does a longer life in the row keep a session alive.
    scene.sql("UPDATE sessions SET expires = expires + 100000");
    let client = scene.attested("1");
    let late = time::now() + 10_000;
    let outcome = send(&scene.server, &client.half_request(&scene.image(), Stage::Boot), late);
    assert_ne!(outcome.decision.verdict, Verdict::Released);
}

#[test]
fn attack_a_deleted_session_row_and_the_answer_again() {
    let scene = scene();
    let (challenged, answer) = scene.answer("1");
    let client = challenged.attested(&reply(&scene.send(&answer))).unwrap();
    assert_eq!(scene.release(&client).0, None);
    scene.sql("DELETE FROM sessions");
    assert_eq!(scene.send(&answer).decision.reason, Some(Reason::Replayed));
    assert_ne!(scene.release(&client).0, None);
}

#[test]
fn attack_a_release_that_the_store_forgets() {
    let scene = scene();
    let client = scene.given();
    // Whatever table there is, and those that an earlier version believed.
    scene.sql(
        "UPDATE sessions SET expires = expires;
         CREATE TABLE guests (guest BLOB, image TEXT, released INTEGER);
         CREATE TABLE seals (image TEXT, header_sha256 BLOB, registered INTEGER, share BLOB, may_move INTEGER);",
    );
    assert_eq!(scene.release(&client).0, Some(Reason::ReleasedBefore));
    // A guest that evidence names, in another session of a key holder that was started again.
    let guest: Bytes32 = Bytes([9; 32]);
    let session = |store: &SqliteStore, id: [u8; 16]| {
        let attested: cvm_release::server::Attested = serde_json::from_value(json!({
            "tee_pubkey": {"kty": "EC", "alg": "ECDH-ES+A256KW", "crv": "P-256", "x": "", "y": ""}, "claims": {},
        }))
        .unwrap();
        let expires = time::now() + 300;
        let name = Some(Bytes(id).to_string());
        let decision = |step| Decision { session: name.clone(), ..done(step, scene.image()) };
        assert!(store.consume(&id, expires, time::now()).unwrap());
        store.put_attested(&id, &attested, expires, vec![], decision(Step::Attest)).unwrap();
        store.release_once(&id, Some(&guest), decision(Step::Resource))
    };
    session(&scene.open().unwrap(), [1; 16]).unwrap();
    scene.sql("DELETE FROM sessions; DELETE FROM guests");
    let refusal = session(&scene.open().unwrap(), [2; 16]).unwrap_err();
    assert_eq!(refusal.reason, Reason::ReleasedBefore);
}

#[test]
fn attack_a_store_that_cannot_log_uses_nothing_up() {
    let scene = scene();
    let client = scene.attested("1");
    scene.sql(
        "CREATE TRIGGER full BEFORE INSERT ON log BEGIN SELECT RAISE(ABORT, 'disk full'); END",
    );
    let outcome = scene.send(&client.half_request(&scene.image(), Stage::Boot));
    assert_eq!((outcome.reply.status, outcome.decision.reason), (503, Some(Reason::Internal)));
    // The release and its record are one: neither happened.
    scene.sql("DROP TRIGGER full");
    assert_eq!(scene.release(&client), (None, String::new()));
    assert_eq!(scene.release(&client).0, Some(Reason::ReleasedBefore));
}

#[test]
fn attack_a_share_that_may_move_by_an_update() {
    let scene = scene();
    let store = scene.open().unwrap();
    let (first, second) = (scene.image(), scene.images[1].1.image_id);
    let seal = |share: u8| Seal {
        header_sha256: sha256(&[share]),
        share: Some(vec![share; 60]),
        may_move: false,
    };
    for (image, share) in [(first, 1), (second, 2)] {
        assert!(store.register_seal(&image, &seal(share), done(Step::SealWrite, image)).unwrap());
    }
    // There is no such column to set; the earlier version's table is not asked.
    let (header, share) = (sha256(&[1]), vec![1_u8; 60]);
    scene.sql(
        "CREATE TABLE seals (image TEXT, header_sha256 BLOB, registered INTEGER, share BLOB, \
        may_move INTEGER)",
    );
    scene
        .hand
        .execute(
            "INSERT INTO seals VALUES (?1, ?2, 0, ?3, 1)",
            params![first.to_string(), header.0, share],
        )
        .unwrap();
    assert_eq!(scene.open().unwrap().seal(&first).unwrap(), Some(seal(1)));
    // Shares that were exchanged, changed or taken away are none.
    let attacks = [
        "UPDATE shares SET image = image || 'x'; UPDATE shares SET image = (CASE WHEN share = (SELECT share FROM shares LIMIT 1)
             THEN '02020202020202020202020202020202' ELSE '01010101010101010101010101010101' END)",
        "UPDATE shares SET share = zeroblob(60)",
        "DELETE FROM shares",
    ];
    for attack in attacks {
        scene.sql(attack);
        let error = store.seal(&first).unwrap_err().to_string();
        assert!(error.contains("not what was registered"), "{attack}: {error}");
    }
    // The operator's word is in the log, and undone by the move.
    store.allow_move(&first).unwrap();
    assert!(store.registered(&first).unwrap().unwrap().may_move);
    store.moved(&first, done(Step::SealWrite, first)).unwrap();
    assert!(!store.registered(&first).unwrap().unwrap().may_move);
}

#[test]
fn attack_a_forgotten_seal() {
    let scene = scene();
    let client = scene.given();
    let header = sha256(b"header");
    let register = client.register_seal_request(&scene.image(), header, None).unwrap();
    client.seal_registered(&reply(&scene.send(&register))).unwrap();
    scene.sql("DELETE FROM shares; DELETE FROM sessions");
    let client = scene.given();
    let other = client.register_seal_request(&scene.image(), sha256(b"another"), None).unwrap();
    assert_eq!(scene.send(&other).decision.reason, Some(Reason::SealMismatch));
}

#[test]
fn attack_an_emptied_log() {
    let scene = scene();
    let client = scene.attested("1");
    scene.sql("DELETE FROM log; DELETE FROM log_head");
    let tampering = |result: Result<_, KeyHolderError>| match result {
        Err(KeyHolderError::Log(tampering)) => tampering,
        other => panic!("{:?}", other.map(drop)),
    };
    let store = SqliteStore::open(
        &scene.ceremony.party_folder("alice"),
        Identity::from(scene.ceremony.party("alice").card()),
        None,
    );
    assert_eq!(tampering(store.unwrap().verify_log().map(drop)), Tampering::Emptied);
    assert_eq!(tampering(scene.open().map(drop)), Tampering::Emptied);
    assert_eq!(tampering(scene.serve().map(drop)), Tampering::Emptied);
    // The one that runs has seen more, and releases nothing.
    let (reason, detail) = scene.release(&client);
    assert_eq!(reason, Some(Reason::Internal));
    assert!(detail.contains("not intact"), "{detail}");
    // A head of nothing is no head.
    scene.sql("INSERT INTO log_head VALUES (1, 0, zeroblob(32), zeroblob(64))");
    assert_eq!(tampering(scene.open().map(drop)), Tampering::Head);
    scene.sql("DELETE FROM log_head");
    // Without its images as well, what else stands there betrays it.
    scene.sql("DELETE FROM images");
    assert_eq!(tampering(scene.open().map(drop)), Tampering::Emptied);
}

#[test]
fn attack_a_log_set_back_under_a_running_key_holder() {
    let scene = scene();
    scene.sql(
        "CREATE TEMP TABLE old_log AS SELECT * FROM log; CREATE TEMP TABLE old_head AS \
        SELECT * FROM log_head",
    );
    let client = scene.given();
    scene.sql("DELETE FROM log; INSERT INTO log SELECT * FROM old_log");
    scene.sql("DELETE FROM log_head; INSERT INTO log_head SELECT * FROM old_head");
    let (reason, detail) = scene.release(&client);
    assert_eq!(reason, Some(Reason::Internal));
    assert!(detail.contains("set back"), "{detail}");
}

#[test]
fn attack_entries_that_nobody_signed_under_a_running_key_holder() {
    let scene = scene();
    let client = scene.attested("2");
    // The head is a guess, its hash is right.
    let text: String = scene
        .hand
        .query_row("SELECT entry FROM log WHERE number = 1", [], |row| row.get(0))
        .unwrap();
    let hash: [u8; 32] =
        scene.hand.query_row("SELECT hash FROM log_head", [], |row| row.get(0)).unwrap();
    let mut entry: serde_json::Value = serde_json::from_str(&text).unwrap();
    (entry["number"], entry["previous"]) = (json!(4), json!(Bytes(hash).to_string()));
    let text = entry.to_string();
    let hash = sha256(&[b"flare-cvm/v1/log-entry\0", text.as_bytes()].concat());
    scene.hand.execute("INSERT INTO log VALUES (4, ?1, zeroblob(64))", [text]).unwrap();
    scene.hand.execute("UPDATE log_head SET number = 4, hash = ?1", [hash.0]).unwrap();
    for _ in 0..2 {
        let (reason, detail) = scene.release(&client);
        assert_eq!(reason, Some(Reason::Internal));
        assert!(detail.contains("head"), "{detail}");
    }
}

#[test]
fn attack_genuine_documents_that_nobody_enrolled() {
    let scene = scene();
    let (stranger, manifest) = scene.ceremony.build(3, &log(LOG));
    let insert = "INSERT OR REPLACE INTO images VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)";
    let put = |image: String, d: &Documents| {
        let row = params![
            image,
            d.agreement,
            d.manifest,
            d.manifest_signature,
            d.reference,
            d.reference_signature
        ];
        scene.hand.execute(insert, row).unwrap();
    };
    put(manifest.image_id.to_string(), &stranger);
    let store = scene.open().unwrap();
    assert!(store.enrolled(&manifest.image_id).unwrap().is_none());
    // Another build of an enrolled image, which the builder signed as well.
    let (again, _) = scene.ceremony.build(1, &log(common::OTHER_LOG));
    put(scene.image().to_string(), &again);
    assert_eq!(store.image(&scene.image()).unwrap_err().code(), "KEY-016");
    let odd: Vec<_> = store.images().unwrap().1.iter().map(ToString::to_string).collect();
    assert_eq!(odd.len(), 2, "{odd:?}");
    assert!(odd[0].contains("was enrolled as its manifest.json"), "{odd:?}");
    assert!(odd[1].contains("no entry of the log enrolled it"), "{odd:?}");
}

#[test]
fn one_bad_row_is_a_warning_and_the_others_are_served() {
    let scene = scene();
    let bad = scene.images[1].1.image_id;
    scene
        .hand
        .execute("UPDATE images SET manifest = zeroblob(10) WHERE image = ?1", [bad.to_string()])
        .unwrap();
    // A name that is no text at all.
    scene.sql(
        "CREATE TEMP TABLE odd AS SELECT * FROM images LIMIT 1; UPDATE odd SET image = \
        CAST(x'ff' AS TEXT)",
    );
    scene.sql("INSERT INTO images SELECT * FROM odd");
    let service = scene.serve().unwrap();
    let warning = service.warnings().iter().find(|warning| warning.contains(&bad.to_string()));
    assert!(
        warning.is_some_and(|warning| warning.contains("is not used")),
        "{:?}",
        service.warnings()
    );
    scene.given();
    // The operator enrols it again, by the same documents alone.
    let store = scene.open().unwrap();
    store.enroll(&scene.images[1].0).unwrap();
    assert_eq!(store.images().unwrap().1.len(), 1, "the nameless one");
    let other = scene.ceremony.build(2, &log(LOG)).0;
    assert_eq!(store.enroll(&other).unwrap_err().code(), "KEY-011");
}

#[test]
fn every_answer_stands_in_the_log() {
    let scene = scene();
    let client = scene.given();
    client.seal_state(&reply(&scene.send(&client.seal_request(&scene.image())))).unwrap();
    let log = scene.open().unwrap().log().unwrap();
    let last = &log.last().unwrap().decision;
    assert_eq!((last.step, last.verdict), (Step::SealRead, Verdict::Answered));
    let effects: Vec<_> = log.iter().map(|entry| entry.decision.effect.clone()).collect();
    assert!(matches!(effects[0], Some(Effect::Enrolled { .. })), "{effects:?}");
    assert!(matches!(effects[2], Some(Effect::Attested { .. })), "{effects:?}");
    assert_eq!(effects[3], Some(Effect::Released { guest: None }));
}

#[test]
fn attack_a_clock_that_was_set_back() {
    let scene = scene();
    let client = scene.attested("1");
    let ahead = scene.open().unwrap().with_clock(|| time::now() + 3600);
    ahead.enroll(&scene.images[0].0).unwrap();
    let error = scene.serve().map(drop).unwrap_err();
    assert_eq!(error.code(), "KEY-017");
    assert!(error.help().contains("clock"), "{error}");
    // One that runs stops to release, as does the operator's command.
    let (reason, detail) = scene.release(&client);
    assert_eq!(reason, Some(Reason::Internal));
    assert!(detail.contains("the clock says"), "{detail}");
    assert_eq!(scene.open().unwrap().enroll(&scene.images[0].0).unwrap_err().code(), "KEY-017");
}

#[test]
fn a_store_of_an_earlier_version_is_taken_over_once() {
    let ceremony = Ceremony::hold(&rego(None));
    let images: Vec<_> = (1..=3).map(|image| ceremony.build(image, &log(LOG))).collect();
    let ids: Vec<_> = images.iter().map(|(_, manifest)| manifest.image_id).collect();
    let store = ceremony.store("alice");
    let hand = Connection::open(ceremony.party_folder("alice").join(FILE)).unwrap();
    // Its log says that two were enrolled, not by which documents.
    ids[..2].iter().for_each(|image| store.record(&done(Step::Enrol, *image)).unwrap());
    drop(store);
    hand.execute_batch(
        "CREATE TABLE guests (guest BLOB PRIMARY KEY, image TEXT NOT NULL, released INTEGER NOT NULL) STRICT, WITHOUT ROWID;
         CREATE TABLE seals (
             image TEXT PRIMARY KEY, header_sha256 BLOB NOT NULL, registered INTEGER NOT NULL,
             share BLOB, may_move INTEGER NOT NULL DEFAULT 0
         ) STRICT;",
    )
    .unwrap();
    for (d, manifest) in &images {
        let image = manifest.image_id.to_string();
        let row = params![
            image,
            d.agreement,
            d.manifest,
            d.manifest_signature,
            d.reference,
            d.reference_signature
        ];
        hand.execute("INSERT INTO images VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)", row).unwrap();
        hand.execute(
            "INSERT INTO seals VALUES (?1, ?2, 0, ?3, 1)",
            params![image, [5_u8; 32], [6_u8; 60]],
        )
        .unwrap();
    }
    hand.execute("INSERT INTO guests VALUES (?1, ?2, 0)", params![[9_u8; 32], ids[0].to_string()])
        .unwrap();

    let store = ceremony.store("alice");
    let expected =
        Some(Seal { header_sha256: Bytes([5; 32]), share: Some(vec![6; 60]), may_move: true });
    assert_eq!(store.seal(&ids[0]).unwrap(), expected);
    let (listed, odd) = store.images().unwrap();
    assert_eq!((listed.len(), odd.len()), (2, 1), "the log enrolled two");
    assert_eq!(store.seal(&ids[2]).unwrap(), None);
    store.verify_log().unwrap();
    let entries = store.log().unwrap();
    assert_eq!(entries.iter().filter(|entry| entry.decision.step == Step::Migrate).count(), 7);
    let released = Effect::Released { guest: Some(Bytes([9; 32])) };
    assert!(entries.iter().any(|entry| entry.decision.effect == Some(released.clone())));
    // What somebody writes into such tables afterwards is nothing.
    hand.execute_batch(
        "CREATE TABLE seals (image TEXT, header_sha256 BLOB, share BLOB, may_move INTEGER)",
    )
    .unwrap();
    ceremony.store("alice");
    assert_eq!(ceremony.store("alice").log().unwrap().len(), entries.len());
}

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
    let error = store.enroll(&scene.images[0].0).unwrap_err();
    assert!(error.code() == "KEY-018" && error.to_string().contains("sold"), "{error}");
    assert_eq!(scene.release(&scene.attested("1")).0, Some(Reason::Withdrawn));
    store.enroll(&scene.images[1].0).unwrap();
    store.restore(Subject::Image(image)).unwrap();
    assert_eq!(store.restore(Subject::Image(image)).unwrap_err().code(), "KEY-019");
    store.enroll(&scene.images[0].0).unwrap();
    scene.given();

    let site = Subject::Site("server1".parse().unwrap());
    store.withdraw(site.clone(), "").unwrap();
    assert_eq!(scene.release(&scene.attested("1")).0, Some(Reason::Withdrawn));
    assert_eq!(store.enroll(&scene.ceremony.build(4, &log(LOG)).0).unwrap_err().code(), "KEY-018");
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
