//! Runs a fuzz target's body on its seeds and on some mutations of them.

use std::{fs, path::PathBuf};

fn folder(target: &str) -> PathBuf {
    PathBuf::from_iter([env!("CARGO_MANIFEST_DIR"), "../fuzz/seeds", target])
}

/// Writes a seed, when asked to (`UPDATE=1`).
pub fn make(target: &str, name: &str, content: impl FnOnce() -> Vec<u8>) {
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(folder(target)).unwrap();
        fs::write(folder(target).join(name), content()).unwrap();
    }
}

/// Every seed, each prefix of it, and each byte of it replaced by a few others.
pub fn run(target: &str, body: fn(&[u8])) {
    let seeds: Vec<_> = fs::read_dir(folder(target)).unwrap().collect();
    assert!(!seeds.is_empty(), "{target} has no seeds");
    for seed in seeds {
        let seed = fs::read(seed.unwrap().path()).unwrap();
        for at in 0..seed.len() {
            body(seed.get(..at).unwrap());
            for value in [0, 1, b'9', 0x7f, 0x80, 0xff] {
                let mut mutation = seed.clone();
                *mutation.get_mut(at).unwrap() = value;
                body(&mutation);
            }
        }
        body(&seed);
    }
}
