//! Why a file cannot be used.

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnpackError {
    /// Nothing that is known here.
    Unknown,
    /// Something that is known, but that no verifier here reads.
    Unsupported(&'static str),
}
