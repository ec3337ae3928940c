//! The kinds of evidence that this crate verifies.

/// The kinds of evidence that are verified here, as the protocol names them.
pub const KINDS: [&str; 4] = ["snp", "tdx", "az-snp-vtpm", "az-tdx-vtpm"];
