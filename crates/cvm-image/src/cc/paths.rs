//! What a path in a `cc_config` is relative to.
//!
//! NVFLARE's packager copies the file to a temporary folder before it calls us, so the file's own
//! folder says nothing. One rule holds everywhere: a path is absolute, or starts with `~/` as in
//! NVFLARE's guide, or is relative to `flare_cvm.base_dir`, or else to `$FLARE_CVM_BASE_DIR`.
//! Without either, a relative path is refused rather than looked for where the program happens to
//! run.

use std::path::{Component, Path, PathBuf};

use super::{
    CcConfigError,
    section::{Item, cut},
};

/// The environment variable for files that do not say `flare_cvm.base_dir`.
pub const BASE_DIR_VARIABLE: &str = "FLARE_CVM_BASE_DIR";

/// What a file's paths can be relative to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// What `~/` stands for.
    pub home: Option<PathBuf>,
    /// Where the file names no base folder of its own; absolute.
    pub base_dir: Option<PathBuf>,
}

impl Surroundings {
    /// From the environment: `HOME` and [`BASE_DIR_VARIABLE`], the latter relative to the working
    /// folder.
    pub fn of_process() -> Self {
        let folder =
            |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base_dir = folder(BASE_DIR_VARIABLE).and_then(|path| std::path::absolute(path).ok());
        Self { home: folder("HOME").filter(|home| home.is_absolute()), base_dir }
    }

    /// The same with a file's own base folder, which must not be relative itself.
    pub(super) fn with_base(&self, base: Option<Item>) -> Result<Self, CcConfigError> {
        let Some(item) = base else { return Ok(self.clone()) };
        let alone = Self { home: self.home.clone(), base_dir: None };
        Ok(Self { base_dir: Some(alone.resolve(item)?), home: alone.home })
    }

    /// A path, absolute and without `.` and needless slashes.
    pub(super) fn resolve(&self, item: Item) -> Result<PathBuf, CcConfigError> {
        let key = item.key.clone();
        let text = item.text("a path")?;
        let relative = |text: &str| CcConfigError::RelativePath {
            key: key.clone(),
            found: cut(text),
            variable: BASE_DIR_VARIABLE,
        };
        let path = match text.strip_prefix("~/") {
            Some(rest) => self.home.as_ref().ok_or_else(|| relative(&text))?.join(rest),
            None if Path::new(&text).is_absolute() => PathBuf::from(&text),
            None => self.base_dir.as_ref().ok_or_else(|| relative(&text))?.join(&text),
        };
        Ok(path.components().filter(|part| !matches!(part, Component::CurDir)).collect())
    }
}
