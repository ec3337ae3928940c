//! Asking a node from outside, with a nonce of one's own; and asking the local socket.

use std::{
    io,
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use cvm_base::{Bytes, Bytes32, Explain, sha256};
use cvm_policy::Policy;
use serde_json::{Value, json};

use crate::{
    error::AgentRefusal,
    limits::MAX_MESSAGE,
    stream::Stream,
    token::{Token, Use},
    trust::Trust,
    verify::{Clocks, ExpectedToken, Verdict, verify},
};

/// The port where nodes are asked, unless another is named.
pub const PORT: u16 = 8444;

/// A node was asked and did not prove itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// There was no connection, or it did not last.
    #[error("{at}: {problem}")]
    Unreachable {
        /// Where.
        at: String,
        /// What the operating system said.
        problem: String,
    },
    /// The answer is not one of the protocol.
    #[error("{at} did not answer in version 1 of the protocol: {problem}")]
    Answer {
        /// Where.
        at: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The node refuses.
    #[error("{at} refuses: {code}: {reason}")]
    Refused {
        /// Where.
        at: String,
        /// Its code.
        code: String,
        /// Its reason.
        reason: String,
    },
    /// Its evidence does not verify.
    #[error(transparent)]
    Verdict(#[from] AgentRefusal),
}

impl Explain for AuditError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "AGT-070",
            Self::Answer { .. } => "AGT-071",
            Self::Refused { .. } => "AGT-072",
            Self::Verdict(refusal) => refusal.code(),
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Unreachable { .. } => {
                "is the machine up, `attest_port` set in its agent.yaml, and the port among its \
                 allowed_in?"
                    .into()
            }
            Self::Answer { .. } => "something else listens there, or another version".into(),
            Self::Refused { .. } => "see the node's agent".into(),
            Self::Verdict(refusal) => refusal.help(),
        }
    }
}

/// What is asked of a node.
pub struct Audit<'a> {
    /// Whom the auditor believes.
    pub trust: &'a Trust,
    /// How the node is judged.
    pub policy: &'a Policy,
    /// The auditor's clock against the node's.
    pub clocks: Clocks,
    /// Seconds since 1970 UTC.
    pub now: u64,
}

/// A period, as RFC 3339.
pub type Period<'a> = (&'a str, &'a str);

impl Audit<'_> {
    /// Challenges the node at `address` (`HOST` or `HOST:PORT`), and asks for its journal of
    /// `period` if there is one.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn node(
        &self,
        address: &str,
        period: Option<Period<'_>>,
        patience: Duration,
    ) -> Result<(Verdict, Option<Value>), AuditError> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce)
            .map_err(|e| AgentRefusal::NoEvidence { problem: e.to_string() })?;
        let nonce = Bytes(nonce);
        let request = match period {
            None => json!({ "v": 1, "op": "evidence", "nonce": nonce }),
            Some((since, until)) => {
                json!({ "v": 1, "op": "report", "since": since, "until": until, "nonce": nonce })
            }
        };
        let answer = ask_node(address, &request, patience)?;
        self.judge(address, &answer, &nonce, period.is_some())
    }

    fn judge(
        &self,
        at: &str,
        answer: &Value,
        nonce: &Bytes32,
        with_report: bool,
    ) -> Result<(Verdict, Option<Value>), AuditError> {
        let bad = |problem: &str| AuditError::Answer { at: at.into(), problem: problem.into() };
        let text = |member: &str| answer.get(member).and_then(Value::as_str);
        let token = Token::parse(text("token").ok_or_else(|| bad("there is no token"))?)?;
        let report = with_report
            .then(|| text("report").ok_or_else(|| bad("there is no report")))
            .transpose()?;
        let digest = report.map(|report| sha256(report.as_bytes()));
        let expected = ExpectedToken {
            use_: Use::Audit,
            peer: None,
            challenge: Some(nonce),
            report_sha256: digest.as_ref(),
        };
        let verdict = verify(&token, &expected, self.trust, self.policy, self.clocks, self.now)?;
        let report = report
            .map(|report| serde_json::from_str(report).map_err(|_| bad("the report is not JSON")));
        Ok((verdict, report.transpose()?))
    }
}

/// Asks the node's port.
///
/// # Errors
/// [`AuditError`], also for a refusal.
pub fn ask_node(address: &str, request: &Value, patience: Duration) -> Result<Value, AuditError> {
    let fail =
        |e: io::Error| AuditError::Unreachable { at: address.into(), problem: e.to_string() };
    let with_port = with_port(address);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for to in with_port.to_socket_addrs().map_err(fail)? {
        match TcpStream::connect_timeout(&to, patience) {
            Ok(stream) => return exchange(stream, address, request, patience),
            Err(error) => last = error,
        }
    }
    Err(fail(last))
}

/// Asks the local socket.
///
/// # Errors
/// [`AuditError`], also for a refusal.
pub fn ask_local(socket: &Path, request: &Value, patience: Duration) -> Result<Value, AuditError> {
    let at = socket.display().to_string();
    let stream = UnixStream::connect(socket);
    let stream =
        stream.map_err(|e| AuditError::Unreachable { at: at.clone(), problem: e.to_string() })?;
    exchange(stream, &at, request, patience)
}

/// `HOST:PORT`, with [`PORT`] where none is named.
fn with_port(address: &str) -> String {
    match address.rsplit_once(':') {
        // An IPv6 address has colons of its own; its port follows a bracket.
        Some((host, port))
            if port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')) =>
        {
            address.into()
        }
        _ if address.contains(':') && !address.starts_with('[') => format!("[{address}]:{PORT}"),
        _ => format!("{address}:{PORT}"),
    }
}

fn exchange(
    mut stream: impl Stream,
    at: &str,
    request: &Value,
    patience: Duration,
) -> Result<Value, AuditError> {
    let fail = |e: io::Error| AuditError::Unreachable { at: at.into(), problem: e.to_string() };
    let bad = |problem: String| AuditError::Answer { at: at.into(), problem };
    let deadline = Instant::now() + patience;
    let remaining = |deadline: Instant| match deadline.saturating_duration_since(Instant::now()) {
        left if left.is_zero() => Err(fail(io::ErrorKind::TimedOut.into())),
        left => Ok(left),
    };
    stream.patience(remaining(deadline)?).map_err(fail)?;
    stream.write_all(format!("{request}\n").as_bytes()).map_err(fail)?;
    let mut answer = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        stream.patience(remaining(deadline)?).map_err(fail)?;
        let read = stream.read(&mut chunk).map_err(fail)?;
        answer.extend_from_slice(chunk.get(..read).unwrap_or_default());
        if answer.len() > MAX_MESSAGE {
            return Err(bad(format!("longer than {MAX_MESSAGE} bytes")));
        }
        if read == 0 || answer.ends_with(b"\n") {
            break;
        }
    }
    read_answer(at, &answer)
}

/// Reads an answer's bytes.
///
/// # Errors
/// [`AuditError::Answer`], or [`AuditError::Refused`].
pub fn read_answer(at: &str, bytes: &[u8]) -> Result<Value, AuditError> {
    let bad = |problem: String| AuditError::Answer { at: at.into(), problem };
    let answer: Value = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
    match answer.get("ok").and_then(Value::as_bool) {
        Some(true) => Ok(answer),
        Some(false) => {
            let printable = |c: char| if c.is_control() { '?' } else { c };
            let text = |member: &str| {
                let text = answer.get(member).and_then(Value::as_str).unwrap_or("?");
                text.chars().take(500).map(printable).collect::<String>()
            };
            Err(AuditError::Refused { at: at.into(), code: text("code"), reason: text("reason") })
        }
        None => Err(bad("`ok` is neither true nor false".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_their_port() {
        for (given, full) in [
            ("host", "host:8444"),
            ("host:1", "host:1"),
            ("10.0.0.1", "10.0.0.1:8444"),
            ("::1", "[::1]:8444"),
            ("[::1]", "[::1]:8444"),
            ("[::1]:7", "[::1]:7"),
        ] {
            assert_eq!(with_port(given), full);
        }
    }

    #[test]
    fn answers_of_others_are_refused() {
        for bytes in [&b""[..], b"HTTP/1.1 400\r\n", b"{}", b"{\"ok\":1}", b"[]"] {
            assert!(matches!(read_answer("x", bytes), Err(AuditError::Answer { .. })));
        }
        let refused =
            read_answer("x", b"{\"ok\":false,\"code\":\"AGT-004\",\"reason\":\"a\\u001bb\"}")
                .unwrap_err();
        assert_eq!(refused.to_string(), "x refuses: AGT-004: a?b");
    }
}
