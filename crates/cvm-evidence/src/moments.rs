//! What the guest measures of its own boot: the handoff, and the opening of the job store.
//!
//! Each is one event in a register. A quote then shows which moments of a boot are over, and key
//! holders release no half whose moment has passed.

use cvm_base::{Bytes, Bytes32, sha256};

use crate::rtmr::{Bytes48, sha384};

/// What `cvm-init` measures into PCR 11 before it hands off: SHA-256 of this text.
pub const HANDOFF_EVENT: &str = "flare-cvm:handoff";
/// What the running system of an image that requires GPUs measures once p5 is open: SHA-256 of
/// this text into PCR 15, or its SHA-384 into a TD's RTMR3.
pub const JOBS_EVENT: &str = "flare-cvm:jobs";
/// The register for it. No predicted value of an image is in it.
pub const JOBS_PCR: u8 = 15;
/// A PCR that nobody has extended since the machine started.
pub const UNTOUCHED: Bytes32 = Bytes([0; 32]);

/// The digest that `cvm-init` extends into PCR 11 before it hands off.
///
/// From then on a quote shows that boot is over, and no key holder answers it (invariant 6).
pub fn handoff_digest() -> Bytes32 {
    sha256(HANDOFF_EVENT.as_bytes())
}

/// The same for a TD, extended into RTMR3: SHA-384 of the text.
pub fn td_handoff_digest() -> Bytes48 {
    sha384(HANDOFF_EVENT.as_bytes())
}

/// The digest that is extended into PCR 15 once p5 is open.
///
/// From then on a quote shows that p5's half was used, and no key holder releases it again to
/// this boot.
pub fn jobs_digest() -> Bytes32 {
    sha256(JOBS_EVENT.as_bytes())
}

/// The same for a TD, extended into RTMR3 after the handoff.
pub fn td_jobs_digest() -> Bytes48 {
    sha384(JOBS_EVENT.as_bytes())
}
