//! Before NVFLARE starts: a sane clock, and an agent that has verified this machine.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use cvm_base::Explain;
use serde_json::{Value, json};

use cvm_peer::{audit, clock};

/// Between two looks, and how much more at random, in milliseconds.
const PAUSE_MS: u64 = 500;
const JITTER_MS: u64 = 500;
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// NVFLARE may not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// The clock is before the time when this image's documents were signed: certificates would
    /// look valid that are not, and the other way round.
    #[error("the clock says {found}, before {earliest}, when this image's documents were signed")]
    Clock {
        /// RFC 3339.
        earliest: String,
        /// RFC 3339.
        found: String,
    },
    /// The self-verification failed.
    #[error("the agent reports: {reason}")]
    Failing {
        /// With its code.
        reason: String,
    },
    /// No healthy agent within the deadline.
    #[error("no healthy agent within {seconds} s: {problem}")]
    Deadline {
        /// The deadline.
        seconds: u64,
        /// What there was at the end.
        problem: String,
    },
}

impl Explain for GateError {
    fn code(&self) -> &'static str {
        match self {
            Self::Clock { .. } => "AGT-060",
            Self::Failing { .. } => "AGT-061",
            Self::Deadline { .. } => "AGT-062",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Clock { .. } => {
                "correct the host's clock, or let the guest reach its time servers"
            }
            Self::Failing { .. } => "see the agent's log lines: they name what differs",
            Self::Deadline { .. } => "see the agent's log: journalctl -u cvm-agent",
        }
        .into()
    }
}

/// Waits until the clock is not before `earliest` and the agent at `socket` is healthy.
///
/// # Errors
/// [`GateError`]; a failing agent at once, anything else after `patience`.
pub fn wait(
    socket: &Path,
    earliest: u64,
    patience: Duration,
    clock: impl Fn() -> u64,
) -> Result<(), GateError> {
    let deadline = Instant::now() + patience;
    loop {
        let now = clock();
        let problem = if now < earliest {
            GateError::Clock { earliest: clock::rfc3339(earliest), found: clock::rfc3339(now) }
        } else {
            match audit::ask_local(socket, &json!({"v": 1, "op": "status"}), ANSWER) {
                Ok(status) => match status.get("state").and_then(Value::as_str) {
                    Some("healthy") => return Ok(()),
                    Some("failing") => {
                        let reason = status
                            .get("reason")
                            .and_then(Value::as_str)
                            .unwrap_or("no reason")
                            .to_owned();
                        return Err(GateError::Failing { reason });
                    }
                    other => GateError::Deadline {
                        seconds: patience.as_secs(),
                        problem: format!("it is {}", other.unwrap_or("in no known state")),
                    },
                },
                Err(error) => {
                    GateError::Deadline { seconds: patience.as_secs(), problem: error.to_string() }
                }
            }
        };
        if Instant::now() >= deadline {
            return Err(problem);
        }
        std::thread::sleep(Duration::from_millis(PAUSE_MS + jitter()));
    }
}

/// Sites that start together must not all ask at the same moment.
fn jitter() -> u64 {
    let mut byte = [0];
    let _ = getrandom::fill(&mut byte);
    JITTER_MS * u64::from(byte[0]) / 255
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        os::unix::net::UnixListener,
    };

    use super::*;

    /// Answers so many requests with these states, the last one again and again.
    fn agent(states: &'static [&'static str]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            for (n, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
                let state = states[n.min(states.len() - 1)];
                let _ = writeln!(
                    stream,
                    r#"{{"ok":true,"state":"{state}","reason":"AGT-032: PCR 11"}}"#
                );
            }
        });
        (folder, path)
    }

    #[test]
    fn it_opens_for_a_healthy_agent_and_for_nobody_else() {
        let patience = Duration::from_secs(200);
        let (_folder, socket) = agent(&["starting", "healthy"]);
        wait(&socket, 100, patience, || 100).unwrap();
        let (_folder, socket) = agent(&["starting", "failing"]);
        let refused = wait(&socket, 100, patience, || 100).unwrap_err();
        assert!(
            matches!(&refused, GateError::Failing { reason } if reason.contains("PCR 11")),
            "{refused}"
        );
        let none = Duration::ZERO;
        let (_folder, socket) = agent(&["starting"]);
        assert!(matches!(wait(&socket, 0, none, || 100), Err(GateError::Deadline { .. })));
        assert!(matches!(
            wait(Path::new("/nonexistent"), 0, none, || 100),
            Err(GateError::Deadline { .. })
        ));
    }

    #[test]
    fn a_clock_that_is_behind_waits_and_then_closes() {
        let (_folder, socket) = agent(&["healthy"]);
        let refused = wait(&socket, 101, Duration::ZERO, || 100).unwrap_err();
        assert!(matches!(refused, GateError::Clock { .. }));
        let ticks = std::cell::Cell::new(99);
        wait(&socket, 101, Duration::from_secs(200), || {
            ticks.set(ticks.get() + 1);
            ticks.get()
        })
        .unwrap();
    }
}
