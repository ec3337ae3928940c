//! Why a guest's device gave no evidence.

use std::io;

use cvm_base::{Explain, FileError};

/// A device gave no evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// No such device exists here.
    #[error("there is no {device}: {problem}")]
    Absent {
        /// The device, or what leads to it.
        device: String,
        /// What the system said.
        problem: String,
    },
    /// The device is there, and refused.
    #[error("{device} refused to {action}: {problem}")]
    Refused {
        /// The device.
        device: String,
        /// What it was asked to do.
        action: &'static str,
        /// What the system or the firmware said.
        problem: String,
    },
    /// The device answered with something else than evidence for what was asked.
    #[error("{device} answered with something unexpected: {problem}")]
    Answer {
        /// The device.
        device: String,
        /// Expected and found.
        problem: String,
    },
    /// Others kept using the device, or it did not answer in the time allowed.
    #[error("{device} gave no answer of ours: {problem}")]
    Busy {
        /// The device.
        device: String,
        /// What happened.
        problem: String,
    },
    /// The recorded evidence is for another challenge.
    #[error("the evidence in {folder} was recorded for report data {recorded}, not for {asked}")]
    Recorded {
        /// The folder.
        folder: String,
        /// What it is bound to, hex.
        recorded: String,
        /// What was asked for, hex.
        asked: String,
    },
    /// A recording cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl CollectError {
    pub(crate) fn refused(
        device: impl Into<String>,
        action: &'static str,
        problem: impl ToString,
    ) -> Self {
        Self::Refused { device: device.into(), action, problem: problem.to_string() }
    }

    pub(crate) fn answer(device: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Answer { device: device.into(), problem: problem.into() }
    }

    /// A device that is not there is `Absent`; every other error is a refusal.
    pub(crate) fn io(device: impl Into<String>, action: &'static str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => {
                Self::Absent { device: device.into(), problem: error.to_string() }
            }
            _ => Self::refused(device, action, error),
        }
    }
}

impl Explain for CollectError {
    fn code(&self) -> &'static str {
        match self {
            Self::Absent { .. } => "ATT-365",
            Self::Refused { .. } => "ATT-366",
            Self::Answer { .. } => "ATT-367",
            Self::Busy { .. } => "ATT-368",
            Self::Recorded { .. } => "ATT-369",
            Self::File(file) => file.code(),
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Absent { .. } => {
                "run inside the CVM, as root, on a host that offers this TEE; mount configfs \
                 (Linux 6.7 and later)"
            }
            Self::Refused { .. } => {
                "run as root; see the kernel's log (dmesg) and the host's: its quote or \
                 certificate service may be down"
            }
            Self::Answer { .. } => "this kernel or firmware is one that this program does not know",
            Self::Busy { .. } => {
                "another program asks for evidence all the time, or the host does not answer: try \
                 again"
            }
            Self::Recorded { .. } => {
                "a recording answers only the challenge that it was made for; ask for a replay to \
                 get it all the same"
            }
            Self::File(file) => return file.help(),
        }
        .into()
    }
}
