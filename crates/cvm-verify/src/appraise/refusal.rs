//! Why evidence was refused.

use cvm_base::Explain;
use serde::Serialize;

/// Why evidence was refused: by a verifier, or by a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Which evidence: the submodule's name, or a file's.
    pub of: String,
    /// The stable code.
    pub code: String,
    /// Expected and found.
    pub reason: String,
    /// What to do next.
    pub help: String,
}

impl Refusal {
    pub(super) fn new(of: &str, error: &(impl Explain + std::fmt::Display)) -> Self {
        Self {
            of: of.into(),
            code: error.code().into(),
            reason: shortened(&error.to_string()),
            help: error.help(),
        }
    }

    /// A refusal of files from which nothing can be verified.
    pub fn input(of: &str, reason: impl Into<String>, help: &str) -> Self {
        Self { of: of.into(), code: "ATT-360".into(), reason: reason.into(), help: help.into() }
    }

    /// A refusal by a policy.
    pub fn policy(of: &str, code: &str, reason: impl Into<String>, help: &str) -> Self {
        Self { of: of.into(), code: code.into(), reason: reason.into(), help: help.into() }
    }
}

/// A reason without the data that JSON readers quote: a word that is longer than any digest is
/// data.
pub(super) fn shortened(reason: &str) -> String {
    const LONGEST: usize = 192;
    const SHOWN: usize = 32;
    let word = |word: &str| match word.chars().count() {
        length if length > LONGEST => {
            let start: String = word.chars().take(SHOWN).collect();
            format!("{start}… ({length} characters)")
        }
        _ => word.to_owned(),
    };
    reason.split(' ').map(word).collect::<Vec<_>>().join(" ")
}
