//! The signed log: what cannot be logged does not happen, and a log that was changed decides
//! nothing more.

use cvm_base::{Bytes, Explain, sha256, time};
use cvm_keyholder::{
    KeyHolderError,
    documents::Identity,
    log::Tampering,
    store::{FILE, SqliteStore},
};
use cvm_layout::manifest::Stage;

use cvm_release_server::{Effect, Reason, Seal, Step, Store, Verdict};
use rusqlite::{Connection, params};
use serde_json::json;

use super::{done, scene};

use crate::{
    common::asked::reply,
    common::{Ceremony, LOG, log, rego},
};

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
    // A head that names no entry is not accepted either.
    scene.sql("INSERT INTO log_head VALUES (1, 0, zeroblob(32), zeroblob(64))");
    assert_eq!(tampering(scene.open().map(drop)), Tampering::Head);
    scene.sql("DELETE FROM log_head");
    // Without its images as well, the remaining rows still betray it.
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
    ahead.enrol(&scene.images[0].0).unwrap();
    let error = scene.serve().map(drop).unwrap_err();
    assert_eq!(error.code(), "KEY-017");
    assert!(error.help().contains("clock"), "{error}");
    // One that runs stops to release, as does the operator's command.
    let (reason, detail) = scene.release(&client);
    assert_eq!(reason, Some(Reason::Internal));
    assert!(detail.contains("the clock says"), "{detail}");
    assert_eq!(scene.open().unwrap().enrol(&scene.images[0].0).unwrap_err().code(), "KEY-017");
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
        "CREATE TABLE guests (
             guest BLOB PRIMARY KEY, image TEXT NOT NULL, released INTEGER NOT NULL
         ) STRICT, WITHOUT ROWID;
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
