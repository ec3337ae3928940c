//! What the fuzzer starts from, and damaged copies of it, in an ordinary test run.

use cvm_testkit::seeds::each_seed;

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

#[cfg(feature = "collateral")]
#[test]
fn collateral() {
    each_seed("collateral", 1000, cvm_attest::fuzz::collateral);
}

#[cfg(feature = "collect")]
#[test]
fn collected() {
    each_seed("collected", 5000, cvm_attest::fuzz::collected);
}
