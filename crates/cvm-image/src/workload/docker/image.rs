//! An image in memory, and what it is unpacked for.

use std::path::Path;

use cvm_layout::names::{Name, Role};

use super::{documents::RunConfig, layer::Cleared, tree::Tree};

/// The workload's root folder in the `site` volume.
pub(super) const ROOT: &str = "workload/root";

/// What to unpack, where to, and for which site.
pub struct UnpackRequest<'a> {
    /// The archive.
    pub archive: &'a Path,
    /// The tree of the `site` volume.
    pub site: &'a Path,
    /// An empty folder on the same file system.
    pub scratch: &'a Path,
    /// At most this many bytes may come out of the archive.
    pub limit: u64,
    /// The site's role.
    pub role: Role,
    /// The entries of `user_config` beside the kit, and whether each is a folder.
    pub user_config: Vec<(Name, bool)>,
    /// Whether a model is sealed beside it.
    pub model: bool,
    /// Whether the image requires GPUs.
    pub gpus: bool,
}

/// An image whose layers are applied.
pub(super) struct LayeredImage {
    pub(super) tree: Tree,
    pub(super) run: RunConfig,
    pub(super) cleared: Cleared,
    /// How many layers it had.
    pub(super) layers: usize,
}
