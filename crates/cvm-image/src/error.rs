//! What can go wrong in every step of every build.

use std::{io, path::PathBuf};

use cvm_base::Explain;

/// A tool or the operating system failed.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// A program is missing.
    #[error("{tool} is not installed")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// Its package in Debian and Ubuntu.
        package: &'static str,
    },
    /// A program failed.
    #[error("{tool} failed while {step} ({status}): {output}")]
    Tool {
        /// The program.
        tool: &'static str,
        /// What it was asked to do.
        step: &'static str,
        /// How it ended.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The disk is full.
    #[error("no space is left on the disk while {step}")]
    DiskFull {
        /// What was being done.
        step: String,
    },
}

impl WorkError {
    /// For `map_err` on I/O at `path`.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull => {
                Self::DiskFull { step: format!("trying to {action} {}", path.display()) }
            }
            _ => Self::Io { action, path, source },
        }
    }
}

impl Explain for WorkError {
    fn code(&self) -> &'static str {
        match self {
            Self::MissingTool { .. } => "WORK-001",
            Self::Tool { .. } => "WORK-002",
            Self::Io { .. } => "WORK-003",
            Self::DiskFull { .. } => "WORK-004",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::MissingTool { package, .. } => format!("install it: apt-get install {package}"),
            Self::Tool { tool: "mmdebstrap" | "pip", .. } => {
                "it downloads packages: check the network, the machine's apt and pip \
                 configuration, and run again; nothing was replaced"
                    .into()
            }
            Self::Tool { .. } => {
                "the end of the tool's output is above; nothing was replaced".into()
            }
            Self::Io { .. } => {
                "see the operating system's message above; nothing was replaced".into()
            }
            Self::DiskFull { .. } => {
                "free about three times the system volume there (2 GB for a stage), or choose \
                 another -o (in a tmpfs: mount a larger one, twice the site's volume, and say \
                 --memory-folder); nothing was replaced, and what was built earlier is still \
                 whole"
                    .into()
            }
        }
    }
}
