//! The fuzzers' seeds, cut anywhere and with bits flipped, through the fuzzers' own entry points.
#![cfg(all(feature = "client", feature = "server"))]

use std::{fs, path::Path};

fn mutate(target: &str, run: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut seeds = 0;
    for seed in fs::read_dir(folder).unwrap() {
        let bytes = fs::read(seed.unwrap().path()).unwrap();
        run(&bytes);
        for at in 0..bytes.len() {
            run(&bytes[..at]);
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            run(&changed);
        }
        seeds += 1;
    }
    assert!(seeds > 0, "no seeds of {target}");
}

#[test]
fn no_seed_and_no_mutation_of_one_panics() {
    mutate("release_reply", cvm_release::client::fuzz_reply);
    mutate("release_jwe", cvm_release::jwe::fuzz_parse);
    mutate("release_bodies", cvm_release::server::fuzz_bodies);
    mutate("release_cookie", cvm_release::server::fuzz_cookie);
    mutate("release_token", cvm_release::server::fuzz_token);
}
