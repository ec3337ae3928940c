//! `stage.yaml`: what a stage is made of.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{StageError, check::Check, edits::parse_mode};

/// More than any `stage.yaml` needs.
const MAX_BYTES: u64 = 64 * 1024;

/// A stage as its `stage.yaml` describes it. Paths are the guest's and absolute; `*`, `?`, `[…]`
/// and `**` match as in a shell.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageSpec {
    /// Always 1.
    pub version: u32,
    /// The stage's name, which is also its folder's.
    pub stage: String,
    /// The file name of its image, which goes into the stage's folder by default.
    pub image: String,
    /// The stage it builds on; without one it starts from a distribution.
    #[serde(default)]
    pub base: Option<String>,
    /// The distribution, where there is no base.
    #[serde(default)]
    pub profile: Option<String>,
    /// Packages of the distribution; their dependencies are unpacked too.
    #[serde(default)]
    pub packages: Vec<String>,
    /// What to delete after unpacking.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Folder → the only entries that stay in it.
    #[serde(default)]
    pub keep_only: BTreeMap<String, Vec<String>>,
    /// Folder → settings that are removed from every unit in it.
    #[serde(default)]
    pub without_settings: BTreeMap<String, Vec<String>>,
    /// Kernel modules for the initramfs: folders or files below the kernel's module folder.
    #[serde(default)]
    pub boot_modules: Vec<String>,
    /// Kernel modules of the running system, by name.
    #[serde(default)]
    pub system_modules: Vec<String>,
    /// This repository's programs: file name in the programs' folder → place in the guest.
    #[serde(default)]
    pub programs: BTreeMap<String, String>,
    /// A Python environment.
    #[serde(default)]
    pub python: Option<PythonSpec>,
    /// Folders to make.
    #[serde(default)]
    pub directories: Vec<String>,
    /// Path → permission in octal, where it is not 0644 or 0755.
    #[serde(default)]
    pub modes: BTreeMap<String, String>,
    /// Which checks the finished tree must pass.
    #[serde(default)]
    pub gate: Vec<Check>,
    /// Whether the system volume gets its verity tree: images are provisioned from such a stage.
    #[serde(default)]
    pub verity: bool,
}

/// A hash-locked Python environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PythonSpec {
    /// Where it lies in the guest.
    pub venv: String,
    /// The lock file beside `stage.yaml`: `name==version --hash=sha256:…` for every wheel,
    /// including pip's.
    pub lock: PathBuf,
    /// The folder of a package of this repository, relative to the folder of `stage.yaml`. The
    /// wheel that its `build_backend.py` makes is installed too.
    #[serde(default)]
    pub local: Option<PathBuf>,
    /// What to delete from its site-packages.
    #[serde(default)]
    pub remove: Vec<String>,
}

impl StageSpec {
    /// Reads `FOLDER/stage.yaml`; an unknown key is an error that names it.
    pub fn read(folder: &Path) -> Result<Self, StageError> {
        let path = folder.join("stage.yaml");
        let bytes = cvm_base::read_text(&path, MAX_BYTES)?;
        let fail = |problem: String| StageError::Spec { path: path.clone(), problem };
        let spec: Self = serde_yaml::from_slice(&bytes).map_err(|e| fail(e.to_string()))?;
        spec.check().map_err(fail)?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), String> {
        if self.version != 1 {
            return Err(format!("version {} is not supported, expected 1", self.version));
        }
        if self.stage.is_empty()
            || self.stage.bytes().any(|b| !b.is_ascii_alphanumeric() && b != b'_')
        {
            return Err(format!(
                "stage: {:?} is not a name of letters, digits and '_'",
                self.stage
            ));
        }
        if !self.image.ends_with(".qcow2") || self.image.contains('/') {
            return Err(format!("image: {:?} is not a file name that ends in .qcow2", self.image));
        }
        if self.base.is_some() == self.profile.is_some() {
            return Err("exactly one of `base` and `profile` is needed".into());
        }
        if self.base.is_some() && !(self.packages.is_empty() && self.boot_modules.is_empty()) {
            return Err("`packages` and `boot_modules` belong to a stage with a profile".into());
        }
        let places = self.python.iter().map(|python| &python.venv).chain(self.programs.values());
        let folders =
            self.keep_only.keys().chain(self.without_settings.keys()).chain(&self.directories);
        for path in self.remove.iter().chain(folders).chain(self.modes.keys()).chain(places) {
            if !path.starts_with('/')
                || Path::new(path).components().any(|c| c == Component::ParentDir)
            {
                return Err(format!("{path:?} is not an absolute path without '..'"));
            }
        }
        for (name, place) in &self.programs {
            check_program(name, place)?;
        }
        for (path, mode) in &self.modes {
            parse_mode(mode).ok_or_else(|| {
                format!("modes: {path}: {mode:?} is not an octal permission up to 0777")
            })?;
        }
        Ok(())
    }

    /// Whether the stage leaves its base's tree as it is.
    pub fn changes_nothing(&self, has_overlay: bool) -> bool {
        self.base.is_some()
            && !has_overlay
            && self.programs.is_empty()
            && self.python.is_none()
            && self.system_modules.is_empty()
            && self.remove.is_empty()
            && self.keep_only.is_empty()
            && self.without_settings.is_empty()
            && self.directories.is_empty()
            && self.modes.is_empty()
    }
}

/// What `stage.yaml` may say of a program: a file's name, and its place in the guest.
fn check_program(name: &str, place: &str) -> Result<(), String> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) if !place.ends_with('/') => Ok(()),
        _ => Err(format!(
            "programs: {name:?}: {place:?}: expected a file name and its place in the guest"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<StageSpec, StageError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("stage.yaml"), text).unwrap();
        StageSpec::read(dir.path())
    }

    const GOOD: &str = "version: 1\nstage: a\nimage: a.qcow2\nprofile: debian-12\n";

    #[test]
    fn the_repositorys_own_stages_are_understood() {
        let stages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../stages");
        for name in ["nvidia_cc_base", "nvflare_cc_base", "provision_build"] {
            assert_eq!(StageSpec::read(&stages.join(name)).unwrap().stage, name);
        }
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = read(&format!("{GOOD}pakages: [x]\n")).unwrap_err().to_string();
        assert!(error.contains("pakages") && error.contains("stage.yaml"), "{error}");
    }

    #[test]
    fn nonsense_is_refused() {
        read(GOOD).unwrap();
        for (bad, word) in [
            ("version: 2\nstage: a\nimage: a.qcow2\nprofile: debian-12\n", "version 2"),
            ("version: 1\nstage: a\nimage: a.qcow2\n", "exactly one"),
            ("version: 1\nstage: a/b\nimage: a.qcow2\nprofile: debian-12\n", "not a name"),
            ("version: 1\nstage: a\nimage: a.qcow2\nprofile: p\nremove: [/../etc]\n", "'..'"),
            ("version: 1\nstage: a\nimage: a.qcow2\nprofile: p\nmodes: {/x: '4755'}\n", "octal"),
            (
                "version: 1\nstage: a\nimage: a.qcow2\nprofile: p\nprograms: {../x: /usr/x}\n",
                "../x",
            ),
            ("version: 1\nstage: a\nimage: a.qcow2\nprofile: p\nprograms: {x: usr/x}\n", "usr/x"),
            (
                "version: 1\nstage: a\nimage: a.qcow2\nprofile: p\ngate: [no-such-check]\n",
                "no-such-check",
            ),
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains(word), "{error} should say {word}");
        }
    }
}
