//! The fuzzer's seeds and 20 000 mutations of them.

use cvm_ceremony::{Described, check_any_bytes};

#[test]
fn no_seed_or_mutation_of_one_is_read_in_a_second_way() {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/ceremony_artifact");
    let mut seeds = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        if path.extension().is_some() {
            Described::parse(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        check_any_bytes(&bytes);
        seeds.push(bytes);
    }
    assert!(seeds.len() >= 9);
    // xorshift64: the same mutations every time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    for _ in 0..20_000 {
        let mut bytes = seeds[random(seeds.len())].clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(5) {
                0 => bytes[at] ^= 1 << random(8),
                1 => bytes[at] = b"\n: a0-\r\xff"[random(8)],
                2 => bytes.truncate(at.max(1)),
                3 => bytes.insert(at, b'\n'),
                _ => {
                    // A line of another seed in the middle.
                    let other = &seeds[random(seeds.len())];
                    let lines: Vec<_> = other.split_inclusive(|&b| b == b'\n').collect();
                    let line = lines[random(lines.len())];
                    bytes.splice(at..at, line.iter().copied());
                }
            }
        }
        check_any_bytes(&bytes);
    }
}
