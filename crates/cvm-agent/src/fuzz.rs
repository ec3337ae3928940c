//! The bodies of the fuzz targets, so that ordinary tests run them too. None may panic.

use cvm_peer::audit::read_answer;

use crate::request::{AuditRequest, LocalRequest, parse};

/// Bytes as a request of each kind, and as an answer.
pub fn agent_request(bytes: &[u8]) {
    let _ = parse::<LocalRequest>(bytes);
    let _ = parse::<AuditRequest>(bytes);
    let _ = read_answer("fuzzer", bytes);
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = cvm_peer::clock::parse(text);
    }
}

/// Bytes as the file of a report: what a peer's token becomes.
pub fn snp_report_file(bytes: &[u8]) {
    use crate::snpguest::{display::Text, file::ReportFile};
    if let Ok(file) = ReportFile::parse(bytes) {
        assert!(Text(&file.report).to_string().contains("Report Data:"));
    }
}

/// Bytes as `agent.yaml`.
pub fn agent_config(bytes: &[u8]) {
    if let Ok(config) = crate::config::Config::parse(bytes) {
        assert!(config.check_frequency_s > 0 && config.token_lifetime_s > 0);
    }
}

#[cfg(test)]
mod tests {
    use cvm_testkit::seeds::each_seed;

    use super::*;

    #[test]
    fn agent_requests() {
        each_seed("agent_request", 5_000, agent_request);
    }

    #[test]
    fn snp_report_files() {
        each_seed("snp_report_file", 3_000, snp_report_file);
    }

    #[test]
    fn agent_configs() {
        each_seed("agent_config", 5_000, agent_config);
    }
}
