//! Why a header area is not one of ours.

use cvm_base::{Explain, ReadError};

use crate::format::HEADER_BYTES;

/// Why a header area is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// Not [`HEADER_BYTES`] long.
    #[error("the header area has {found} bytes: expected {HEADER_BYTES}")]
    Length {
        /// Its length in bytes.
        found: usize,
    },
    /// Zeros only: never made, or wiped.
    #[error("the header area is blank")]
    Blank,
    /// A binary header is malformed, or its two copies differ.
    #[error("the LUKS2 header's {what}")]
    Binary {
        /// What is wrong, as the rest of the sentence.
        what: &'static str,
    },
    /// The JSON is malformed, or has members that we never write.
    #[error("the LUKS2 header's JSON is not one that we write: {detail}")]
    Json {
        /// The parser's words, with the place.
        detail: String,
    },
    /// A parameter is not the one we write.
    #[error("the LUKS2 header says {name} = {found}: expected {expected}")]
    Parameter {
        /// Path of the parameter in the JSON.
        name: &'static str,
        /// The only accepted value.
        expected: String,
        /// The value found, at most 80 characters.
        found: String,
    },
    /// There is no seal record: the power failed while the area was being made.
    #[error("the header area carries no seal record")]
    NoRecord,
    /// The MAC is wrong: another key's header, or a changed one.
    #[error("the header area's MAC is wrong")]
    Mac,
}

impl Explain for GuardError {
    fn code(&self) -> &'static str {
        match self {
            Self::Length { .. } => "SEAL-100",
            Self::Blank => "SEAL-101",
            Self::Binary { .. } => "SEAL-102",
            Self::Json { .. } => "SEAL-103",
            Self::Parameter { .. } => "SEAL-104",
            Self::NoRecord => "SEAL-105",
            Self::Mac => "SEAL-106",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Length { .. } => {
                "the partition is smaller than the manifest says: compare the disk with the bundle"
                    .into()
            }
            Self::Blank => {
                "nothing was ever sealed here, or somebody wiped it: restore the disk from the \
                 bundle or a backup"
                    .into()
            }
            Self::NoRecord => "the first boot was interrupted, or somebody wiped the record: \
                restore the disk"
                .into(),
            Self::Binary { .. } | Self::Json { .. } | Self::Parameter { .. } => {
                "the disk is damaged, or somebody replaced the header (CVE-2025-59054, \
                 CVE-2025-58356): do not use this host before you know which"
                    .into()
            }
            Self::Mac => {
                "the header was made for another key or another image, or somebody changed \
                it: do not use this host before you know which"
                    .into()
            }
        }
    }
}

impl From<ReadError> for GuardError {
    /// The reader of the binary headers fails only where they are cut off.
    fn from(_: ReadError) -> Self {
        Self::Binary { what: "area is too short" }
    }
}
