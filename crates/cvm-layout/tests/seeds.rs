//! What the fuzzer starts from, and a few thousand damaged copies of it, in an ordinary test run.

use std::path::Path;

use cvm_testkit::seeds::each_seed;

#[test]
fn partition_tables() {
    each_seed("gpt", 2000, cvm_layout::gpt::fuzz);
}

#[test]
fn fat_images() {
    each_seed("esp", 2000, cvm_layout::esp::fuzz);
}

#[test]
fn the_seeds_reach_the_parsers_end() {
    let seed = |path: &str| {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(path))
            .unwrap()
    };
    assert_eq!(cvm_layout::gpt::read(&seed("gpt/six.gpt")).unwrap().len(), 6);
    let file =
        cvm_layout::esp::read_file(&seed("esp/manifest.fat"), "flare-cvm/manifest.json", 4096);
    assert_eq!(file.unwrap().unwrap(), b"{}");
}
