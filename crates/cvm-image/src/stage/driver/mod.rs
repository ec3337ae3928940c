//! NVIDIA's driver in the first stage: an addition that a profile switches on, in a folder of its
//! own.
//!
//! The stage without it stays as it is, to the byte: nothing of the addition is in its
//! `stage.yaml`. Modules are built for the image's kernel in a root that is thrown away with its
//! compiler, and signed with a key that lives no longer ([`Signer`]). Each file that goes into the
//! tree is named, so that no package of the driver adds anything else.

mod signing;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use cvm_base::{Bytes32, sha256};
use serde::{Deserialize, Serialize};

use super::{Profile, StageError, StageSpec, check::Check, edits, profile::Beside};
use crate::{WorkError, tool, tree::inside};

pub(super) use signing::MARK;
use signing::Signer;

/// More than any `driver.yaml` needs.
const MAX_BYTES: u64 = 64 * 1024;
/// In `driver.yaml`: the kernel's release, as `uname -r` says it.
const KERNEL: &str = "@KERNEL@";

/// The driver of an image, as its `stage.json` describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuiltDriver {
    /// Its kernel modules, by name.
    pub modules: Vec<String>,
    /// SHA-256 of the certificate that their signatures need in a bundle's `db`.
    pub signer_sha256: Bytes32,
}

impl BuiltDriver {
    /// The certificate's file (DER) in the `stage` partition.
    pub const SIGNER: &'static str = "module-signer.der";
}

/// `driver.yaml`. Paths are absolute, in the driver's packages and in the guest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DriverSpec {
    /// 1.
    version: u32,
    /// Where the driver's packages are, on the mirror of the profile's own suite.
    suite: String,
    components: Vec<String>,
    /// The driver's packages: unpacked without what they depend on, beside the compiler.
    driver: Vec<String>,
    /// What builds its modules, with all that it depends on.
    toolchain: Vec<String>,
    /// The folder of the modules' source: a pattern with one match, as all below.
    source: String,
    modules: Vec<String>,
    /// Further files of the driver's packages for the guest, each at its own place or in the folder
    /// `to`.
    files: Vec<DriverFile>,
    /// What the driver adds to the stage's own: packages, modules of the kernel, checks.
    packages: Vec<String>,
    system_modules: Vec<String>,
    gate: Vec<Check>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DriverFile {
    from: String,
    #[serde(default)]
    to: Option<String>,
}

/// An addition, read and not yet built.
pub(super) struct Driver {
    spec: DriverSpec,
    folder: PathBuf,
    pub(super) sha256: Bytes32,
}

impl Driver {
    /// Reads `driver.yaml` in `folder`.
    pub(super) fn read(folder: PathBuf) -> Result<Self, StageError> {
        let path = folder.join("driver.yaml");
        let bytes = cvm_base::read_bounded(&path, MAX_BYTES)?;
        let fail = |problem: String| StageError::Spec { path: path.clone(), problem };
        let spec: DriverSpec = serde_yaml::from_slice(&bytes).map_err(|e| fail(e.to_string()))?;
        if spec.version != 1 {
            return Err(fail(format!("version {} is not supported, expected 1", spec.version)));
        }
        let places =
            spec.files.iter().flat_map(|file| [Some(&file.from), file.to.as_ref()]).flatten();
        if let Some(path) =
            places.chain([&spec.source]).find(|path| !path.starts_with('/') || path.contains(".."))
        {
            return Err(fail(format!("{path:?} is not an absolute path without '..'")));
        }
        Ok(Self { spec, folder, sha256: sha256(&bytes) })
    }

    /// Its overlay.
    pub(super) fn overlay(&self) -> PathBuf {
        self.folder.join("rootfs")
    }

    /// The stage with what the driver asks of it.
    pub(super) fn extend(&self, stage: &mut StageSpec) {
        stage.packages.extend(self.spec.packages.clone());
        stage
            .system_modules
            .extend(self.spec.system_modules.iter().chain(&self.spec.modules).cloned());
        stage.gate.extend(self.spec.gate.clone());
    }

    /// Puts the driver into `tree`, its modules built for the one kernel there and signed, and the
    /// signer's certificate into `files`. Gives what was built, and the names of its packages.
    pub(super) fn install(
        &self,
        profile: Profile,
        release: &str,
        tree: &Path,
        files: &Path,
        work: &Path,
    ) -> Result<(BuiltDriver, Vec<String>), StageError> {
        let spec = &self.spec;
        let root = work.join("driver-root");
        let toolchain: Vec<_> =
            spec.toolchain.iter().map(|name| name.replace(KERNEL, release)).collect();
        let beside = Beside {
            packages: &spec.driver,
            suite: &spec.suite,
            components: spec.components.join(" "),
        };
        let packages = profile.unpack_beside(&toolchain, &beside, &root, work)?;
        let driver = root.join(Beside::FOLDER);

        let source = one(&driver, &spec.source)?;
        make(&root, &source, release, &spec.modules)?;
        let signer = Signer::generate()?;
        let updates = format!("/usr/lib/modules/{release}/updates");
        edits::finish(tree, std::slice::from_ref(&updates), &Default::default())?;
        for module in &spec.modules {
            let place = inside(tree, &updates).join(format!("{module}.ko"));
            let signed = signer.sign(&source.join(format!("{module}.ko")))?;
            fs::write(&place, signed).map_err(WorkError::io("write", &place))?;
        }
        let place = files.join(BuiltDriver::SIGNER);
        fs::write(&place, signer.certificate()).map_err(WorkError::io("write", &place))?;
        for file in &spec.files {
            copy(&driver, file, tree)?;
        }
        let built = BuiltDriver {
            modules: spec.modules.clone(),
            signer_sha256: sha256(signer.certificate()),
        };
        fs::remove_dir_all(&root).map_err(WorkError::io("remove", &root))?;
        Ok((built, packages))
    }
}

/// Builds the modules and strips their debugging information. Nothing of this machine but its
/// processors takes part.
fn make(root: &Path, source: &Path, release: &str, modules: &[String]) -> Result<(), StageError> {
    let inner = Path::new("/").join(source.strip_prefix(root).unwrap_or(source));
    // The packages are unpacked and not installed, so the link of the alternative is missing.
    let awk = root.join("usr/bin/awk");
    symlink("mawk", &awk).map_err(WorkError::io("make the link", &awk))?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut command = tool::command("chroot");
    command.env("PATH", "/usr/sbin:/usr/bin");
    // What the kernel's makefiles would take from this machine's clock, user and name.
    command.env("KBUILD_BUILD_TIMESTAMP", "1980-01-01").env("KBUILD_BUILD_USER", "flare-cvm");
    command.env("KBUILD_BUILD_HOST", "flare-cvm").arg(root);
    command.args(["make", "-s", "-C"]).arg(&inner).arg(format!("-j{jobs}"));
    command
        .arg(format!("KERNEL_UNAME={release}"))
        .arg(format!("NV_KERNEL_MODULES={}", modules.join(" ")));
    // No types for BPF: the image lets nobody load BPF programs.
    command.args(["CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]);
    tool::run("chroot", "building the driver's modules", command)?;

    let mut command = tool::command("chroot");
    command.env("PATH", "/usr/sbin:/usr/bin").arg(root).args(["strip", "--strip-debug"]);
    command.args(modules.iter().map(|module| inner.join(format!("{module}.ko"))));
    tool::run("chroot", "stripping the driver's modules", command)?;
    Ok(())
}

fn copy(driver: &Path, file: &DriverFile, tree: &Path) -> Result<(), StageError> {
    let from = one(driver, &file.from)?;
    let name = from.file_name().unwrap_or_default();
    let place = match &file.to {
        Some(folder) => Path::new(folder).join(name),
        None => Path::new("/").join(from.strip_prefix(driver).unwrap_or(&from)),
    };
    let folder = place.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
    edits::finish(tree, &[folder], &Default::default())?;
    let to = inside(tree, &place.to_string_lossy());
    // A library's name is a link to its version: the guest gets the file under that name.
    fs::copy(&from, &to).map_err(WorkError::io("copy", &from))?;
    Ok(())
}

/// The one match of a pattern below `folder`.
fn one(folder: &Path, pattern: &str) -> Result<PathBuf, StageError> {
    let fail = |problem: String| StageError::Tree { path: pattern.into(), problem };
    let whole = format!("{}{pattern}", glob::Pattern::escape(&folder.to_string_lossy()));
    let found: Vec<_> =
        glob::glob(&whole).map_err(|e| fail(e.to_string()))?.filter_map(Result::ok).collect();
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) => Err(fail(format!(
            "matches {} files of the driver's packages, expected one",
            found.len()
        ))),
    }
}

#[cfg(test)]
mod tests;
