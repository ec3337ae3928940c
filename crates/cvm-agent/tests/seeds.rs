//! What the fuzzer starts from, and damaged copies of it, in an ordinary test run.

use cvm_testkit::seeds::each_seed;

#[test]
fn agent_tokens() {
    each_seed("agent_token", 2_000, cvm_agent::fuzz::agent_token);
}

#[test]
fn agent_requests() {
    each_seed("agent_request", 5_000, cvm_agent::fuzz::agent_request);
}

#[cfg(feature = "guest")]
#[test]
fn snp_report_files() {
    each_seed("snp_report_file", 3_000, cvm_agent::fuzz::snp_report_file);
}

#[cfg(feature = "guest")]
#[test]
fn agent_configs() {
    each_seed("agent_config", 5_000, cvm_agent::fuzz::agent_config);
}
