//! What a key is for.

use cvm_layout::manifest::KeyPurpose;

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
