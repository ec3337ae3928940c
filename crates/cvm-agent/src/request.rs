//! The socket's messages, version 1 (docs/agent-protocol.md): strict in what is read.

use cvm_base::{Bytes, Bytes32, Explain, json::check_shape};
use cvm_evidence::wire::Base64;
use cvm_layout::names::Name;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};

use cvm_peer::{error::AgentRefusal, limits::MAX_MESSAGE, verify::Peer};

/// 1, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version;

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            1 => Ok(Self),
            other => Err(D::Error::custom(format!("version {other}, this agent speaks 1"))),
        }
    }
}

/// What the local socket is asked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
#[allow(missing_docs, reason = "the protocol's document says what they are")]
pub enum LocalRequest {
    Status {
        v: Version,
    },
    Challenge {
        v: Version,
        peer: Name,
    },
    Generate {
        v: Version,
        #[serde(deserialize_with = "Option::deserialize")]
        challenge: Option<Bytes32>,
        tls_cert_sha256: Bytes32,
    },
    Verify {
        v: Version,
        token: String,
        #[serde(deserialize_with = "Option::deserialize")]
        peer: Option<Peer>,
        #[serde(deserialize_with = "Option::deserialize")]
        challenge: Option<Bytes32>,
    },
    Report {
        v: Version,
        since: String,
        until: String,
    },
    #[serde(rename = "snp-report")]
    SnpReport {
        v: Version,
        report_data: Bytes<64>,
    },
    #[serde(rename = "snp-verify")]
    SnpVerify {
        v: Version,
        report: Base64,
        certificates: Vec<Base64>,
    },
}

/// What the node's port is asked, by anybody.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
#[allow(missing_docs, reason = "the protocol's document says what they are")]
pub enum AuditRequest {
    Evidence { v: Version, nonce: Bytes32 },
    Report { v: Version, since: String, until: String, nonce: Bytes32 },
}

/// Reads one request: a line, its newline included or cut.
///
/// # Errors
/// [`AgentRefusal::Request`].
pub fn parse<T: serde::de::DeserializeOwned>(line: &[u8]) -> Result<T, AgentRefusal> {
    let refuse =
        |problem: String| AgentRefusal::Request { problem: problem.chars().take(200).collect() };
    if line.len() > MAX_MESSAGE {
        return Err(refuse(format!("longer than {MAX_MESSAGE} bytes")));
    }
    check_shape(line).map_err(|e| refuse(e.to_string()))?;
    serde_json::from_slice(line).map_err(|e| refuse(e.to_string()))
}

/// The answer to a request: one line.
pub fn answer(outcome: Result<Value, AgentRefusal>) -> Vec<u8> {
    let value = match outcome {
        Ok(mut members) => {
            members["ok"] = json!(true);
            members
        }
        Err(refusal) => {
            let reason: String = refusal.to_string().chars().take(2000).collect();
            let mut members = json!({
                "ok": false, "code": refusal.code(), "reason": reason,
                "help": refusal.help(), "retry": refusal.retry(),
            });
            if let Some(wait_s) = refusal.wait_s() {
                members["wait_s"] = json!(wait_s);
            }
            members
        }
    };
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_strictly() {
        let peer = r#"{"name":"a","role":"ROLE","tls_cert_sha256":null}"#;
        let verify =
            format!(r#"{{"op":"verify","v":1,"token":"x","peer":{peer},"challenge":null}}"#);
        let good = [
            r#"{"v":1,"op":"status"}"#.to_owned(),
            r#"{"v":1,"op":"challenge","peer":"site-1"}"#.to_owned(),
            format!(
                r#"{{"v":1,"op":"generate","challenge":null,"tls_cert_sha256":"{}"}}"#,
                "ab".repeat(32)
            ),
            r#"{"v":1,"op":"verify","token":"x","peer":null,"challenge":null}"#.to_owned(),
            verify.replace("ROLE", "client"),
            r#"{"v":1,"op":"report","since":"a","until":"b"}"#.to_owned(),
            format!(r#"{{"v":1,"op":"snp-report","report_data":"{}"}}"#, "ab".repeat(64)),
            r#"{"v":1,"op":"snp-verify","report":"AAAA","certificates":["AA=="]}"#.to_owned(),
        ];
        for line in &good {
            parse::<LocalRequest>(line.as_bytes()).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
        for line in [
            "",
            "[]",
            r#"{"v":2,"op":"status"}"#,
            r#"{"op":"status"}"#,
            r#"{"v":1,"op":"status","more":1}"#,
            r#"{"v":1,"v":1,"op":"status"}"#,
            r#"{"v":1,"op":"other"}"#,
            r#"{"v":1,"op":"challenge","peer":"../x"}"#,
            r#"{"v":1,"op":"generate","tls_cert_sha256":"00"}"#,
            r#"{"v":1,"op":"snp-report","report_data":"00"}"#,
            r#"{"v":1,"op":"snp-verify","report":"?","certificates":[]}"#,
            r#"{"v":1,"op":"verify","token":"x","challenge":null}"#,
            &verify.replace("ROLE", "admin"),
        ] {
            assert!(parse::<LocalRequest>(line.as_bytes()).is_err(), "{line}");
        }
        assert!(parse::<LocalRequest>("[".repeat(MAX_MESSAGE).as_bytes()).is_err());
        assert!(parse::<AuditRequest>(br#"{"v":1,"op":"generate"}"#).is_err());
    }
}
