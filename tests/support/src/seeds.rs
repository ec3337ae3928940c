//! What a fuzzer starts from, and damaged copies of it, in an ordinary test run.

use std::path::Path;

/// Runs `target` on every file of `fuzz/seeds/NAME`, and on `copies` damaged copies of each.
///
/// The damage is the same in every run, so that a failure repeats.
///
/// # Panics
/// When `target` does, and when there are no seeds.
pub fn each_seed(name: &str, copies: usize, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
    let mut seeds = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let seed = std::fs::read(entry.unwrap().path()).unwrap();
        target(&seed);
        // A linear congruential generator (Knuth's MMIX).
        let mut state = 1_u64;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
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

/// Runs `target` on every file of `fuzz/seeds/NAME`, cut at every byte, and with one bit of every
/// byte flipped.
///
/// # Panics
/// When `target` does, and when there are no seeds.
pub fn each_cut_and_flip(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
    let mut seeds = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let seed = std::fs::read(entry.unwrap().path()).unwrap();
        target(&seed);
        for at in 0..seed.len() {
            target(&seed[..at]);
            let mut changed = seed.clone();
            changed[at] ^= 1 << (at % 8);
            target(&changed);
        }
        seeds += 1;
    }
    assert!(seeds > 0, "no seeds for {name}");
}
