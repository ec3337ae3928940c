//! Why a `cc_config` file is refused.

use std::path::PathBuf;

use cvm_base::Explain;

/// A `cc_config` file is refused. Keys are written with their place, such as `cc_issuers[0].path`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CcConfigError {
    /// The file is not YAML, or not a mapping.
    #[error("the cc_config is not readable: {0}")]
    Yaml(String),
    /// The key is unknown.
    #[error("{key}: there is no such key")]
    UnknownKey {
        /// The key with its place.
        key: String,
        /// The closest known key.
        closest: Option<String>,
        /// All keys that are allowed there.
        known: String,
    },
    /// A key is needed.
    #[error("{key} is missing, expected {expected}")]
    Missing {
        /// The key with its place.
        key: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A value has the wrong type or breaks a rule.
    #[error("{key}: expected {expected}, found {found}")]
    Value {
        /// The key with its place.
        key: String,
        /// What would be right.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// NVFLARE knows the value, but a sealed bundle cannot have it.
    #[error("{key}: {found} is refused: {reason}")]
    Refused {
        /// The key with its place.
        key: String,
        /// What was found.
        found: String,
        /// Why.
        reason: &'static str,
        /// What to write instead.
        instead: &'static str,
    },
    /// A path is relative, and nothing says to what.
    #[error("{key}: {found} is a relative path, and the file names no base folder")]
    RelativePath {
        /// The key with its place.
        key: String,
        /// The path.
        found: String,
        /// The environment variable that names a base folder.
        variable: &'static str,
    },
    /// What a path names is not there.
    #[error("{key}: {path} is {problem}", path = path.display())]
    NoFile {
        /// The key with its place.
        key: String,
        /// The path, resolved.
        path: PathBuf,
        /// What was found instead.
        problem: &'static str,
    },
    /// Two values cannot both be true.
    #[error("{first} and {second} contradict each other: {problem}")]
    Contradiction {
        /// One key.
        first: String,
        /// The other, or what else says so.
        second: String,
        /// Why.
        problem: String,
    },
}

impl Explain for CcConfigError {
    fn code(&self) -> &'static str {
        match self {
            Self::Yaml(_) => "CCC-001",
            Self::UnknownKey { .. } => "CCC-002",
            Self::Missing { .. } => "CCC-003",
            Self::Value { .. } => "CCC-004",
            Self::Refused { .. } => "CCC-005",
            Self::RelativePath { .. } => "CCC-006",
            Self::NoFile { .. } => "CCC-007",
            Self::Contradiction { .. } => "CCC-008",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Yaml(_) => {
                "a cc_config is one YAML mapping; tests/federation/cc_server1.yml shows one".into()
            }
            Self::UnknownKey { closest: Some(closest), .. } => format!("did you mean {closest}?"),
            Self::UnknownKey { known, .. } => format!("the keys are {known}"),
            Self::Missing { .. } => {
                "add it; tests/federation/cc_server1.yml shows every part of a cc_config".into()
            }
            Self::Value { key, .. } => {
                format!("correct {key}; a key without a value is better left out")
            }
            Self::Refused { instead, .. } => (*instead).into(),
            Self::RelativePath { variable, .. } => format!(
                "NVFLARE's packager hands on a copy in a temporary folder, so a path cannot be \
                 relative to the file: write it absolute or with ~/, or say what it is relative to \
                 with flare_cvm.base_dir or the environment variable {variable}"
            ),
            Self::NoFile { .. } => {
                "check the path's spelling, and that the step which makes it has run".into()
            }
            Self::Contradiction { .. } => "correct one of the two".into(),
        }
    }
}
