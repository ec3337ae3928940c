//! Documents that do not belong are not enrolled; a log that was touched says so.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::common::{Ceremony, LOG, log, rego};
use cvm_base::Explain;
use cvm_keyholder::{
    KeyHolderError,
    documents::{Documents, fuzz_documents},
    log::Tampering,
    store::{FILE, SqliteStore},
};
use cvm_release_server::Store;
use rusqlite::Connection;

fn code(result: Result<impl Sized, KeyHolderError>) -> &'static str {
    result.err().expect("must be refused").code()
}

#[test]
fn attack_documents_that_are_not_the_builders() {
    let ceremony = Ceremony::hold(&rego(None));
    let (good, manifest) = ceremony.build(1, &log(LOG));
    let (other, _) = ceremony.build(2, &log(LOG));
    let stranger = Ceremony::hold(&rego(None));
    let (foreign, _) = stranger.build(1, &log(LOG));
    let store = ceremony.store("alice");
    let changed = |text: &[u8]| {
        let text = String::from_utf8(text.to_vec()).unwrap();
        text.replacen("server1", "server2", 1).into_bytes()
    };
    let g = || good.clone();
    let attempts = [
        (Documents { manifest: changed(&good.manifest), ..g() }, "KEY-007"),
        (Documents { manifest_signature: good.reference_signature.clone(), ..g() }, "KEY-007"),
        (Documents { manifest_signature: vec![], ..g() }, "KEY-007"),
        (Documents { reference: other.reference.clone(), ..g() }, "KEY-007"),
        // All genuine, but of two images.
        (
            Documents {
                reference: other.reference.clone(),
                reference_signature: other.reference_signature.clone(),
                ..g()
            },
            "KEY-009",
        ),
        // Another ceremony's, complete: this party's name is in it, this party's key is not.
        (foreign, "KEY-010"),
    ];
    for (documents, expected) in attempts {
        assert_eq!(code(store.enrol(&documents)), expected);
    }
    assert!(store.images().unwrap().0.is_empty() && store.log().unwrap().is_empty());

    store.enrol(&good).unwrap();
    store.enrol(&good).unwrap();
    assert_eq!(store.images().unwrap().0[0].enrolled.manifest, manifest);
    // A second build under a used image id.
    let (again, _) = ceremony.build(1, &log(LOG));
    assert_eq!(code(store.enrol(&again)), "KEY-011");
}

#[test]
fn attack_a_store_edited_by_hand_serves_no_image_of_its_own() {
    let ceremony = Ceremony::hold(&rego(None));
    let (documents, manifest) = ceremony.build(1, &log(LOG));
    let store = ceremony.store("alice");
    store.enrol(&documents).unwrap();
    let text = String::from_utf8(documents.manifest).unwrap().replacen("server1", "server2", 1);
    let connection = Connection::open(ceremony.party_folder("alice").join(FILE)).unwrap();
    connection.execute("UPDATE images SET manifest = ?1", [text.as_bytes()]).unwrap();
    assert_eq!(code(store.image(&manifest.image_id)), "KEY-016");
    assert!(store.enrolled(&manifest.image_id).is_err());
}

/// A log of five entries, and a hand on its file.
fn logged() -> (Ceremony, SqliteStore, Connection) {
    let ceremony = Ceremony::hold(&rego(None));
    let store = ceremony.store("alice");
    for image in 1..=5 {
        store.enrol(&ceremony.build(image, &log(LOG)).0).unwrap();
    }
    let connection = Connection::open(ceremony.party_folder("alice").join(FILE)).unwrap();
    (ceremony, store, connection)
}

fn tampering(store: &SqliteStore) -> Tampering {
    match store.verify_log() {
        Err(KeyHolderError::Log(tampering)) => tampering,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_intact_log_verifies_and_names_its_end() {
    let (ceremony, store, _) = logged();
    let head = store.verify_log().unwrap();
    assert_eq!(head.entries, 5);
    let (documents, _) = ceremony.build(6, &log(LOG));
    store.enrol(&documents).unwrap();
    assert_ne!(store.verify_log().unwrap().hash, head.hash);
}

#[test]
fn attack_a_log_with_an_entry_deleted_changed_moved_or_cut_off() {
    let attacks = [
        ("DELETE FROM log WHERE number = 3", Tampering::Missing { expected: 3 }),
        (
            "UPDATE log SET entry = replace(entry, '127', '128') || ' ' WHERE number = 2",
            Tampering::Changed(2),
        ),
        ("UPDATE log SET signature = x'00' WHERE number = 4", Tampering::Changed(4)),
        // Renumbered so that no gap shows: genuine entries in other places.
        (
            "DELETE FROM log WHERE number = 3; UPDATE log SET number = number - 1 WHERE number > 3",
            Tampering::Order(3),
        ),
        (
            "UPDATE log SET number = 100 WHERE number = 2;
             UPDATE log SET number = 2 WHERE number = 3;
             UPDATE log SET number = 3 WHERE number = 100",
            Tampering::Order(2),
        ),
        ("DELETE FROM log WHERE number = 5", Tampering::Cut { expected: 5, found: 4 }),
        ("DELETE FROM log WHERE number = 5; UPDATE log_head SET number = 4", Tampering::Head),
        ("DELETE FROM log_head", Tampering::Head),
        ("DELETE FROM log", Tampering::Cut { expected: 5, found: 0 }),
        ("DELETE FROM log; DELETE FROM log_head", Tampering::Emptied),
    ];
    for (attack, expected) in attacks {
        let (_ceremony, store, connection) = logged();
        connection.execute_batch(attack).unwrap();
        assert_eq!(tampering(&store), expected, "{attack}");
    }
}

#[test]
fn two_processes_append_to_one_chain() {
    let ceremony = Ceremony::hold(&rego(None));
    let builds: Vec<_> = (1..=8).map(|image| ceremony.build(image, &log(LOG)).0).collect();
    std::thread::scope(|scope| {
        for half in builds.chunks(4) {
            let store = ceremony.store("alice");
            scope.spawn(move || {
                half.iter().for_each(|documents| drop(store.enrol(documents).unwrap()))
            });
        }
    });
    assert_eq!(ceremony.store("alice").verify_log().unwrap().entries, 8);
}

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/keyholder_enrolment")
}

#[test]
fn seeds_and_their_mutations_do_not_panic() {
    let seeds: Vec<_> = fs::read_dir(seeds())
        .unwrap()
        .map(|seed| fs::read(seed.unwrap().path()).unwrap())
        .collect();
    assert_eq!(seeds.len(), 3);
    for seed in seeds {
        for at in 0..seed.len().min(2000) {
            let mut changed = seed.clone();
            changed[at] ^= 1 << (at % 8);
            fuzz_documents(&changed);
            fuzz_documents(&seed[..at]);
        }
    }
}

/// Writes the fuzzer's seeds.
#[test]
#[ignore = "writes fuzz/seeds/keyholder_enrolment"]
fn record() {
    let ceremony = Ceremony::hold(&rego(None));
    let (documents, _) = ceremony.build(1, &log(LOG));
    fs::create_dir_all(seeds()).unwrap();
    for (name, bytes) in [
        ("agreement", documents.agreement),
        ("manifest", documents.manifest),
        ("reference", documents.reference),
    ] {
        fs::write(seeds().join(name), bytes).unwrap();
    }
}
