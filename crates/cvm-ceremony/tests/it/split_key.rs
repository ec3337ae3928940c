//! The published vectors, and the properties that the split key promises.

use std::collections::BTreeSet;

use cvm_base::{Bytes16, Bytes32, Explain};
use cvm_ceremony::split_key::{
    BaseKey, EphemeralBuild, Half, MAX_PARTIES, PartySecret, Purpose, SplitKeyError, check_public,
    combine, half,
};
use cvm_layout::{manifest::Stage, names::Role};
use serde_json::Value;

fn bytes<const N: usize>(value: &Value) -> [u8; N] {
    let mut bytes = [0; N];
    hex::decode_to_slice(value.as_str().unwrap(), &mut bytes).unwrap();
    bytes
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_published_vectors_come_out_on_every_side() {
    let text = std::fs::read_to_string("../../tests/vectors/split-key.json").unwrap();
    let vectors: Value = serde_json::from_str(&text).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let role = if case["role"] == "server" { Role::Server } else { Role::Client };
        let image_id = Bytes16 { 0: bytes(&case["image_id"]) };
        let transcript = Bytes32 { 0: bytes(&case["transcript"]) };
        let ephemeral = Bytes32 { 0: bytes(&case["ephemeral_public"]) };
        let parties = case["parties"].as_array().unwrap();
        let secrets: Vec<_> =
            parties.iter().map(|p| PartySecret::from_bytes(&bytes(&p["secret"]))).collect();
        let base_keys: Vec<_> =
            parties.iter().map(|p| BaseKey::from_bytes(role, &bytes(&p["base_key"]))).collect();
        let public: Vec<_> = secrets.iter().zip(&base_keys).map(|(s, b)| (s.public(), b)).collect();
        let build = EphemeralBuild::from_bytes(&bytes(&case["ephemeral_secret"]));
        let (e, built) = build.halves(&public, &image_id).unwrap();
        assert_eq!(e, ephemeral);
        for (i, party) in parties.iter().enumerate() {
            assert_eq!(public[i].0.to_string(), party["public"].as_str().unwrap());
            assert_eq!(*built[i].as_bytes(), bytes(&party["half"]), "the build's half");
            let held =
                half(&secrets[i], &base_keys[i], &ephemeral, &image_id, Stage::Boot).unwrap();
            assert_eq!(held.as_bytes(), built[i].as_bytes(), "the key holder's half");
            let running =
                half(&secrets[i], &base_keys[i], &ephemeral, &image_id, Stage::Running).unwrap();
            assert_eq!(
                *running.as_bytes(),
                bytes(&party["running_half"]),
                "the running system's half"
            );
        }
        let mut seen = BTreeSet::new();
        for purpose in Purpose::ALL {
            let key = &case["keys"][purpose.as_str()];
            let chosen: Vec<_> = key["parties"]
                .as_array()
                .unwrap()
                .iter()
                .map(|i| &built[i.as_u64().unwrap() as usize])
                .collect();
            let found = combine(&transcript, &chosen, purpose, &image_id).unwrap();
            assert_eq!(*found.as_bytes(), bytes(&key["key"]), "{purpose}");
            assert!(seen.insert(*found.as_bytes()), "every purpose has its own key");
        }
    }
}

#[test]
fn any_other_half_order_transcript_purpose_or_image_gives_another_key() {
    for _ in 0..32 {
        let count = 2 + usize::from(random()[0]) % (MAX_PARTIES - 1);
        let halves: Vec<_> = (0..count).map(|_| Half::from_bytes(&random())).collect();
        let (transcript, image_id) = (Bytes32 { 0: random() }, Bytes16 { 0: [random()[0]; 16] });
        let key = |halves: &[&Half], transcript, purpose, image_id| {
            *combine(transcript, halves, purpose, image_id).unwrap().as_bytes()
        };
        let good: Vec<_> = halves.iter().collect();
        let mut seen = BTreeSet::from([key(&good, &transcript, Purpose::Jobs, &image_id)]);
        let mut another = |key, what: &str| assert!(seen.insert(key), "{what}");
        for i in 0..count {
            let mut bytes = *halves[i].as_bytes();
            bytes[usize::from(random()[0]) % 32] ^= 1 << (random()[0] % 8);
            let changed = Half::from_bytes(&bytes);
            let mut other = good.clone();
            other[i] = &changed;
            another(key(&other, &transcript, Purpose::Jobs, &image_id), "one bit of one half");
            other.remove(i);
            another(key(&other, &transcript, Purpose::Jobs, &image_id), "a half left out");
        }
        let mut swapped = good.clone();
        swapped.swap(0, count - 1);
        another(key(&swapped, &transcript, Purpose::Jobs, &image_id), "another order");
        let other_transcript = Bytes32 { 0: random() };
        another(key(&good, &other_transcript, Purpose::Jobs, &image_id), "another transcript");
        another(key(&good, &transcript, Purpose::HeaderMacJobs, &image_id), "another purpose");
        let mut other_image = image_id;
        other_image.0[15] ^= 1;
        another(key(&good, &transcript, Purpose::Jobs, &other_image), "another image");
    }
}

#[test]
fn a_half_is_of_one_party_base_key_build_and_image() {
    let (s, b) = (PartySecret::generate().unwrap(), BaseKey::generate(Role::Server).unwrap());
    let image = Bytes16 { 0: [1; 16] };
    let (e, built) =
        EphemeralBuild::generate().unwrap().halves(&[(s.public(), &b)], &image).unwrap();
    let good = half(&s, &b, &e, &image, Stage::Boot).unwrap();
    assert_eq!(good.as_bytes(), built[0].as_bytes());
    let others = [
        half(&PartySecret::generate().unwrap(), &b, &e, &image, Stage::Boot),
        half(&s, &BaseKey::generate(Role::Server).unwrap(), &e, &image, Stage::Boot),
        half(&s, &b, &PartySecret::generate().unwrap().public(), &image, Stage::Boot),
        half(&s, &b, &e, &Bytes16 { 0: [2; 16] }, Stage::Boot),
        half(&s, &b, &e, &image, Stage::Running),
    ];
    for other in others {
        assert_ne!(other.unwrap().as_bytes(), good.as_bytes());
    }
}

/// The seven u-coordinates of low order (RFC 7748's list as in the literature), and the
/// non-canonical encodings of 0 and 1.
#[test]
fn a_public_key_of_low_order_is_refused() {
    let points = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let (s, b) = (PartySecret::generate().unwrap(), BaseKey::generate(Role::Client).unwrap());
    for point in points {
        let point: Bytes32 = point.parse().unwrap();
        assert_eq!(check_public(&point), Err(SplitKeyError::LowOrder(point)));
        let error = half(&s, &b, &point, &Bytes16 { 0: [0; 16] }, Stage::Boot).unwrap_err();
        assert_eq!(error.code(), "CER-101", "{point}");
        let build =
            EphemeralBuild::generate().unwrap().halves(&[(point, &b)], &Bytes16 { 0: [0; 16] });
        assert_eq!(build.unwrap_err(), SplitKeyError::LowOrder(point));
    }
    check_public(&s.public()).unwrap();
}

#[test]
fn no_halves_and_too_many_are_refused() {
    let halves: Vec<_> = (0..=MAX_PARTIES).map(|_| Half::from_bytes(&random())).collect();
    let all: Vec<_> = halves.iter().collect();
    for wrong in [&all[..0], &all[..]] {
        let result =
            combine(&Bytes32 { 0: [0; 32] }, wrong, Purpose::Jobs, &Bytes16 { 0: [0; 16] });
        assert_eq!(result.unwrap_err().code(), "CER-103");
    }
}

#[test]
fn secrets_do_not_print() {
    let secret = PartySecret::from_bytes(&[0xab; 32]);
    let base_key = BaseKey::from_bytes(Role::Server, &[0xab; 32]);
    for text in [
        format!("{secret:?}"),
        format!("{base_key:?}"),
        format!("{:?}", Half::from_bytes(&[0xab; 32])),
    ] {
        assert!(
            text.contains("secret") && !text.contains("171") && !text.contains("ab, "),
            "{text}"
        );
    }
}
