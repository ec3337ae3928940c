//! What a site adds to p4 besides its kit: entries of `user_config`, and policies.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    KitError,
    copy::{MAX_FILE_BYTES, public_file},
};
use crate::{WorkError, tree};

/// Deeper folders are a mistake.
const MAX_DEPTH: usize = 32;

/// A file or a folder for p4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// Where it goes, relative to p4's root, such as `user_config/NAME`.
    pub place: PathBuf,
    /// Where it comes from.
    pub source: PathBuf,
}

/// Copies everything. Links, devices and private keys are errors, because anybody can read p4.
pub(super) fn copy(extras: &[Extra], config: &Path) -> Result<(), KitError> {
    for extra in extras {
        let target = config.join(&extra.place);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(WorkError::io("make", parent))?;
        }
        // The user may name a link; what is inside must be plain.
        let source =
            fs::canonicalize(&extra.source).map_err(WorkError::io("read", &extra.source))?;
        entry(&source, &target, 0)?;
    }
    Ok(())
}

fn entry(source: &Path, target: &Path, depth: usize) -> Result<(), KitError> {
    let refuse =
        |problem: &str| KitError::NotPlain { path: source.into(), problem: problem.into() };
    let metadata = source.symlink_metadata().map_err(WorkError::io("look at", source))?;
    if metadata.is_file() {
        if metadata.len() > MAX_FILE_BYTES {
            return Err(refuse(
                "is longer than the 64 MiB that a file of the configuration may have",
            ));
        }
        return public_file(source, target, &source.display().to_string());
    }
    if !metadata.is_dir() {
        return Err(refuse("is neither a plain file nor a folder"));
    }
    if depth > MAX_DEPTH {
        return Err(refuse("lies too deep"));
    }
    fs::create_dir_all(target).map_err(WorkError::io("make", target))?;
    for child in tree::entries(source)? {
        entry(&child, &target.join(child.file_name().unwrap_or_default()), depth + 1)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cvm_base::Explain as _;

    use super::*;

    #[test]
    fn plain_files_are_copied_and_everything_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let [source, config] = ["source", "config"].map(|name| dir.path().join(name));
        fs::create_dir_all(source.join("a")).unwrap();
        fs::write(source.join("a/one.json"), "{}").unwrap();
        let extra =
            |source: &Path| [Extra { place: "user_config/mine".into(), source: source.into() }];
        copy(&extra(&source), &config).unwrap();
        assert_eq!(fs::read_to_string(config.join("user_config/mine/a/one.json")).unwrap(), "{}");
        copy(
            &[Extra { place: "policies/self.rego".into(), source: source.join("a/one.json") }],
            &config,
        )
        .unwrap();
        assert!(config.join("policies/self.rego").is_file());

        let link = source.join("a/link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert_eq!(copy(&extra(&source), &config).unwrap_err().code(), "KIT-009");
        fs::remove_file(&link).unwrap();
        nix::unistd::mkfifo(&source.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(copy(&extra(&source), &config).unwrap_err().code(), "KIT-009");
        fs::remove_file(source.join("pipe")).unwrap();
        let key = "MC4CAQAwBQYDK2VwBCIEIFiDq2f0PJ0x3T9NVvCbM8yQJc1vJbWd0i0V5dYt0hXk";
        fs::write(
            source.join("id"),
            format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n"),
        )
        .unwrap();
        assert_eq!(copy(&extra(&source), &config).unwrap_err().code(), "KIT-005");
        assert_eq!(
            copy(&extra(Path::new("/nonexistent")), &config).unwrap_err().code(),
            "WORK-003"
        );
    }
}
