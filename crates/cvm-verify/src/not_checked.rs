//! A check that was not made.

use serde::{Deserialize, Serialize};

/// A check that was not made, because what it needs was not given. The claims list it: a
/// verdict is never good because a check was left out silently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotChecked {
    /// Which: `certificate-revocation`, `ocsp`, `nonce`, ….
    pub check: String,
    /// What was missing.
    pub reason: String,
}

impl NotChecked {
    /// A check that was not made, and why.
    pub fn new(check: &str, reason: &str) -> Self {
        Self { check: check.into(), reason: reason.into() }
    }
}
