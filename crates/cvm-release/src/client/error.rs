//! What may go wrong between a client and one key holder.

use std::{error::Error, time::Duration};

use cvm_base::{Bytes32, Explain};

use crate::messages::{ERROR_PREFIX, NOT_ENROLLED};

/// A failure, and which key holder it is about.
#[derive(Debug, thiserror::Error)]
#[error("key holder {holder}: {failure}")]
pub struct ReleaseError {
    /// The party's name and its URL.
    pub holder: String,
    /// What happened.
    #[source]
    pub failure: Failure,
}

/// Why a key holder released no half.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// No connection: name not found, no route, connection refused or broken.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// A bounded wait ended.
    #[error("no answer in time ({0})")]
    Timeout(String),
    /// The deadline of the whole exchange passed; `last` is what the last attempt said.
    #[error(
        "gave up after {tries} attempts in {seconds} s; the last one: {last}",
        seconds = after.as_secs()
    )]
    Deadline {
        /// How often it was tried.
        tries: u32,
        /// For how long.
        after: Duration,
        /// The last attempt's failure.
        #[source]
        last: Box<Failure>,
    },
    /// Somebody else answered: the certificate is not the pinned one.
    #[error("showed a certificate with SHA-256 {found}, but the manifest pins {expected}")]
    WrongCertificate {
        /// The manifest's.
        expected: Bytes32,
        /// The server's.
        found: Bytes32,
    },
    /// TLS failed for another reason.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The server cannot serve now (HTTP 429 or 503).
    #[error("is busy (HTTP status {status})")]
    Busy {
        /// The HTTP status.
        status: u16,
    },
    /// The server decided against us: final.
    #[error("refused: {detail} [{error_type}, HTTP status {status}]")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The error's name, a URL.
        error_type: String,
        /// The server's words, without control characters.
        detail: String,
    },
    /// An answer that the protocol does not allow.
    #[error("broke the protocol: {0}")]
    Protocol(String),
    /// A TPM's attestation key must be proven by a credential, and the key holder sent none.
    #[error(
        "sent an empty challenge: it does not ask for the proof that a TPM's attestation key needs"
    )]
    NoChallenge,
    /// The address or the proxy in the configuration is malformed.
    #[error("has no usable address: {0}")]
    Address(String),
    /// Our own evidence could not be made.
    #[error("evidence for it could not be made: {0}")]
    Evidence(#[source] Box<dyn Error + Send + Sync>),
    /// Something on our own side: randomness, serialisation.
    #[error("local failure: {0}")]
    Local(String),
}

impl Failure {
    /// Whether trying again may help: the network, never a decision.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Timeout(_) | Self::Tls(_) | Self::Busy { .. })
    }

    /// Whether the key holder does not know the image: its documents may be presented.
    pub fn is_not_enrolled(&self) -> bool {
        let Self::Refused { error_type, .. } = self else { return false };
        error_type.strip_prefix(ERROR_PREFIX) == Some(NOT_ENROLLED)
    }

    /// The failure under a [`Failure::Deadline`], or itself.
    pub fn root(&self) -> &Self {
        match self {
            Self::Deadline { last, .. } => last.root(),
            other => other,
        }
    }
}

impl Explain for ReleaseError {
    fn code(&self) -> &'static str {
        match self.failure.root() {
            Failure::Unreachable(_) | Failure::Deadline { .. } => "REL-001",
            Failure::Timeout(_) => "REL-002",
            Failure::WrongCertificate { .. } => "REL-003",
            Failure::Tls(_) => "REL-004",
            Failure::Busy { .. } => "REL-005",
            Failure::Refused { .. } => "REL-006",
            Failure::Protocol(_) => "REL-007",
            Failure::Address(_) => "REL-008",
            Failure::Evidence(_) => "REL-009",
            Failure::Local(_) => "REL-010",
            Failure::NoChallenge => "REL-011",
        }
    }

    fn help(&self) -> String {
        match self.failure.root() {
            Failure::Unreachable(_) | Failure::Timeout(_) | Failure::Deadline { .. } => {
                "check that the key holder runs and that the site's network, proxy and firewall \
                 let the CVM reach it; a moved key holder's new address goes into endpoints.yaml \
                 on p1"
            }
            Failure::WrongCertificate { .. } => {
                "either the address leads to another server, or the party replaced its key \
                 holder's certificate: then the image must be provisioned again with the new one"
            }
            Failure::Tls(_) => {
                "a middlebox may be rewriting TLS; the key holder must be reached directly or by \
                 CONNECT"
            }
            Failure::Busy { .. } => {
                "the key holder limits requests, or cannot write its log, which its operator sees: \
                 wait and start again"
            }
            Failure::Refused { .. } => {
                "the reason is in the key holder's audit log: ask its operator to run `flare-cvm \
                 keyholder log`"
            }
            Failure::Protocol(_) => {
                "the server is not a key holder, or has another version: it must speak KBS \
                 protocol 0.4.0"
            }
            Failure::Address(_) => {
                "addresses are https://HOST:PORT without a path; proxies are \
                http://HOST:PORT"
            }
            Failure::Evidence(_) => "check that the VM has its TPM (or other TEE) device",
            Failure::NoChallenge => {
                "a stock Trustee sends none: it cannot serve a CVM that attests with a TPM. Run \
                 flare-cvm's key holder (flare-cvm keyholder serve), or attest with a TEE"
            }
            Failure::Local(_) => {
                "this is a fault of the system's random generator or of this \
                program"
            }
        }
        .into()
    }
}
