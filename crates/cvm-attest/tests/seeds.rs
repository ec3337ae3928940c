//! What the fuzzer starts from, and damaged copies of it, in an ordinary test run.

use cvm_testkit::seeds::each_seed;

#[test]
fn tpm_structures() {
    each_seed("tpm_structure", 20_000, cvm_attest::fuzz::tpm_structure);
}

#[test]
fn event_logs() {
    each_seed("event_log", 1_000, cvm_attest::fuzz::event_log);
}

#[test]
fn reference_sets() {
    each_seed("reference_set", 2_000, cvm_attest::fuzz::reference_set);
}

#[cfg(feature = "ak-certificate")]
#[test]
fn ak_certificates() {
    each_seed("ak_certificate", 5_000, cvm_attest::fuzz::ak_certificate);
}

#[cfg(feature = "verifier")]
#[test]
fn handshakes() {
    each_seed("tpm_handshake", 2_000, cvm_attest::fuzz::handshake);
}

#[cfg(feature = "verifier")]
#[test]
fn tpm_quotes() {
    each_seed("tpm_quote", 1_000, cvm_attest::fuzz::tpm_quote);
}

#[cfg(feature = "verifier")]
#[test]
fn azure_evidence() {
    each_seed("azure_evidence", 1_000, cvm_attest::fuzz::azure_evidence);
}

#[cfg(feature = "verifier")]
#[test]
fn file_forms() {
    each_seed("file_forms", 500, cvm_attest::fuzz::file);
}

#[cfg(feature = "verifier")]
#[test]
fn snp_evidence() {
    each_seed("snp_evidence", 2_000, cvm_attest::fuzz::snp_evidence);
}

#[cfg(feature = "verifier")]
#[test]
fn tee_evidence() {
    each_seed("tee_evidence", 200, cvm_attest::fuzz::tee_evidence);
}

#[cfg(feature = "verifier")]
#[test]
fn tdx_quotes() {
    each_seed("tdx_quote", 300, cvm_attest::fuzz::tdx_quote);
}

#[cfg(feature = "verifier")]
#[test]
fn cc_event_logs() {
    each_seed("cc_event_log", 1_000, cvm_attest::fuzz::cc_event_log);
}

#[cfg(feature = "verifier")]
#[test]
fn gpu_evidence() {
    each_seed("gpu_evidence", 300, cvm_attest::fuzz::gpu_evidence);
}

#[cfg(feature = "verifier")]
#[test]
fn gpu_rims() {
    each_seed("gpu_rim", 150, cvm_attest::fuzz::gpu_rim);
}

#[cfg(feature = "verifier")]
#[test]
fn gpu_collateral() {
    each_seed("gpu_collateral", 3_000, cvm_attest::fuzz::gpu_collateral);
}

#[cfg(feature = "verifier")]
#[test]
fn tokens() {
    each_seed("token", 500, cvm_attest::fuzz::token);
}

#[cfg(feature = "predict")]
#[test]
fn launch() {
    each_seed("launch", 30, cvm_attest::fuzz::launch);
}

#[cfg(feature = "collateral")]
#[test]
fn collateral() {
    each_seed("collateral", 1_000, cvm_attest::fuzz::collateral);
}

#[cfg(feature = "collect")]
#[test]
fn collected() {
    each_seed("collected", 5_000, cvm_attest::fuzz::collected);
}
