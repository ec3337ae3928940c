//! Why a folder of secrets could not be made, opened or used.

use cvm_base::{Explain, FileError};
use cvm_ceremony::{CeremonyError, split_key::SplitKeyError};
use cvm_layout::names::{Name, Role};

/// A folder of secrets could not be made, opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CustodyError {
    /// A document of the ceremony was refused, or could not be made.
    #[error(transparent)]
    Ceremony(#[from] CeremonyError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A secrets file did not open.
    #[error("cannot open {path}: {reason}")]
    Locked {
        /// The file.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// A folder's files do not belong together.
    #[error("{path} does not belong to {statement}: {field} differs")]
    Mismatch {
        /// The file that differs.
        path: String,
        /// The public statement.
        statement: String,
        /// In what they differ.
        field: &'static str,
    },
    /// Secrets are never overwritten.
    #[error("{0} exists")]
    Exists(String),
    /// The key holder's certificate could not be made.
    #[error("cannot make the key holder's certificate: {0}")]
    Certificate(String),
    /// A party's contribution to this build was made before.
    #[error("the contribution for the {role} images of build {build} was made before: {path}")]
    Contributed {
        /// The build.
        build: Name,
        /// The images' role.
        role: Role,
        /// The copy that was kept.
        path: String,
    },
    /// A build's name was used for a site before.
    #[error("the image of site {site} was sealed in build {build} before ({path})")]
    BuildUsed {
        /// The build.
        build: Name,
        /// The site.
        site: Name,
        /// The builder's record.
        path: String,
    },
}

impl From<SplitKeyError> for CustodyError {
    fn from(error: SplitKeyError) -> Self {
        Self::Ceremony(error.into())
    }
}

impl Explain for CustodyError {
    fn code(&self) -> &'static str {
        match self {
            Self::Ceremony(error) => error.code(),
            Self::File(error) => error.code(),
            Self::Locked { .. } => "CER-020",
            Self::Mismatch { .. } => "CER-021",
            Self::Exists(_) => "CER-022",
            Self::Certificate(_) => "CER-023",
            Self::Contributed { .. } => "CER-033",
            Self::BuildUsed { .. } => "CER-034",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Ceremony(error) => error.help(),
            Self::File(error) => error.help(),
            Self::Locked { .. } => "give the unlock key or passphrase that this folder was made \
                with"
                .into(),
            Self::Mismatch { .. } => {
                "files of two folders were mixed: restore the folder from its backup".into()
            }
            Self::Exists(_) => "secrets are never overwritten: choose another folder, or move the \
                old one away yourself"
                .into(),
            Self::Certificate(_) => "check the key holder's URL".into(),
            Self::Contributed { path, .. } => format!(
                "send the builder {path} again if it was lost; for another build, choose a new \
                 name with --build"
            ),
            Self::BuildUsed { .. } => {
                "a build's name serves once for a site: choose another, and ask the parties to \
                 contribute to it. A build that failed used up no name"
                    .into()
            }
        }
    }
}
