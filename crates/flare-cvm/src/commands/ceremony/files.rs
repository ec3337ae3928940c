//! Files of a ceremony that several of its steps read.

use std::path::Path;

use anyhow::{Context, Result, bail};
use cvm_base::{Bytes32, read_bounded, sha256};
use cvm_ceremony::{CeremonyError, MAX_BYTES, Signed, Statement};

/// The most bytes of a policy file.
pub(super) const MAX_POLICY: u64 = 64 * 1024;
/// The most bytes of a legal agreement's document.
const MAX_LEGAL: u64 = 64 * 1024 * 1024;

pub(super) fn legal_digest(path: &Path) -> Result<Bytes32> {
    Ok(sha256(&read_bounded(path, MAX_LEGAL)?))
}

/// Refuses a document other than the one that `what` names.
pub(super) fn check_legal(
    path: &Path,
    what: &'static str,
    expected: Option<Bytes32>,
) -> Result<()> {
    let found = legal_digest(path)?;
    if expected == Some(found) {
        return Ok(());
    }
    bail!(CeremonyError::Legal { path: path.display().to_string(), what, expected, found })
}

pub(super) fn statement<S: Statement>(path: &Path) -> Result<Signed<S>> {
    Signed::parse(&read_bounded(path, MAX_BYTES)?).with_context(|| path.display().to_string())
}

pub(super) fn list(items: &[String]) -> String {
    if items.is_empty() { "none".into() } else { items.join(", ") }
}
