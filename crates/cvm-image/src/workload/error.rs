//! Why a workload cannot be sealed.

use std::path::PathBuf;

use cvm_base::Explain;

use crate::WorkError;

/// A workload cannot be sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// The folder is not laid out as a model.
    #[error("{folder} is not a model: {problem}", folder = folder.display())]
    NotAModel {
        /// The folder.
        folder: PathBuf,
        /// What is missing, or does not belong there.
        problem: String,
    },
    /// A link, a device, or a folder in too many others.
    #[error("{path} {problem}", path = path.display())]
    NotPlain {
        /// The file.
        path: PathBuf,
        /// What it is.
        problem: &'static str,
    },
    /// The Docker archive is refused.
    #[error(transparent)]
    Archive(#[from] super::docker::ArchiveError),
    /// The operating system failed.
    #[error(transparent)]
    Work(#[from] WorkError),
}

impl Explain for WorkloadError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotAModel { .. } => "WL-001",
            Self::NotPlain { .. } => "WL-002",
            Self::Archive(error) => error.code(),
            Self::Work(error) => error.code(),
        }
    }

    fn help(&self) -> String {
        match self {
            Self::NotAModel { .. } => {
                "a model is a folder with code/ (Python packages), weights/ (files that the code \
                 reads), or both, and nothing else"
                    .into()
            }
            Self::NotPlain { .. } => {
                "a model takes plain files and folders: replace each link by a copy, and leave the \
                 rest out"
                    .into()
            }
            Self::Archive(error) => error.help(),
            Self::Work(error) => error.help(),
        }
    }
}
