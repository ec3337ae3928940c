//! Copying files that anybody may read.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use zeroize::Zeroizing;

use super::KitError;
use crate::{WorkError, stage::secrets};

/// The largest file of a kit.
pub(super) const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Copies a file that anybody may read, after a look for a private key in it. `name` is for the
/// error.
pub(super) fn public_file(from: &Path, to: &Path, name: &str) -> Result<(), KitError> {
    let bytes = Zeroizing::new(cvm_base::read_bounded(from, MAX_FILE_BYTES)?);
    if secrets::holds_private_key(&bytes) {
        return Err(KitError::UnexpectedKey { file: name.into() });
    }
    let metadata = from.metadata().map_err(WorkError::io("look at", from))?;
    let mode = if metadata.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
    Ok(cvm_base::write_atomic(to, &bytes, mode)?)
}
