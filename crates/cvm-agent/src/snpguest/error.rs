//! Why `snpguest` failed; NVFLARE logs what it writes.

use cvm_base::{Explain, FileError};

use cvm_peer::audit::AuditError;

/// `snpguest` could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnpguestError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a report, or something unknown after it.
    #[error("not an attestation report: {problem}")]
    Report {
        /// What is wrong with it.
        problem: String,
    },
    /// The request file is not what a report can carry.
    #[error("the request file has {found} bytes, a report carries 64")]
    RequestFile {
        /// Its length.
        found: usize,
    },
    /// The agent did not answer, or refused.
    #[error(transparent)]
    Agent(#[from] AuditError),
    /// An answer without what it must hold.
    #[error("the agent's answer lacks {member}")]
    Answer {
        /// The member.
        member: &'static str,
    },
}

impl Explain for SnpguestError {
    fn code(&self) -> &'static str {
        match self {
            Self::File(_) => "AGT-080",
            Self::Report { .. } => "AGT-081",
            Self::RequestFile { .. } => "AGT-082",
            Self::Agent(_) => "AGT-083",
            Self::Answer { .. } => "AGT-084",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::File(error) => error.help(),
            Self::Report { .. } => {
                "the peer's token was changed on the way, or its snpguest is of another version"
                    .into()
            }
            Self::RequestFile { .. } => "NVFLARE's SNPAuthorizer writes 64 random bytes".into(),
            Self::Agent(_) => "see the agent's log; docs/agent-protocol.md lists its codes".into(),
            Self::Answer { .. } => "this program and the agent are of different versions".into(),
        }
    }
}
