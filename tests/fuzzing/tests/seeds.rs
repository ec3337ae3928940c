//! What the fuzzer starts from, and damaged copies of it, in an ordinary test run.

use std::{fs, path::Path};

use cvm_testkit::seeds::each_seed;

#[test]
fn tpm_structures() {
    each_seed("tpm_structure", 20_000, cvm_fuzzing::tpm_structure);
}

#[test]
fn event_logs() {
    each_seed("event_log", 1_000, cvm_fuzzing::event_log);
}

#[test]
fn reference_sets() {
    each_seed("reference_set", 2_000, cvm_fuzzing::reference_set);
}

#[test]
fn ak_certificates() {
    each_seed("ak_certificate", 5_000, cvm_fuzzing::ak_certificate);
}

#[test]
fn handshakes() {
    each_seed("tpm_handshake", 2_000, cvm_fuzzing::handshake);
}

#[test]
fn tpm_quotes() {
    each_seed("tpm_quote", 1_000, cvm_fuzzing::tpm_quote);
}

#[test]
fn azure_evidence() {
    each_seed("azure_evidence", 1_000, cvm_fuzzing::azure_evidence);
}

#[test]
fn file_forms() {
    each_seed("file_forms", 500, cvm_fuzzing::file);
}

#[test]
fn snp_evidence() {
    each_seed("snp_evidence", 2_000, cvm_fuzzing::snp_evidence);
}

#[test]
fn tee_evidence() {
    each_seed("tee_evidence", 200, cvm_fuzzing::tee_evidence);
}

#[test]
fn tdx_quotes() {
    each_seed("tdx_quote", 300, cvm_fuzzing::tdx_quote);
}

#[test]
fn cc_event_logs() {
    each_seed("cc_event_log", 1_000, cvm_fuzzing::cc_event_log);
}

#[test]
fn gpu_evidence() {
    each_seed("gpu_evidence", 300, cvm_fuzzing::gpu_evidence);
}

#[test]
fn gpu_rims() {
    each_seed("gpu_rim", 150, cvm_fuzzing::gpu_rim);
}

#[test]
fn gpu_collateral() {
    each_seed("gpu_collateral", 3_000, cvm_fuzzing::gpu_collateral);
}

#[test]
fn tokens() {
    each_seed("token", 500, cvm_fuzzing::token);
}

#[test]
fn launch() {
    each_seed("launch", 30, cvm_fuzzing::launch);
}

#[test]
fn collateral() {
    each_seed("collateral", 1_000, cvm_fuzzing::collateral);
}

#[test]
fn collected() {
    each_seed("collected", 5_000, cvm_fuzzing::collected);
}

#[test]
fn agent_requests() {
    each_seed("agent_request", 5_000, cvm_fuzzing::agent_request);
}

#[test]
fn snp_report_files() {
    each_seed("snp_report_file", 3_000, cvm_fuzzing::snp_report_file);
}

#[test]
fn agent_configs() {
    each_seed("agent_config", 5_000, cvm_fuzzing::agent_config);
}

#[test]
fn agent_tokens() {
    each_seed("agent_token", 2_000, cvm_fuzzing::agent_token);
}

/// A target whose body is in this crate has seeds, and a test above that runs them.
#[test]
fn every_target_has_seeds_that_a_test_runs() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let mut targets = 0;
    for file in fs::read_dir(fuzz.join("fuzz_targets")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        if fs::read_to_string(&path).unwrap().contains("cvm_fuzzing::") {
            assert!(fuzz.join("seeds").join(name).is_dir(), "{name} has no seeds");
            let run = format!("each_seed(\"{name}\", ");
            assert!(include_str!("seeds.rs").contains(&run), "{name}");
            targets += 1;
        }
    }
    assert!(targets > 15, "{targets}");
}
