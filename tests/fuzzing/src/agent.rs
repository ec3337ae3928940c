//! What a peer, an auditor or a site gives the agent.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cvm_agent::{
    config::Config,
    request::{AuditRequest, LocalRequest, parse},
    snpguest::{display::Text, file::ReportFile},
};
use cvm_peer::{audit::read_answer, clock, token::Token};

/// Bytes as a request of each kind, and as an answer.
pub fn agent_request(bytes: &[u8]) {
    let _ = parse::<LocalRequest>(bytes);
    let _ = parse::<AuditRequest>(bytes);
    let _ = read_answer("fuzzer", bytes);
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = clock::parse(text);
    }
}

/// Bytes as the file of a report: what a peer's token becomes.
pub fn snp_report_file(bytes: &[u8]) {
    if let Ok(file) = ReportFile::parse(bytes) {
        assert!(Text(&file.report).to_string().contains("Report Data:"));
    }
}

/// Bytes as `agent.yaml`.
pub fn agent_config(bytes: &[u8]) {
    if let Ok(config) = Config::parse(bytes) {
        assert!(config.check_frequency_s > 0 && config.token_lifetime_s > 0);
    }
}

/// Bytes as a token's text, and as the JSON in it.
pub fn agent_token(bytes: &[u8]) {
    let check = |text: &str| {
        if let Ok(token) = Token::parse(text) {
            let _ = token.statement.digest();
            if let Ok(text) = token.text() {
                assert_eq!(Token::parse(&text), Ok(token));
            }
        }
    };
    if let Ok(text) = str::from_utf8(bytes) {
        check(text);
    }
    check(&URL_SAFE_NO_PAD.encode(bytes));
}
