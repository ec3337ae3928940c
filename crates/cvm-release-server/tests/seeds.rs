//! The fuzzers' seeds, cut anywhere and with bits flipped, through the fuzzers' own entry points.

use cvm_testkit::seeds::each_cut_and_flip;

#[test]
fn no_seed_and_no_mutation_of_one_panics() {
    each_cut_and_flip("release_bodies", cvm_release_server::fuzz_bodies);
    each_cut_and_flip("release_cookie", cvm_release_server::fuzz_cookie);
    each_cut_and_flip("release_token", cvm_release_server::fuzz_token);
}
