//! The bodies of the fuzz targets, so that ordinary tests run them too. None may panic.

use crate::{
    audit::read_answer,
    request::{AuditRequest, Request, parse},
    token::Token,
};

/// Bytes as a token's text, and as the JSON in it.
pub fn agent_token(bytes: &[u8]) {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
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

/// Bytes as a request of each kind, and as an answer.
pub fn agent_request(bytes: &[u8]) {
    let _ = parse::<Request>(bytes);
    let _ = parse::<AuditRequest>(bytes);
    let _ = read_answer("fuzzer", bytes);
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = crate::clock::parse(text);
    }
}

/// Bytes as the file of a report: what a peer's token becomes.
#[cfg(feature = "guest")]
pub fn snp_report_file(bytes: &[u8]) {
    use crate::snpguest::{display::Text, file::ReportFile};
    if let Ok(file) = ReportFile::parse(bytes) {
        assert!(Text(&file.report).to_string().contains("Report Data:"));
    }
}

/// Bytes as `agent.yaml`.
#[cfg(feature = "guest")]
pub fn agent_config(bytes: &[u8]) {
    if let Ok(config) = crate::config::Config::parse(bytes) {
        assert!(config.check_frequency_s > 0 && config.token_lifetime_s > 0);
    }
}
