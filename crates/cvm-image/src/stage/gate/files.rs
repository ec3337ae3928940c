//! What the checks ask of a tree's files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::tree;

pub(super) fn read(tree: &Path, path: &str) -> Result<String, String> {
    fs::read_to_string(tree::inside(tree, path)).map_err(|e| format!("{path} cannot be read: {e}"))
}

pub(super) fn exists(tree: &Path, path: &str) -> bool {
    tree::inside(tree, path).symlink_metadata().is_ok()
}

/// The names in a folder of the guest; none where there is no such folder.
pub(super) fn list(tree: &Path, folder: &str) -> Result<Vec<PathBuf>, String> {
    tree::entries(&tree::inside(tree, folder)).map_err(|e| e.to_string())
}

/// The last part of a path.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
