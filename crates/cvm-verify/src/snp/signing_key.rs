//! Which key signs a report.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which key signed a report (`KEY_INFO.SIGNING_KEY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SigningKey {
    /// The versioned chip endorsement key: this chip's own.
    Vcek,
    /// The versioned loaded endorsement key: one that AMD gave to a cloud for its machines.
    Vlek,
}

impl fmt::Display for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
        })
    }
}
