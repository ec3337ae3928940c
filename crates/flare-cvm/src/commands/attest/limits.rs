//! How much is read.

/// More than any piece of evidence or collateral has, in bytes.
pub(super) const MAX_FILE: u64 = cvm_verify::files::MAX_FILE_BYTES as u64;
