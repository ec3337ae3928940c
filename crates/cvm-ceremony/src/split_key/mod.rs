//! The split key: public components in the image, one half per party, and a key that only all
//! needed halves together give. Pure: no files, no clock, no network.
//!
//! # Notation and byte encodings
//!
//! G is the X25519 base point (RFC 7748); points and secrets are its 32-byte encodings. HKDF is
//! HKDF-SHA256 (RFC 5869) with 32 bytes of output. `‖` joins bytes; texts are ASCII without a
//! terminator or length. `image_id` is 16 raw bytes, so that every `info` parses from its end.
//!
//! | value | is |
//! |---|---|
//! | `s_i`, `S_i` | party *i*'s secret and its public point `s_i·G` |
//! | `b_i,role` | party *i*'s base key for the role, 32 random bytes |
//! | `e`, `E` | one image's ephemeral secret and its public point `e·G` |
//! | `P_i` | `X25519(e, S_i) = X25519(s_i, E)`; an all-zero result is refused |
//! | `Q_i` | `HKDF(salt = b_i,role; ikm = P_i; info = "flare-cvm/v1/half" ‖ image_id)` |
//! | `R_i` | as `Q_i` with `"flare-cvm/v1/running-half"`: in the place of `Q_i` in the keys of p5 and `state`, where an image requires GPUs |
//! | `W_i` | as `Q_i` with `"flare-cvm/v1/enrolment"`: the build's mark on what may enrol itself, never released |
//! | `T` | SHA-256 of the ceremony's transcript, without its signatures |
//! | `K_purpose` | `HKDF(salt = T; ikm = Q_1 ‖ … ‖ Q_n; info = "flare-cvm/v1/" ‖ purpose ‖ image_id)` |
//!
//! The halves of `K_purpose` are those of the parties that take part in the purpose, in the
//! transcript's order: for `system` the owners that the agreement names, for `state` and `jobs`
//! all parties of the site; a header's MAC key needs whom its area's key needs.
//! (Images whose manifest has version 1 or 2 made the keys of `state` from `system`'s halves.)
//! `tests/vectors/split-key.json` holds vectors and `tests/split_key.py` an independent
//! implementation.
//!
//! # Against faults
//!
//! Every derivation runs twice and the results are compared in constant time: a glitch that skips
//! or bends one computation gives an error, not a key that an attacker can work back from.

mod derive;
mod machine;
mod secret;
mod self_test;

pub use derive::{
    EphemeralBuild, check_public, combine, derive, enrolment_key, half, party_halves,
};
pub use machine::bind;
pub use secret::{
    BaseKey, CombinedKey, EnrolmentKey, Half, MachineSecret, MachineShare, PartySecret,
};
pub use self_test::{SelfTestError, self_test};

use cvm_base::Explain;
use cvm_layout::{manifest::KeyPurpose, names::Name};

/// The most parties that a key may be split among.
pub const MAX_PARTIES: usize = 16;

/// What a key is for; its text goes into the derivation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// Opens p3's first area, `system` and `site`.
    System,
    /// Opens p3's second area, `state`: workspace, logs, the agent's journal.
    State,
    /// Opens p5, the job store.
    Jobs,
    /// Authenticates the LUKS2 header of p3's first area.
    HeaderMacSystem,
    /// Authenticates the LUKS2 header of `state`.
    HeaderMacState,
    /// Authenticates p5's LUKS2 header.
    HeaderMacJobs,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::System,
        Self::State,
        Self::Jobs,
        Self::HeaderMacSystem,
        Self::HeaderMacState,
        Self::HeaderMacJobs,
    ];

    /// The text that goes into the derivation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::State => "state",
            Self::Jobs => "jobs",
            Self::HeaderMacSystem => "header-mac/system",
            Self::HeaderMacState => "header-mac/state",
            Self::HeaderMacJobs => "header-mac/jobs",
        }
    }

    /// Whose halves it needs: those of the parties that the manifest names for this.
    pub fn parties(self) -> KeyPurpose {
        match self {
            Self::System | Self::HeaderMacSystem => KeyPurpose::System,
            // What the data owner's site leaves on a disk opens with nobody's half alone.
            Self::State | Self::HeaderMacState | Self::Jobs | Self::HeaderMacJobs => {
                KeyPurpose::Jobs
            }
        }
    }
}

impl std::fmt::Display for Purpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A half or a key could not be derived. Never says anything about a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitKeyError {
    /// The shared point is zero: the other side's public key is of low order.
    #[error(
        "the X25519 public key {0} is of low order: a key agreed with it is known to everybody"
    )]
    LowOrder(cvm_base::Bytes32),
    /// The same derivation gave two results.
    #[error("the same derivation gave two different results ({0})")]
    Fault(&'static str),
    /// Nothing to combine, or more than [`MAX_PARTIES`].
    #[error("{found} halves for the key of {purpose}: expected 1 to {MAX_PARTIES}")]
    Count {
        /// How many there were.
        found: usize,
        /// What the key was for.
        purpose: Purpose,
    },
    /// A party takes part in the purpose, and its half is not there.
    #[error("the half of party {party} is missing for the key of {purpose}")]
    MissingHalf {
        /// The party.
        party: Name,
        /// What the key was for.
        purpose: Purpose,
    },
    /// The system's random source failed.
    #[error("the system's random source failed: {0}")]
    Random(String),
}

impl Explain for SplitKeyError {
    fn code(&self) -> &'static str {
        match self {
            Self::LowOrder(_) => "CER-101",
            Self::Fault(_) => "CER-102",
            Self::Count { .. } => "CER-103",
            Self::MissingHalf { .. } => "CER-104",
            Self::Random(_) => "CER-105",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::LowOrder(_) => {
                "a public key was replaced by one that cancels the secret: do not \
                use the file it came from"
                    .into()
            }
            Self::Fault(_) => {
                "the processor or its memory made an error, or somebody induced one: \
                no key was made; try other hardware"
                    .into()
            }
            Self::Count { .. } => "name the parties of this purpose in the ceremony (`flare-cvm \
                ceremony show AGREEMENT`)"
                .into(),
            Self::MissingHalf { party, .. } => format!(
                "{party}'s key holder must release its half \
                first: see its audit log for a refusal"
            ),
            Self::Random(_) => "the kernel's getrandom must work: do not run in a sandbox that \
                forbids it"
                .into(),
        }
    }
}
