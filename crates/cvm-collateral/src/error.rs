//! Why collateral was refused.

use cvm_base::{Bytes32, Explain, FileError, time::rfc3339};

use crate::key::Key;

/// Collateral, or a cache of it, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CollateralError {
    /// The index does not have the form that this program writes.
    #[error("the collateral's index cannot be read: {problem}")]
    Index {
        /// Expected and found.
        problem: String,
    },
    /// The index is signed by nobody who is trusted to collect.
    #[error("the collateral was collected by {signer}, who is not among those trusted to collect")]
    Signer {
        /// The key that the index names.
        signer: Bytes32,
    },
    /// The index was changed after it was signed.
    #[error("the signature over the collateral's index does not verify under {signer}")]
    Signature {
        /// The key that the index names.
        signer: Bytes32,
    },
    /// A file is not the one that the index names.
    #[error("{file} has the digest {found}, but the index says {expected}")]
    Digest {
        /// The file's name.
        file: String,
        /// What the index says.
        expected: Bytes32,
        /// What the file has.
        found: Bytes32,
    },
    /// A file that the index names is missing, or is not an ordinary file.
    #[error("the file {file}, which the index names, is missing or not an ordinary file")]
    NoFile {
        /// The file's name.
        file: String,
    },
    /// Bytes that are not what their key says.
    #[error("this is not {key}: {problem}")]
    Content {
        /// What was expected.
        key: Key,
        /// What is wrong.
        problem: String,
    },
    /// Nobody collected this.
    #[error("the cache has no {key}")]
    Missing {
        /// What was looked up.
        key: Key,
    },
    /// It was collected, and is out of date.
    #[error("{key} was valid until {}, and it is {}", rfc3339(*.valid_until), rfc3339(*.now))]
    Expired {
        /// What was looked up.
        key: Key,
        /// The last second of its validity.
        valid_until: u64,
        /// The time asked for.
        now: u64,
    },
    /// More than the format allows.
    #[error("{what}: {found}, at most {limit} allowed")]
    TooMuch {
        /// What is too long, or too many.
        what: String,
        /// How much it is.
        found: u64,
        /// How much it may be.
        limit: u64,
    },
    /// Nothing that this program knows as collateral, or evidence that does not say what it needs.
    #[error("{what}: {problem}")]
    Unknown {
        /// What was looked at.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl CollateralError {
    pub(crate) fn index(problem: impl Into<String>) -> Self {
        Self::Index { problem: problem.into() }
    }

    pub(crate) fn content(key: &Key, problem: impl Into<String>) -> Self {
        Self::Content { key: key.clone(), problem: problem.into() }
    }

    pub(crate) fn unknown(what: &'static str, problem: impl Into<String>) -> Self {
        Self::Unknown { what, problem: problem.into() }
    }
}

impl Explain for CollateralError {
    fn code(&self) -> &'static str {
        match self {
            Self::Index { .. } => "ATT-370",
            Self::Signer { .. } | Self::Signature { .. } => "ATT-371",
            Self::Digest { .. } | Self::NoFile { .. } => "ATT-372",
            Self::Content { .. } => "ATT-373",
            Self::Missing { .. } => "ATT-374",
            Self::Expired { .. } => "ATT-375",
            Self::TooMuch { .. } => "ATT-376",
            Self::Unknown { .. } => "ATT-377",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Index { .. } => {
                "the folder was made by another program or version, or changed: collect again"
            }
            Self::Signer { .. } => {
                "if this collector may be trusted, name its public key (FILE.pub) as a signer"
            }
            Self::Signature { .. } | Self::Digest { .. } | Self::NoFile { .. } => {
                "the folder was changed or copied in part: copy it whole, or collect again"
            }
            Self::Content { .. } => {
                "the vendor's service or a proxy answered with something else, or the file is \
                 another one: look at it"
            }
            Self::Missing { .. } => {
                "run `flare-cvm collateral fetch` with this evidence where there is a network, and \
                 carry the folder here"
            }
            Self::Expired { .. } => {
                "run `flare-cvm collateral fetch` again; for old evidence, verify at the time when \
                 it was made"
            }
            Self::TooMuch { .. } => "this is probably something else: check the path",
            Self::Unknown { .. } => {
                "check that the file is what the option asks for; `flare-cvm collateral --help` \
                 lists what is understood"
            }
        }
        .into()
    }
}

/// A cache's folder could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// What is in it was refused.
    #[error(transparent)]
    Refused(#[from] CollateralError),
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another program writes to it.
    #[error("another program is writing to {folder}")]
    Busy {
        /// The cache's folder.
        folder: String,
    },
}

impl Explain for CacheError {
    fn code(&self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.code(),
            Self::File(file) => file.code(),
            Self::Busy { .. } => "ATT-378",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Refused(refused) => refused.help(),
            Self::File(file) => file.help(),
            Self::Busy { .. } => "wait until the other `flare-cvm collateral` has ended".into(),
        }
    }
}
