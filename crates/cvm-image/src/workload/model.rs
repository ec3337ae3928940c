//! A model: the code and start weights that jobs use without carrying them (NVFLARE calls a job
//! that carries code BYOC, and its CC manager blocks one).
//!
//! In the running site, `code/` is on Python's path after NVFLARE's own packages and the standard
//! library: it can add modules, and replace none. `weights/` is what that code reads.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use cvm_base::interrupt;

use super::WorkloadError;
use crate::{WorkError, tree};

/// The model's folder in the `site` volume, which the guest mounts at `/opt/nvflare/site`.
const MODEL: &str = "model";
/// What a model may consist of.
const PARTS: [&str; 2] = ["code", "weights"];
/// Python's compiled files, which would be stale in the guest.
const BYTECODE: &str = "__pycache__";
/// Deeper folders are a mistake.
const MAX_DEPTH: usize = 32;

/// Copies the folder `model` into the tree of the `site` volume, and nowhere else.
pub fn seal(model: &Path, site: &Path) -> Result<(), WorkloadError> {
    let wrong = |problem| Err(WorkloadError::NotAModel { folder: model.into(), problem });
    if !model.is_dir() {
        return wrong("it is not a folder".into());
    }
    let parts = tree::entries(model)?;
    let stranger =
        parts.iter().find(|path| !PARTS.iter().any(|part| path.file_name() == Some(part.as_ref())));
    if let Some(stranger) = stranger {
        return wrong(format!("{} is neither code/ nor weights/", stranger.display()));
    }
    if let Some(file) = parts.iter().find(|path| !path.is_dir()) {
        return wrong(format!("{} is not a folder", file.display()));
    }
    if parts.is_empty() {
        return wrong("it has neither code/ nor weights/".into());
    }
    copy(model, &site.join(MODEL), 0)
}

fn copy(from: &Path, to: &Path, depth: usize) -> Result<(), WorkloadError> {
    let not_plain = |problem| Err(WorkloadError::NotPlain { path: from.into(), problem });
    interrupt::checkpoint();
    let kind = from.symlink_metadata().map_err(WorkError::io("look at", from))?;
    let mode = if kind.is_file() {
        fs::copy(from, to).map_err(WorkError::io("copy", from))?;
        if kind.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 }
    } else if !kind.is_dir() {
        return not_plain("is neither a plain file nor a folder");
    } else if depth > MAX_DEPTH {
        return not_plain("lies too deep");
    } else {
        fs::create_dir_all(to).map_err(WorkError::io("make", to))?;
        for child in tree::entries(from)? {
            let name = child.file_name().unwrap_or_default();
            if name != BYTECODE {
                copy(&child, &to.join(name), depth + 1)?;
            }
        }
        0o755
    };
    Ok(fs::set_permissions(to, Permissions::from_mode(mode))
        .map_err(WorkError::io("set the mode of", to))?)
}

#[cfg(test)]
mod tests {
    use cvm_base::Explain as _;

    use super::*;

    fn model() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("code/acme/__pycache__")).unwrap();
        fs::create_dir_all(dir.path().join("weights")).unwrap();
        for (path, mode) in [
            ("code/acme/__init__.py", 0o600),
            ("code/acme/__pycache__/x.pyc", 0o644),
            ("code/acme/fast.so", 0o700),
            ("weights/start.npy", 0o4644),
        ] {
            let path = dir.path().join(path);
            fs::write(&path, "x").unwrap();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        dir
    }

    #[test]
    fn code_and_weights_go_to_the_site_volume_readable_and_without_bytecode() {
        let (model, site) = (model(), tempfile::tempdir().unwrap());
        seal(model.path(), site.path()).unwrap();
        let mode =
            |path: &str| site.path().join(path).metadata().unwrap().permissions().mode() & 0o7777;
        for (path, expected) in [
            ("model", 0o755),
            ("model/code/acme", 0o755),
            ("model/code/acme/__init__.py", 0o644),
            ("model/code/acme/fast.so", 0o755),
            ("model/weights/start.npy", 0o644),
        ] {
            assert_eq!(mode(path), expected, "{path}");
        }
        assert!(!site.path().join("model/code/acme/__pycache__").exists());
    }

    #[test]
    fn a_folder_that_is_not_a_model_is_refused() {
        let site = tempfile::tempdir().unwrap();
        let refused = |spoil: &dyn Fn(&Path), code: &str| {
            let model = model();
            spoil(model.path());
            let error = seal(model.path(), site.path()).unwrap_err();
            assert_eq!(error.code(), code, "{error}");
        };
        refused(&|model| fs::write(model.join("readme"), "").unwrap(), "WL-001");
        refused(&|model| fs::remove_dir_all(model).unwrap(), "WL-001");
        refused(
            &|model| {
                PARTS.iter().for_each(|part| fs::remove_dir_all(model.join(part)).unwrap());
            },
            "WL-001",
        );
        refused(
            &|model| {
                fs::remove_dir_all(model.join("weights")).unwrap();
                fs::write(model.join("weights"), "").unwrap();
            },
            "WL-001",
        );
        refused(
            &|model| std::os::unix::fs::symlink("/etc", model.join("code/etc")).unwrap(),
            "WL-002",
        );
        refused(
            &|model| {
                nix::unistd::mkfifo(&model.join("code/pipe"), nix::sys::stat::Mode::S_IRWXU)
                    .unwrap()
            },
            "WL-002",
        );
        refused(
            &|model| {
                fs::create_dir_all(model.join("code").join("d/".repeat(MAX_DEPTH + 2))).unwrap()
            },
            "WL-002",
        );
    }
}
