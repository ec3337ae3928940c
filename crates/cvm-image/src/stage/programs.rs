//! This repository's own programs in a stage's tree.

use std::{
    fs,
    path::{Path, PathBuf},
};

use cvm_base::{Bytes32, read_bounded, sha256};

use super::{StageError, edits, spec::StageSpec};
use crate::{WorkError, tree};

/// A release build of a program has a tenth of this.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// A program in memory, so that the bytes that are installed are those that the cache's key names.
pub(super) struct Program {
    pub(super) name: String,
    pub(super) sha256: Bytes32,
    place: String,
    bytes: Vec<u8>,
}

/// Reads a stage's programs from `folder`.
pub(super) fn read(spec: &StageSpec, folder: &Path) -> Result<Vec<Program>, StageError> {
    let program = |(name, place): (&String, &String)| {
        let path = folder.join(name);
        if !path.is_file() {
            let (stage, folder) = (spec.stage.clone(), folder.to_owned());
            return Err(StageError::Program { stage, name: name.clone(), folder });
        }
        let bytes = read_bounded(&path, MAX_BYTES)?;
        Ok(Program { name: name.clone(), sha256: sha256(&bytes), place: place.clone(), bytes })
    };
    spec.programs.iter().map(program).collect()
}

/// Puts the programs at their places.
pub(super) fn install(programs: &[Program], tree: &Path) -> Result<(), StageError> {
    for program in programs {
        let path = tree::inside(tree, &program.place);
        let folder: PathBuf = Path::new(&program.place).parent().unwrap_or(Path::new("/")).into();
        edits::finish(tree, &[folder.to_string_lossy().into_owned()], &Default::default())?;
        fs::write(&path, &program.bytes).map_err(WorkError::io("write", &path))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, mode).map_err(WorkError::io("set the mode of", &path))?;
    }
    Ok(())
}
