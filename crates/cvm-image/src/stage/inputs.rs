//! What a stage's image is made of: what is installed, and the digest of all of it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use cvm_base::{Bytes32, sha256};
use serde::Serialize;

use super::{
    Profile, StageError, StageImage, StageSpec,
    driver::Driver,
    programs::{self, Program},
    wheel::{self, Wheel},
};
use crate::{WorkError, tool, tree};

/// Incremented when the same inputs give another tree, or a tree that the gate now refuses: older
/// images are then built anew.
const RECIPE: u32 = 2;
/// More than any lock file needs.
const MAX_LOCK_BYTES: u64 = 1024 * 1024;

/// What is installed besides the distribution's packages. It is read once, before the cache's key
/// is computed.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) lock: String,
    pub(super) wheel: Option<Wheel>,
    pub(super) programs: Vec<Program>,
    pub(super) driver: Option<Driver>,
}

impl Sources {
    pub(super) fn read(
        stage_dir: &Path,
        programs: &Path,
        spec: &StageSpec,
        profile: Profile,
    ) -> Result<Self, StageError> {
        let programs = programs::read(spec, programs)?;
        let addition = profile.addition.filter(|_| spec.base.is_none());
        let driver = addition.map(|folder| Driver::read(stage_dir.join(folder))).transpose()?;
        let Some(python) = &spec.python else {
            return Ok(Self { programs, driver, ..Self::default() });
        };
        let lock = cvm_base::read_bounded(&stage_dir.join(&python.lock), MAX_LOCK_BYTES)?;
        let local = python.local.as_ref().map(|folder| wheel::build(&stage_dir.join(folder)));
        Ok(Self {
            lock: String::from_utf8_lossy(&lock).into_owned(),
            wheel: local.transpose()?,
            programs,
            driver,
        })
    }
}

/// Everything that decides what a stage's image is, except the packages that the mirror offers
/// today.
#[derive(Serialize)]
pub(super) struct Inputs {
    recipe: u32,
    spec: Bytes32,
    lock: Bytes32,
    wheel: Option<Bytes32>,
    programs: Vec<(String, Bytes32)>,
    overlay: Overlay,
    profile: &'static str,
    base: Option<Bytes32>,
    tools: Vec<String>,
    /// The digest of the driver's `driver.yaml`, and its overlay. Left out where there is none: an
    /// image without a driver keeps its digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<(Bytes32, Overlay)>,
}

/// Each file of an overlay: its path, its kind with the executable bit, and its content's digest.
type Overlay = Vec<(PathBuf, u32, Bytes32)>;

impl Inputs {
    pub(super) fn gather(
        stage_dir: &Path,
        profile: Profile,
        base: Option<&StageImage>,
        sources: &Sources,
    ) -> Result<Self, StageError> {
        let files = files_of(&stage_dir.join("rootfs"))?;
        let driver = sources
            .driver
            .as_ref()
            .map(|driver| Ok::<_, StageError>((driver.sha256, files_of(&driver.overlay())?)));
        let spec = stage_dir.join("stage.yaml");
        let spec = sha256(&fs::read(&spec).map_err(WorkError::io("read", &spec))?);
        let tools = ["mmdebstrap", "mkfs.erofs"]
            .into_iter()
            .map(tool::version)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            recipe: RECIPE,
            spec,
            lock: sha256(sources.lock.as_bytes()),
            wheel: sources.wheel.as_ref().map(|wheel| wheel.sha256),
            programs: sources
                .programs
                .iter()
                .map(|program| (program.name.clone(), program.sha256))
                .collect(),
            overlay: files,
            profile: profile.name,
            base: base.map(|base| base.meta.content_sha256),
            tools,
            driver: driver.transpose()?,
        })
    }

    /// The cache's key.
    pub(super) fn digest(&self) -> Bytes32 {
        // Serialising plain data into memory cannot fail; an empty text would only miss the cache.
        sha256(&serde_json::to_vec(self).unwrap_or_default())
    }
}

/// The files of an overlay.
fn files_of(root: &Path) -> Result<Overlay, StageError> {
    let mut overlay = Vec::new();
    tree::walk(root, &mut |path, metadata| {
        let content = if metadata.is_symlink() {
            let target = fs::read_link(path).map_err(WorkError::io("read the link", path))?;
            target.to_string_lossy().into_owned().into_bytes()
        } else if metadata.is_file() {
            fs::read(path).map_err(WorkError::io("read", path))?
        } else {
            vec![]
        };
        // The kind and the executable bit: what the overlay keeps of a mode.
        let mode = metadata.mode() & 0o170_100;
        overlay.push((path.strip_prefix(root).unwrap_or(path).to_owned(), mode, sha256(&content)));
        Ok(())
    })?;
    Ok(overlay)
}
