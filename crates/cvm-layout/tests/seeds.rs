//! What the fuzzer starts from, and a few thousand damaged copies of it, in an ordinary test run.

use std::path::Path;

fn each_seed(name: &str, target: fn(&[u8])) {
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
        for _ in 0..2000 {
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
fn partition_tables() {
    each_seed("gpt", cvm_layout::gpt::fuzz);
}

#[test]
fn fat_images() {
    each_seed("esp", cvm_layout::esp::fuzz);
}

#[test]
fn the_seeds_reach_the_parsers_end() {
    let seed =
        |path: &str| std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(path)).unwrap();
    assert_eq!(cvm_layout::gpt::read(&seed("gpt/six.gpt")).unwrap().len(), 6);
    let file = cvm_layout::esp::read_file(&seed("esp/manifest.fat"), "flare-cvm/manifest.json", 4096);
    assert_eq!(file.unwrap().unwrap(), b"{}");
}
