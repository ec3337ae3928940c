//! Building one stage: from its inputs to its image, or to the image that is there already.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use cvm_base::{Bytes32, sha256};

use super::{
    BuiltDriver, Profile, StageError, StageImage, StageMeta, StageSpec, edits, erofs, gate, image,
    inputs::{Inputs, Sources},
    modules, programs, python,
};
use crate::{
    WorkError,
    tool::{self, Scratch},
};

/// The programs that every build runs.
const TOOLS: [&str; 10] = [
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
];

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The stage's folder.
    pub stage_dir: PathBuf,
    /// The image of the stage that it builds on.
    pub base_image: Option<PathBuf>,
    /// What that image's content must hash to (`content_sha256` of its `stage.json`).
    pub base_digest: Option<Bytes32>,
    /// A profile in place of the one that `stage.yaml` names.
    pub profile: Option<String>,
    /// The folder of this repository's programs that the stage installs.
    pub programs: PathBuf,
    /// The image to make.
    pub output: PathBuf,
    /// Build even if `output` was made from the same inputs: this takes the mirror's newest
    /// packages.
    pub rebuild: bool,
}

/// What was built.
#[derive(Debug)]
pub struct BuiltStage {
    /// The image.
    pub image: PathBuf,
    /// Whether an image of the same inputs was already there.
    pub cached: bool,
    /// What it is.
    pub meta: StageMeta,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Builds a stage, unless `output` was already made from the same inputs.
///
/// `output` is replaced by one rename at the end: an earlier image is whole until then. Temporary
/// files lie beside it; they are removed at the end, after an error and on Ctrl-C. `progress` gets
/// one line before each step.
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
    tool::require(&TOOLS)?;
    let sources = Sources::read(&request.stage_dir, &request.programs, &spec, profile)?;
    if let Some(driver) = &sources.driver {
        tool::require(&["openssl"])?;
        driver.extend(&mut spec);
    }
    let inputs = Inputs::gather(&request.stage_dir, profile, base.as_ref(), &sources)?.digest();
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
    let work = Scratch::beside(&request.output)?;
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

/// What an unpacked tree holds.
struct Contents {
    /// The kernel's release.
    kernel: String,
    packages: Vec<String>,
    python: Vec<String>,
    driver: Option<BuiltDriver>,
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
        let mut contents = match base {
            Some(base) => self.unpack_base(base, tree, files)?,
            None => self.unpack_distribution(tree, files)?,
        };
        contents.python.extend(self.edit(tree, overlay)?);
        let spec = self.spec;
        gate::pass(&spec.stage, &spec.gate, tree)?;
        self.say(&format!("gate: {} checks passed", spec.gate.len()));
        let Contents { kernel, packages, python, driver } = contents;
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

    fn unpack_base(
        &mut self,
        base: &StageImage,
        tree: &Path,
        files: &Path,
    ) -> Result<Contents, StageError> {
        self.say(&format!("unpacking {}", base.meta.stage));
        base.extract_tree(tree)?;
        self.copy_files(base, files)?;
        Ok(Contents {
            kernel: base.meta.kernel.clone(),
            packages: base.meta.packages.clone(),
            python: base.meta.python.clone(),
            driver: base.meta.driver.clone(),
        })
    }

    /// Unpacks the packages, adds the profile's driver, and moves the kernel out to `files`.
    fn unpack_distribution(&mut self, tree: &Path, files: &Path) -> Result<Contents, StageError> {
        let (spec, profile, sources) = (self.spec, self.profile, self.sources);
        self.say(&format!(
            "unpacking {} packages of {} and what they need",
            spec.packages.len(),
            profile.name
        ));
        let mut packages = profile.unpack(&spec.packages, tree, self.work)?;
        let mut driver = None;
        if let Some(addition) = &sources.driver {
            let release = modules::release(tree)?;
            self.say(&format!("building and signing NVIDIA's modules for {release}"));
            let (built, names) = addition.install(profile, &release, tree, files, self.work)?;
            driver = Some(built);
            packages.extend(names);
        }
        self.say("taking out the kernel and what no CVM needs");
        let kernel = modules::split(tree, files, &spec.boot_modules, &spec.system_modules)?;
        Ok(Contents { kernel, packages, python: vec![], driver })
    }

    /// Turns what was unpacked into the stage's tree: removals before additions, and modes last.
    /// Gives the Python packages that it installed.
    fn edit(&mut self, tree: &Path, overlay: &Path) -> Result<Vec<String>, StageError> {
        let (spec, sources) = (self.spec, self.sources);
        edits::remove(tree, &spec.remove)?;
        edits::keep_only(tree, &spec.keep_only)?;
        edits::without_settings(tree, &spec.without_settings)?;
        let mut python = vec![];
        if let Some(environment) = &spec.python {
            self.say("installing the locked Python packages");
            python = python::install(environment, &sources.lock, sources.wheel.as_ref(), tree)?;
        }
        programs::install(&sources.programs, tree)?;
        edits::overlay(overlay, tree)?;
        if let Some(addition) = &sources.driver {
            edits::overlay(&addition.overlay(), tree)?;
        }
        edits::finish(tree, &spec.directories, &spec.modes)?;
        for folder in ["/usr/lib/systemd", "/etc/systemd"] {
            edits::prune_links(tree, folder)?;
        }
        edits::strip_set_id(tree)?;
        let mut command = tool::command("ldconfig");
        command.arg("-r").arg(tree);
        tool::run("ldconfig", "listing the libraries", command)?;
        Ok(python)
    }

    /// Adds the digests, and the verity tree where the stage wants one that is not there yet.
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
        let gate = self.spec.gate.iter().map(|check| check.id().to_owned());
        Ok(StageMeta {
            stage: self.spec.stage.clone(),
            inputs_sha256: self.inputs,
            base_sha256: self.base.map(|base| base.meta.content_sha256),
            content_sha256: image::digest(system, meta.system_bytes)?,
            gate: gate.collect(),
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
