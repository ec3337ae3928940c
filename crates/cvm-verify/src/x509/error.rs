//! Why a certificate was refused.

use cvm_base::Explain;

/// A certificate or a path was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum X509Error {
    /// Bytes that are not a certificate, or more than the bound.
    #[error("{what} cannot be read: {problem}")]
    Malformed {
        /// Which one.
        what: String,
        /// Expected and found.
        problem: String,
    },
    /// The path to a root is broken.
    #[error("the certificate of {subject} leads to no trusted root at this time: {problem}")]
    Path {
        /// The end entity's subject.
        subject: String,
        /// What path validation found.
        problem: String,
    },
    /// A revocation list cannot be used.
    #[error("the revocation list cannot be used: {problem}")]
    Crl {
        /// What is wrong with it.
        problem: String,
    },
}

impl Explain for X509Error {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "ATT-201",
            Self::Path { .. } => "ATT-202",
            Self::Crl { .. } => "ATT-203",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Malformed { .. } => {
                "give certificates as their vendor issued them, DER or PEM, \
                with nothing around them"
            }
            Self::Path { .. } => {
                "check the time that was asked for against the certificates' dates, that every \
                 intermediate is there, and that the evidence is of the vendor whose roots were \
                 given"
            }
            Self::Crl { .. } => {
                "fetch the vendor's current revocation list (DER), or the one of \
                the time that is asked about"
            }
        }
        .into()
    }
}
