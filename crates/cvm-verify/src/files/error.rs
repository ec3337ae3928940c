//! Why a file is of no use.

/// Why a file is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnpackError {
    /// Nothing that is known here.
    Unknown,
    /// Something that is known, and that no verifier here reads.
    Unsupported(&'static str),
}
