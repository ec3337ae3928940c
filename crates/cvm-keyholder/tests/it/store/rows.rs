//! Rows of the store: none opens anything by being there, and none that is missing opens anything
//! again.

use cvm_base::{Bytes, Bytes32, Explain, sha256, time};
use cvm_keyholder::{documents::Documents, store::SqliteStore};
use cvm_layout::manifest::Stage;
use cvm_release::client::Outgoing;
use cvm_release_server::{Decision, Reason, Seal, Step, Store, Verdict};
use rusqlite::params;
use serde_json::json;

use super::{done, scene};

use crate::{
    common::asked::{reply, send},
    common::{LOG, log},
};

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
         CREATE TABLE seals (
             image TEXT, header_sha256 BLOB, registered INTEGER, share BLOB, may_move INTEGER
         );",
    );
    assert_eq!(scene.release(&client).0, Some(Reason::ReleasedBefore));
    // A guest that evidence names, in another session of a key holder that was started again.
    let guest: Bytes32 = Bytes([9; 32]);
    let session = |store: &SqliteStore, id: [u8; 16]| {
        let attested: cvm_release_server::AttestedSession = serde_json::from_value(json!({
            "tee_pubkey": {"kty": "EC", "alg": "ECDH-ES+A256KW", "crv": "P-256", "x": "", "y": ""},
            "claims": {},
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
        "UPDATE shares SET image = image || 'x';
         UPDATE shares SET image = (CASE WHEN share = (SELECT share FROM shares LIMIT 1)
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
    let (again, _) = scene.ceremony.build(1, &log(crate::common::OTHER_LOG));
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
    // A name that is not even text.
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
    store.enrol(&scene.images[1].0).unwrap();
    assert_eq!(store.images().unwrap().1.len(), 1, "the nameless one");
    let other = scene.ceremony.build(2, &log(LOG)).0;
    assert_eq!(store.enrol(&other).unwrap_err().code(), "KEY-011");
}
