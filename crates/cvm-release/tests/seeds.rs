//! The fuzzers' seeds, cut anywhere and with bits flipped, through the fuzzers' own entry points.

use cvm_testkit::seeds::each_cut_and_flip;

#[test]
fn no_seed_and_no_mutation_of_one_panics() {
    each_cut_and_flip("release_reply", cvm_release::client::fuzz_reply);
    each_cut_and_flip("release_jwe", cvm_release::jwe::fuzz_parse);
}
