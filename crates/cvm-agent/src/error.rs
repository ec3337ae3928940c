//! Why the agent cannot start.

use cvm_base::Explain;
use cvm_peer::error::AgentRefusal;

/// The agent cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// A file that must be there.
    #[error(transparent)]
    File(#[from] cvm_base::FileError),
    /// The agreement cannot be used.
    #[error(transparent)]
    Ceremony(#[from] cvm_ceremony::CeremonyError),
    /// The image's own documents are refused.
    #[error("this image's own documents: {0}")]
    Own(AgentRefusal),
    /// A policy that does not compile.
    #[error(transparent)]
    Policy(#[from] cvm_policy::PolicyError),
    /// `ak_certificates.json`.
    #[error(transparent)]
    Certificates(#[from] cvm_verify::ak_certificate::AkCertificateError),
    /// `collateral.pub`.
    #[error(transparent)]
    Collector(#[from] cvm_collateral::CacheError),
    /// `agent.yaml`.
    #[error("{path}: {problem}")]
    Config {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The socket or the port.
    #[error("cannot listen on {at}: {problem}")]
    Listen {
        /// Where.
        at: String,
        /// What the operating system said.
        problem: String,
    },
}

impl Explain for SetupError {
    fn code(&self) -> &'static str {
        match self {
            Self::File(_) => "AGT-050",
            Self::Ceremony(_) => "AGT-051",
            Self::Own(_) => "AGT-052",
            Self::Policy(_) => "AGT-053",
            Self::Certificates(_) => "AGT-054",
            Self::Config { .. } => "AGT-055",
            Self::Listen { .. } => "AGT-056",
            Self::Collector(_) => "AGT-057",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::File(error) => error.help(),
            Self::Ceremony(error) => error.help(),
            Self::Own(error) => error.help(),
            Self::Policy(error) => error.help(),
            Self::Certificates(error) => error.help(),
            Self::Collector(error) => error.help(),
            Self::Config { .. } => {
                "docs/agent-protocol.md lists agent.yaml's members and their bounds".into()
            }
            Self::Listen { .. } => {
                "is another agent running, and may this user write there?".into()
            }
        }
    }
}
