//! What of a quote is believed.

use std::collections::BTreeSet;

use serde::Deserialize;

/// What is believed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TpmPolicy {
    /// Whether quotes over the SHA-1 bank are accepted. Default: no.
    pub allow_sha1: bool,
    /// Registers to whose quoted value a log must lead, when one is given. Default: 0 to 7, into
    /// which nothing measures after the firmware closed its log.
    pub must_replay: BTreeSet<u32>,
    /// Registers that a quote must cover, with their values shown. Default: none.
    pub required: BTreeSet<u32>,
}

impl Default for TpmPolicy {
    fn default() -> Self {
        Self { allow_sha1: false, must_replay: (0..=7).collect(), required: BTreeSet::new() }
    }
}
