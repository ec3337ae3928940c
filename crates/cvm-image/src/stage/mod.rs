//! The three stages: from a distribution to the tree that every sealed image of a project shares.
//!
//! A stage is a folder with `stage.yaml`, a `rootfs/` overlay of plain files and `build.sh`.
//! [`build`] turns it into one qcow2 file ([`StageImage`]), which the next stage or provisioning
//! builds on.

mod driver;
pub mod erofs;
mod error;
pub mod gate;
mod image;
pub mod kit;
mod modules;
mod profile;
mod programs;
mod python;
pub mod secrets;
mod spec;
pub(crate) mod tree;
mod wheel;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use cvm_base::{Bytes32, interrupt, sha256};
use serde::Serialize;

use crate::{WorkError, tool};
use driver::Driver;

pub use driver::BuiltDriver;
pub use error::StageError;
pub use image::{StageImage, StageMeta};
pub use profile::Profile;
pub use spec::{PythonSpec, StageSpec};

/// Counts up when the same inputs give another tree, or one that is no longer let through: older
/// images are then built anew.
const RECIPE: u32 = 2;
/// More than any lock file needs.
const MAX_LOCK_BYTES: u64 = 1024 * 1024;

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The stage's folder.
    pub stage_dir: PathBuf,
    /// The image of the stage that it builds on.
    pub base_image: Option<PathBuf>,
    /// What that image's content must hash to (`content_sha256` of its `stage.json`).
    pub base_digest: Option<Bytes32>,
    /// Another profile than `stage.yaml` names.
    pub profile: Option<String>,
    /// Where this repository's programs lie that the stage installs.
    pub programs: PathBuf,
    /// The image to make.
    pub output: PathBuf,
    /// Build even if `output` was made of the same inputs: takes the mirror's newest packages.
    pub rebuild: bool,
}

/// What was built.
#[derive(Debug)]
pub struct BuiltStage {
    /// The image.
    pub image: PathBuf,
    /// Whether an image of the same inputs was there already.
    pub cached: bool,
    /// What it is.
    pub meta: StageMeta,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Builds a stage, or finds that its image is already made of the same inputs.
///
/// `output` is replaced by one rename at the end: an earlier image is whole until then. What is
/// temporary lies beside it and goes at the end, on an error and on Ctrl-C.
pub fn build(
    request: &BuildRequest,
    progress: &mut dyn FnMut(&str),
) -> Result<BuiltStage, StageError> {
    let start = Instant::now();
    let mut spec = StageSpec::read(&request.stage_dir)?;
    let base = open_base(request, &spec)?;
    let profile = match (&base, &request.profile) {
        (Some(base), None) => Profile::named(&base.meta.profile)?,
        (_, Some(name)) => Profile::named(name)?,
        (None, None) => Profile::named(spec.profile.as_deref().unwrap_or_default())?,
    };
    tool::require(&[
        "mmdebstrap",
        "mkfs.erofs",
        "fsck.erofs",
        "qemu-img",
        "depmod",
        "xz",
        "ldconfig",
        "chroot",
        "cp",
        "pip",
    ])?;
    let sources = Sources::read(request, &spec, profile)?;
    if let Some(driver) = &sources.driver {
        tool::require(&["openssl"])?;
        driver.extend(&mut spec);
    }
    let inputs = Inputs::gather(request, profile, base.as_ref(), &sources)?.digest();
    let done = |cached, meta| BuiltStage {
        image: request.output.clone(),
        cached,
        meta,
        seconds: start.elapsed().as_secs_f64(),
    };
    if !request.rebuild
        && let Ok(image) = StageImage::open(&request.output)
        && image.meta.inputs_sha256 == inputs
    {
        progress(&format!("{}: up to date", spec.stage));
        return Ok(done(true, image.meta));
    }
    require_root()?;
    let work = WorkFolder::beside(&request.output)?;
    let mut build = Build {
        request,
        spec: &spec,
        profile,
        base: base.as_ref(),
        sources: &sources,
        inputs,
        work: work.path(),
        progress,
    };
    let meta = build.run()?;
    Ok(done(false, meta))
}

fn open_base(request: &BuildRequest, spec: &StageSpec) -> Result<Option<StageImage>, StageError> {
    let (path, expected) = match (&request.base_image, &spec.base) {
        (None, None) => return Ok(None),
        (Some(path), Some(base)) => (path, base),
        (None, Some(base)) => {
            return Err(StageError::BaseMissing { stage: spec.stage.clone(), base: base.clone() });
        }
        (Some(path), None) => {
            return Err(StageError::BaseUnwanted { stage: spec.stage.clone(), path: path.clone() });
        }
    };
    let image = StageImage::open(path)?;
    if image.meta.stage != *expected {
        let (found, expected) = (image.meta.stage.clone(), expected.clone());
        return Err(StageError::WrongBase { path: path.clone(), found, expected });
    }
    match request.base_digest {
        Some(expected) if expected != image.meta.content_sha256 => Err(StageError::WrongDigest {
            path: path.clone(),
            found: image.meta.content_sha256,
            expected,
        }),
        _ => Ok(Some(image)),
    }
}

fn require_root() -> Result<(), StageError> {
    let uid = fs::metadata("/proc/self").map_err(WorkError::io("look at", "/proc/self"))?.uid();
    if uid == 0 { Ok(()) } else { Err(StageError::NotRoot { uid }) }
}

/// What is installed beside the distribution's packages: read once, before the cache's key is
/// known.
#[derive(Default)]
struct Sources {
    lock: String,
    wheel: Option<wheel::Wheel>,
    programs: Vec<programs::Program>,
    driver: Option<Driver>,
}

impl Sources {
    fn read(
        request: &BuildRequest,
        spec: &StageSpec,
        profile: Profile,
    ) -> Result<Self, StageError> {
        let programs = programs::read(spec, &request.programs)?;
        let addition = profile.addition.filter(|_| spec.base.is_none());
        let driver =
            addition.map(|folder| Driver::read(request.stage_dir.join(folder))).transpose()?;
        let Some(python) = &spec.python else {
            return Ok(Self { programs, driver, ..Self::default() });
        };
        let lock = cvm_base::read_bounded(&request.stage_dir.join(&python.lock), MAX_LOCK_BYTES)?;
        let local =
            python.local.as_ref().map(|folder| wheel::build(&request.stage_dir.join(folder)));
        Ok(Self {
            lock: String::from_utf8_lossy(&lock).into_owned(),
            wheel: local.transpose()?,
            programs,
            driver,
        })
    }
}

/// One build under way.
struct Build<'a> {
    request: &'a BuildRequest,
    spec: &'a StageSpec,
    profile: Profile,
    base: Option<&'a StageImage>,
    sources: &'a Sources,
    inputs: Bytes32,
    work: &'a Path,
    progress: &'a mut dyn FnMut(&str),
}

impl Build<'_> {
    fn say(&mut self, text: &str) {
        (self.progress)(&format!("{}: {text}", self.spec.stage));
    }

    fn run(&mut self) -> Result<StageMeta, StageError> {
        let files = self.work.join("files");
        fs::create_dir(&files).map_err(WorkError::io("make", &files))?;
        let system = self.work.join("system.img");
        let overlay = self.request.stage_dir.join("rootfs");
        let meta = match self.base {
            Some(base) if self.spec.changes_nothing(overlay.is_dir()) => {
                self.say(&format!("taking over the system volume of {}", base.meta.stage));
                self.copy_files(base, &files)?;
                base.extract_system(&system)?;
                self.sealed(base.meta.clone(), &system)?
            }
            base => {
                let tree = self.work.join("tree");
                let meta = self.tree(base, &tree, &files, &overlay)?;
                self.say("packing the system volume");
                let id = image::image_id(&self.inputs);
                let system_bytes = erofs::make_compressed(&tree, &system, self.spec.verity, &id)?;
                self.sealed(StageMeta { system_bytes, system: None, ..meta }, &system)?
            }
        };
        self.say("writing the image");
        image::write(&meta, &files, &system, self.work, &self.request.output)?;
        Ok(meta)
    }

    /// Makes the tree; the result's sizes and digests are filled in later.
    fn tree(
        &mut self,
        base: Option<&StageImage>,
        tree: &Path,
        files: &Path,
        overlay: &Path,
    ) -> Result<StageMeta, StageError> {
        let spec = self.spec;
        let (mut packages, mut python, mut kernel, mut driver) =
            (vec![], vec![], String::new(), None);
        if let Some(base) = base {
            self.say(&format!("unpacking {}", base.meta.stage));
            base.extract_tree(tree)?;
            self.copy_files(base, files)?;
            packages.clone_from(&base.meta.packages);
            python.clone_from(&base.meta.python);
            kernel.clone_from(&base.meta.kernel);
            driver.clone_from(&base.meta.driver);
        } else {
            self.say(&format!(
                "unpacking {} packages of {} and what they need",
                spec.packages.len(),
                self.profile.name
            ));
            packages = self.profile.unpack(&spec.packages, tree, self.work)?;
            if let Some(addition) = &self.sources.driver {
                let release = modules::release(tree)?;
                self.say(&format!("building and signing NVIDIA's modules for {release}"));
                let (built, names) =
                    addition.install(self.profile, &release, tree, files, self.work)?;
                driver = Some(built);
                packages.extend(names);
            }
            self.say("taking the kernel out, and what no CVM needs");
            kernel = modules::split(tree, files, &spec.boot_modules, &spec.system_modules)?;
        }
        tree::remove(tree, &spec.remove)?;
        tree::keep_only(tree, &spec.keep_only)?;
        tree::without_settings(tree, &spec.without_settings)?;
        if let Some(environment) = &spec.python {
            self.say("installing the locked Python packages");
            let Sources { lock, wheel, .. } = self.sources;
            python.extend(python::install(environment, lock, wheel.as_ref(), tree)?);
        }
        programs::install(&self.sources.programs, tree)?;
        tree::overlay(overlay, tree)?;
        if let Some(addition) = &self.sources.driver {
            tree::overlay(&addition.overlay(), tree)?;
        }
        tree::finish(tree, &spec.directories, &spec.modes)?;
        for folder in ["/usr/lib/systemd", "/etc/systemd"] {
            tree::prune_links(tree, folder)?;
        }
        tree::strip_set_id(tree)?;
        let mut command = tool::command("ldconfig");
        command.arg("-r").arg(tree);
        tool::run("ldconfig", "listing the libraries", command)?;
        gate::pass(&spec.stage, &spec.gate, tree)?;
        self.say(&format!("gate: {} checks passed", spec.gate.len()));
        Ok(StageMeta {
            version: image::VERSION,
            stage: String::new(),
            profile: self.profile.name.into(),
            inputs_sha256: self.inputs,
            base_sha256: None,
            content_sha256: self.inputs,
            system_bytes: 0,
            system: None,
            kernel,
            packages,
            python,
            driver,
            gate: vec![],
        })
    }

    /// Adds the verity tree where the stage asks for one that is not there yet, and the digests.
    fn sealed(&mut self, mut meta: StageMeta, system: &Path) -> Result<StageMeta, StageError> {
        if self.spec.verity && meta.system.is_none() {
            let salt = sha256(format!("flare-cvm/v1/system-salt/{}", self.inputs).as_bytes());
            let verity =
                cvm_seal::verity::format(system, meta.system_bytes, salt).map_err(|e| {
                    WorkError::Tool {
                        tool: "libcryptsetup",
                        step: "making the verity tree",
                        status: "failed".into(),
                        output: e.to_string(),
                    }
                })?;
            meta.system_bytes = verity.total_bytes;
            meta.system = Some(verity);
        }
        let own = self.spec.gate.iter().map(|check| check.id().to_owned());
        Ok(StageMeta {
            stage: self.spec.stage.clone(),
            inputs_sha256: self.inputs,
            base_sha256: self.base.map(|base| base.meta.content_sha256),
            content_sha256: image::digest(system, meta.system_bytes)?,
            gate: own.collect(),
            ..meta
        })
    }

    fn copy_files(&self, base: &StageImage, files: &Path) -> Result<(), StageError> {
        let mut command = tool::command("cp");
        command.arg("-a").arg(base.files().join(".")).arg(files);
        tool::run("cp", "copying the kernel", command)?;
        Ok(())
    }
}

/// Everything that decides what a stage's image is, except the packages that the mirror offers
/// today.
#[derive(Serialize)]
struct Inputs {
    recipe: u32,
    spec: Bytes32,
    lock: Bytes32,
    wheel: Option<Bytes32>,
    programs: Vec<(String, Bytes32)>,
    overlay: Overlay,
    profile: &'static str,
    base: Option<Bytes32>,
    tools: Vec<String>,
    /// Left out where there is none: an image without one keeps the digest that it always had.
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<(Bytes32, Overlay)>,
}

/// Each file of an overlay: its path, its kind with the executable bit, and its content's digest.
type Overlay = Vec<(PathBuf, u32, Bytes32)>;

impl Inputs {
    fn gather(
        request: &BuildRequest,
        profile: Profile,
        base: Option<&StageImage>,
        sources: &Sources,
    ) -> Result<Self, StageError> {
        let files = files_of(&request.stage_dir.join("rootfs"))?;
        let driver = sources
            .driver
            .as_ref()
            .map(|driver| Ok::<_, StageError>((driver.sha256, files_of(&driver.overlay())?)));
        let spec = request.stage_dir.join("stage.yaml");
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

    fn digest(&self) -> Bytes32 {
        // Serialising plain data into memory cannot fail; an empty text would only miss the cache.
        sha256(&serde_json::to_vec(self).unwrap_or_default())
    }
}

/// What an overlay holds.
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

/// A folder for everything temporary, on the output's disk; removed at the end and on Ctrl-C.
struct WorkFolder {
    folder: tempfile::TempDir,
    _guard: interrupt::PathGuard,
}

impl WorkFolder {
    fn beside(output: &Path) -> Result<Self, StageError> {
        let parent =
            output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(WorkError::io("make", parent))?;
        let folder = tempfile::Builder::new()
            .prefix(".flare-cvm-stage-")
            .tempdir_in(parent)
            .map_err(WorkError::io("make a temporary folder in", parent))?;
        let guard = interrupt::guard_path(folder.path());
        Ok(Self { folder, _guard: guard })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

#[cfg(test)]
mod tests;
