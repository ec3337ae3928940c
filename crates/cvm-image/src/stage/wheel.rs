//! A Python package of this repository, made into a wheel where the stage is built.

use std::path::Path;

use cvm_base::{Bytes32, read_bounded, sha256};

use super::StageError;
use crate::tool::{self, Scratch};

/// Our own wheels of pure Python have a hundredth of this.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Runs the folder's own PEP 517 backend, which needs nothing but Python.
const BUILD: &str = "import sys; sys.path.insert(0, sys.argv[1]); import build_backend; \
    print(build_backend.build_wheel(sys.argv[2]))";

/// A wheel in memory, so that the bytes that are installed are those that the cache's key names.
pub(super) struct Wheel {
    /// `flare_cvm-0.1.0-py3-none-any.whl`
    pub(super) file: String,
    pub(super) bytes: Vec<u8>,
    pub(super) sha256: Bytes32,
    /// Its line of a lock file.
    pub(super) line: String,
}

/// Builds the package in `folder`; the same sources give the same bytes.
pub(super) fn build(folder: &Path) -> Result<Wheel, StageError> {
    let out = Scratch::new()?;
    let mut command = tool::command("python3");
    command.args(["-I", "-B", "-c", BUILD]).arg(folder).arg(out.path());
    let printed = tool::run("python3", "making the wheel of this repository's package", command)?;
    let file = String::from_utf8_lossy(&printed).trim().to_owned();
    let bad = || StageError::Tree {
        path: file.clone(),
        problem: "is not a wheel's file name (python: local)".into(),
    };
    let mut parts = file.split('-');
    let (Some(name), Some(version), true) = (parts.next(), parts.next(), file.ends_with(".whl"))
    else {
        return Err(bad());
    };
    let bytes = read_bounded(&out.join(&file), MAX_BYTES)?;
    let digest = sha256(&bytes);
    let line = format!("{}=={version} --hash=sha256:{digest}", name.replace('_', "-"));
    Ok(Wheel { bytes, sha256: digest, line, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repositorys_package_is_the_same_wheel_each_time() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
        let wheel = build(&folder).unwrap();
        assert_eq!(build(&folder).unwrap().sha256, wheel.sha256);
        assert_eq!(wheel.line, format!("flare-cvm==0.1.0 --hash=sha256:{}", wheel.sha256));
        assert!(wheel.bytes.starts_with(b"PK") && wheel.file.ends_with("-py3-none-any.whl"));
    }

    #[test]
    fn a_folder_that_is_not_a_package_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(build(folder.path()).err().unwrap().to_string().contains("build_backend"));
    }
}
