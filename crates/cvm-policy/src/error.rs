//! Why a policy could not be used, or could not decide.

use cvm_base::Explain;

/// A policy was refused, or stopped. Nothing is allowed by a policy that fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// More than the engine reads.
    #[error("{what} has {bytes} bytes, at most {allowed} are read")]
    TooLarge {
        /// The policy, its input or its data.
        what: &'static str,
        /// Found.
        bytes: usize,
        /// Allowed.
        allowed: usize,
    },
    /// Not Rego, in version 1 or 0.
    #[error("{name} line {line}: {problem}")]
    Syntax {
        /// The policy's file name.
        name: String,
        /// Counted from 1; 0 where the parser named none.
        line: u32,
        /// What the parser says.
        problem: String,
    },
    /// Rules in another package than the one that is asked.
    #[error("{name}: its package is {found}, expected policy")]
    Package {
        /// The policy's file name.
        name: String,
        /// Its package.
        found: String,
    },
    /// A policy that allows a machine without evidence.
    #[error("{name}: it allows without any evidence")]
    AllowsNothing {
        /// The policy's file name.
        name: String,
    },
    /// An evaluation that took too long.
    #[error("{name}: stopped after {milliseconds} ms of evaluation")]
    Stopped {
        /// The policy's file name.
        name: String,
        /// The bound.
        milliseconds: u64,
    },
    /// Rules that contradict each other, recursion, or a function that may not be used.
    #[error("{name} line {line}: {problem}")]
    Evaluation {
        /// The policy's file name.
        name: String,
        /// Counted from 1; 0 where the engine named none.
        line: u32,
        /// What the engine says.
        problem: String,
    },
    /// Reference values that make no policy.
    #[error("no policy can be made from these reference values: {problem}")]
    Reference {
        /// What is missing or wrong.
        problem: String,
    },
}

impl Explain for PolicyError {
    fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "ATT-380",
            Self::Syntax { .. } => "ATT-381",
            Self::Package { .. } => "ATT-382",
            Self::AllowsNothing { .. } => "ATT-383",
            Self::Stopped { .. } => "ATT-384",
            Self::Evaluation { .. } => "ATT-385",
            Self::Reference { .. } => "ATT-386",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::TooLarge { .. } => {
                "policies are a few KiB, claims a few hundred: is this the right file?"
            }
            Self::Syntax { .. } => {
                "`opa check` finds mistakes as well; new policies should be Rego v1 \
                 (`allow if { … }`)"
            }
            Self::Package { .. } => {
                "begin the file with `package policy`, as Trustee's policies do"
            }
            Self::AllowsNothing { .. } => {
                "begin with `default allow := false`, and let `allow` depend on `input`"
            }
            Self::Stopped { .. } => {
                "the rules loop over too much: compare values instead of searching for them"
            }
            Self::Evaluation { .. } => {
                "two rules give one name different values, or a rule calls itself"
            }
            Self::Reference { .. } => {
                "predict the image's measurements first (`flare-cvm predict`), for SEV-SNP with \
                 --min-tcb (docs/tcb.md)"
            }
        }
        .into()
    }
}
