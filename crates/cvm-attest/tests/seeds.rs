//! What the fuzzer starts from, and damaged copies of it, in an ordinary test run.

use std::path::Path;

fn each_seed(name: &str, copies: usize, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
    let mut seeds = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let seed = std::fs::read(entry.unwrap().path()).unwrap();
        target(&seed);
        // A fixed linear congruential generator, so that a failure repeats.
        let mut state = 1_u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..copies {
            let mut damaged = seed.clone();
            for _ in 0..=next(4) {
                let position = next(damaged.len());
                damaged[position] = [0x00, 0x01, 0x7f, 0x80, 0xff][next(5)];
            }
            damaged.truncate(next(damaged.len() + 1).max(seed.len() / 2));
            target(&damaged);
        }
        seeds += 1;
    }
    assert!(seeds > 0, "no seeds for {name}");
}

#[test]
fn tpm_structures() {
    each_seed("tpm_structure", 20_000, cvm_attest::fuzz::tpm_structure);
}

#[test]
fn event_logs() {
    each_seed("event_log", 1000, cvm_attest::fuzz::event_log);
}

#[cfg(feature = "verifier")]
#[test]
fn handshakes() {
    each_seed("tpm_handshake", 2000, cvm_attest::fuzz::handshake);
}

#[cfg(feature = "verifier")]
#[test]
fn tokens() {
    each_seed("token", 500, cvm_attest::fuzz::token);
}

#[test]
fn reference_sets() {
    each_seed("reference_set", 2000, cvm_attest::fuzz::reference_set);
}
