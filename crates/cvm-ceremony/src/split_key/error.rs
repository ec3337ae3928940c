//! Why a half or a key could not be derived.

use cvm_base::Explain;
use cvm_layout::names::Name;

use super::purpose::{MAX_PARTIES, Purpose};

/// A half or a key could not be derived. Never says anything about a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitKeyError {
    /// The shared point is zero: the other side's public key is of low order.
    #[error(
        "the X25519 public key {0} is of low order: a key agreed with it is known to everybody"
    )]
    LowOrder(cvm_base::Bytes32),
    /// The same derivation gave two results.
    #[error("the same derivation gave two different results ({0})")]
    Fault(&'static str),
    /// Nothing to combine, or more than [`MAX_PARTIES`].
    #[error("{found} halves for the key of {purpose}: expected 1 to {MAX_PARTIES}")]
    Count {
        /// How many there were.
        found: usize,
        /// What the key was for.
        purpose: Purpose,
    },
    /// A party takes part in the purpose, and its half is not there.
    #[error("the half of party {party} is missing for the key of {purpose}")]
    MissingHalf {
        /// The party.
        party: Name,
        /// What the key was for.
        purpose: Purpose,
    },
    /// The system's random source failed.
    #[error("the system's random source failed: {0}")]
    Random(String),
}

impl Explain for SplitKeyError {
    fn code(&self) -> &'static str {
        match self {
            Self::LowOrder(_) => "CER-101",
            Self::Fault(_) => "CER-102",
            Self::Count { .. } => "CER-103",
            Self::MissingHalf { .. } => "CER-104",
            Self::Random(_) => "CER-105",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::LowOrder(_) => {
                "a public key was replaced by one that cancels the secret: do not \
                use the file it came from"
                    .into()
            }
            Self::Fault(_) => {
                "the processor or its memory made an error, or somebody induced one: \
                no key was made; try other hardware"
                    .into()
            }
            Self::Count { .. } => "name the parties of this purpose in the ceremony (`flare-cvm \
                ceremony show AGREEMENT`)"
                .into(),
            Self::MissingHalf { party, .. } => format!(
                "{party}'s key holder must release its half \
                first: see its audit log for a refusal"
            ),
            Self::Random(_) => "the kernel's getrandom must work: do not run in a sandbox that \
                forbids it"
                .into(),
        }
    }
}
