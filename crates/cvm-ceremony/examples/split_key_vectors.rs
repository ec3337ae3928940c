//! Prints `tests/vectors/split-key.json`:
//! `cargo run --release -p cvm-ceremony --example split_key_vectors > tests/vectors/split-key.json`
//!
//! Inputs are SHA-256 of a label, so that anybody sees they were not chosen.

use cvm_base::{Bytes16, Bytes32, sha256};
use cvm_ceremony::split_key::{
    BaseKey, EphemeralBuild, PartySecret, Purpose, SplitKeyError, combine, half,
};
use cvm_layout::{
    manifest::{KeyPurpose, Stage},
    names::Role,
};
use serde_json::{Value, json};

fn seed(label: &str) -> Bytes32 {
    sha256(format!("flare-cvm split-key test vector: {label}").as_bytes())
}

fn case(parties: usize, role: Role, system: &[usize]) -> Result<Value, SplitKeyError> {
    let label = |what: &str| seed(&format!("{parties} {role} {what}"));
    let mut image_id = [0; 16];
    image_id.copy_from_slice(&label("image").0[..16]);
    let image_id = Bytes16 { 0: image_id };
    let (e, transcript) = (label("e"), label("transcript"));
    let inputs: Vec<_> =
        (0..parties).map(|i| (label(&format!("s{i}")), label(&format!("b{i}")))).collect();
    let secrets: Vec<_> = inputs.iter().map(|(s, _)| PartySecret::from_bytes(&s.0)).collect();
    let base_keys: Vec<_> = inputs.iter().map(|(_, b)| BaseKey::from_bytes(role, &b.0)).collect();
    let public: Vec<_> = secrets.iter().zip(&base_keys).map(|(s, b)| (s.public(), b)).collect();
    let (ephemeral, halves) = EphemeralBuild::from_bytes(&e.0).halves(&public, &image_id)?;

    let all: Vec<_> = (0..parties).collect();
    let mut keys = serde_json::Map::new();
    for purpose in Purpose::ALL {
        let needed = if purpose.parties() == KeyPurpose::Jobs { all.as_slice() } else { system };
        let chosen: Vec<_> = needed.iter().filter_map(|&i| halves.get(i)).collect();
        let key = combine(&transcript, &chosen, purpose, &image_id)?;
        keys.insert(
            purpose.as_str().into(),
            json!({"parties": needed, "key": hex::encode(key.as_bytes())}),
        );
    }
    let parties: Vec<_> = inputs
        .iter()
        .zip(&public)
        .zip(&halves)
        .zip(&secrets)
        .map(|((((s, b), (public, base_key)), boot), secret)| {
            let running = half(secret, base_key, &ephemeral, &image_id, Stage::Running)?;
            let [boot, running] = [boot, &running].map(|half| hex::encode(half.as_bytes()));
            Ok(json!({
                "secret": s, "public": public, "base_key": b, "half": boot, "running_half": running,
            }))
        })
        .collect::<Result<_, SplitKeyError>>()?;
    Ok(json!({
        "role": role, "image_id": image_id, "transcript": transcript,
        "ephemeral_secret": e, "ephemeral_public": ephemeral, "parties": parties, "keys": keys,
    }))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cases = [
        case(2, Role::Server, &[0])?,
        case(2, Role::Client, &[0])?,
        case(3, Role::Server, &[0, 2])?,
        case(3, Role::Client, &[0, 1, 2])?,
    ];
    let about = "Split-key test vectors of flare-cvm. Formulas: \
        crates/cvm-ceremony/src/split_key/mod.rs. Hex; `parties` of a key are indices.";
    println!(
        "{}",
        serde_json::to_string_pretty(&json!({"about": about, "version": 1, "cases": cases}))?
    );
    Ok(())
}
