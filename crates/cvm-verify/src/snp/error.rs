//! Why SEV-SNP evidence was refused.

use cvm_base::Explain;

use super::{SigningKey, TcbComponent};
use crate::x509::X509Error;

/// SEV-SNP evidence was refused. Nothing in it may be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnpError {
    /// Bytes that do not have the form their specification gives them.
    #[error("{what}: {problem}")]
    Malformed {
        /// The structure.
        what: &'static str,
        /// Expected and found.
        problem: String,
    },
    /// A report of a version whose layout this program does not know.
    #[error("the report has version {found}; this program verifies versions 2 to 5")]
    Version {
        /// The report's first field.
        found: u32,
    },
    /// Report, certificate and root do not belong to one product, or to none that is known.
    #[error("the product: {problem}")]
    Product {
        /// Expected and found.
        problem: String,
    },
    /// The certificates do not hold what the report needs.
    #[error("the certificates: {problem}")]
    Certificates {
        /// Expected and found.
        problem: String,
    },
    /// The endorsement key's certificate leads to no trusted AMD root key, or a list cannot be
    /// used.
    #[error(transparent)]
    Chain(#[from] X509Error),
    /// The report says that another kind of key signed it.
    #[error("the report says that a {report} signed it, but the certificate is a {certificate}'s")]
    KeyKind {
        /// `KEY_INFO.SIGNING_KEY`.
        report: SigningKey,
        /// What the certificate certifies.
        certificate: SigningKey,
    },
    /// The certificate's key was derived from another TCB than the report states.
    #[error(
        "the report states {component} version {report}, but its certificate is for version \
         {certificate}"
    )]
    Tcb {
        /// Which component.
        component: TcbComponent,
        /// In the report's `REPORTED_TCB`.
        report: u8,
        /// In the certificate's extension.
        certificate: u8,
    },
    /// The certificate is another chip's.
    #[error("the report is of chip {report}, but the certificate is of chip {certificate}")]
    ChipId {
        /// `CHIP_ID`, its first bytes in hex.
        report: String,
        /// The certificate's hwID, its first bytes in hex.
        certificate: String,
    },
    /// The endorsement key did not sign this report.
    #[error("the report's signature does not verify under the {key} certificate's key")]
    Signature {
        /// The kind of key.
        key: SigningKey,
    },
    /// The report is not bound to what was asked for.
    #[error("{field} is {found}, expected {expected}")]
    Binding {
        /// `REPORT_DATA` or `HOST_DATA`.
        field: &'static str,
        /// Hex.
        expected: String,
        /// Hex.
        found: String,
    },
    /// Genuine evidence of something that the policy does not accept.
    #[error("the policy refuses this guest: {check} is {found}, required is {required}")]
    Policy {
        /// Which rule of [`super::SnpPolicy`].
        check: &'static str,
        /// What the claims say.
        found: String,
        /// What the policy accepts.
        required: String,
    },
}

impl SnpError {
    pub(super) fn malformed(what: &'static str, problem: impl Into<String>) -> Self {
        Self::Malformed { what, problem: problem.into() }
    }

    pub(super) fn certificates(problem: impl Into<String>) -> Self {
        Self::Certificates { problem: problem.into() }
    }

    pub(super) fn product(problem: impl Into<String>) -> Self {
        Self::Product { problem: problem.into() }
    }
}

impl Explain for SnpError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "ATT-300",
            Self::Version { .. } => "ATT-301",
            Self::Product { .. } => "ATT-302",
            Self::Certificates { .. } => "ATT-303",
            Self::Chain(error) => error.code(),
            Self::KeyKind { .. } => "ATT-304",
            Self::Tcb { .. } => "ATT-305",
            Self::ChipId { .. } => "ATT-306",
            Self::Signature { .. } => "ATT-307",
            Self::Binding { .. } => "ATT-308",
            Self::Policy { .. } => "ATT-309",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Malformed { .. } => {
                "give the report as the firmware returned it (1184 bytes), without any header"
            }
            Self::Version { .. } => "a newer firmware than this program knows: update the program",
            Self::Product { .. } => {
                "give the VCEK or VLEK that AMD issued for the machine that made this report"
            }
            Self::Certificates { .. } => {
                "give the VCEK or VLEK of this machine; ASK, ASVK and ARK come with this program"
            }
            Self::Chain(error) => return error.help(),
            Self::KeyKind { .. } => {
                "the host signs with a VLEK where the cloud loaded one: give the certificate of \
                 that kind"
            }
            Self::Tcb { .. } => {
                "the machine's firmware was updated, or its host masks the chip id and the \
                 certificate is another machine's: fetch the VCEK of this machine for the TCB that \
                 the report states"
            }
            Self::ChipId { .. } => {
                "fetch the VCEK for this report's chip id; with a fleet, mind which machine \
                 answered"
            }
            Self::Signature { .. } => {
                "the report was changed after the firmware signed it, or the certificate is \
                 another machine's"
            }
            Self::Binding { .. } => {
                "a replayed or relayed report; a genuine guest simply makes a new one"
            }
            Self::Policy { .. } => {
                "if such guests may be trusted, say so in the policy; otherwise change how the \
                 guest is launched"
            }
        }
        .into()
    }
}
