//! Why a `docker_archive` is refused.

use cvm_base::Explain;

use crate::WorkError;

/// A `docker_archive` is refused, or could not be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The archive is truncated or changed, or is not an archive.
    #[error("{part} of the docker_archive cannot be read: {problem}")]
    Corrupt {
        /// Which part.
        part: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A digest does not fit.
    #[error("{part} of the docker_archive has the digest {found}, its description says {expected}")]
    Digest {
        /// Which part.
        part: String,
        /// What the archive says.
        expected: String,
        /// What the bytes give.
        found: String,
    },
    /// An entry would lie outside the image, or nowhere.
    #[error("{layer} of the docker_archive: {name:?} {problem}")]
    Path {
        /// The layer.
        layer: String,
        /// The entry.
        name: String,
        /// Why.
        problem: &'static str,
    },
    /// An entry of a kind that a sealed workload cannot have.
    #[error("{layer} of the docker_archive: {name:?} is {kind}")]
    Kind {
        /// The layer.
        layer: String,
        /// The entry.
        name: String,
        /// What it is.
        kind: &'static str,
    },
    /// More comes out of it than fits.
    #[error("the docker_archive does not fit: {0}")]
    TooLarge(String),
    /// The image asks for something that a sealed workload cannot have.
    #[error("the docker_archive's image says {key} {found}: {reason}")]
    Refused {
        /// The key of its configuration.
        key: &'static str,
        /// Its value.
        found: String,
        /// Why a sealed workload cannot have it.
        reason: &'static str,
    },
    /// The operating system failed.
    #[error(transparent)]
    Work(#[from] WorkError),
}

impl Explain for ArchiveError {
    fn code(&self) -> &'static str {
        match self {
            Self::Corrupt { .. } => "DKR-001",
            Self::Digest { .. } => "DKR-002",
            Self::Path { .. } => "DKR-003",
            Self::Kind { .. } => "DKR-004",
            Self::TooLarge(_) => "DKR-005",
            Self::Refused { .. } => "DKR-006",
            Self::Work(error) => error.code(),
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Corrupt { .. } => {
                "make it again: docker save IMAGE | gzip > FILE.tar.gz, with one linux/amd64 image"
                    .into()
            }
            Self::Digest { .. } => {
                "the file was changed or damaged after it was made: make it again, or copy it \
                 again"
                    .into()
            }
            Self::Path { .. } => {
                "`docker save` writes no such path: find out who made this archive".into()
            }
            Self::Kind { .. } => {
                "remove it in the image's Dockerfile: the sealed workload gets its devices from \
                 the guest"
                    .into()
            }
            Self::TooLarge(_) => {
                "make the image smaller, or root_drive_size larger; if you do not know what is in \
                 it, do neither"
                    .into()
            }
            Self::Refused { .. } => {
                "change it in the image's Dockerfile; docs/cc-config.md says what a workload gets"
                    .into()
            }
            Self::Work(error) => error.help(),
        }
    }
}
