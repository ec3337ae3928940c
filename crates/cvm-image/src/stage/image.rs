//! A stage's image: a qcow2 disk with two partitions.
//!
//! `stage` (erofs): `stage.json`, and the kernel for images that are provisioned from the stage:
//! `vmlinuz`, `os-release`, `lib/modules/RELEASE/…`. `system` (erofs, followed by its verity tree
//! where the stage asks for one): the tree.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use cvm_base::{Bytes16, Bytes32};
use cvm_layout::{
    layout::{MIB, Placement},
    manifest::{PlacedPartition, Verity},
    names::NameError,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{BuiltDriver, StageError, erofs};
use crate::{
    WorkError,
    boot::{BootError, disk, partition_table},
    tool::{self, Scratch},
};

/// The version of `stage.json` that this program reads and writes.
pub(super) const VERSION: u32 = 1;
/// More than any `stage.json` needs.
const MAX_META_BYTES: u64 = 1024 * 1024;
/// The largest file of the `stage` partition that is read.
const MAX_FILE_BYTES: u64 = 64 * MIB;
/// Partition numbers.
const STAGE: u32 = 1;
const SYSTEM: u32 = 2;

/// `stage.json`: what an image is, and what it was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageMeta {
    /// Always 1.
    pub version: u32,
    /// The stage's name.
    pub stage: String,
    /// The profile of the distribution that it began with.
    pub profile: String,
    /// SHA-256 of all of the build's inputs; the cache's key.
    pub inputs_sha256: Bytes32,
    /// The base image's `content_sha256`.
    pub base_sha256: Option<Bytes32>,
    /// SHA-256 of the `system` partition's `system_bytes` bytes.
    pub content_sha256: Bytes32,
    /// Length of the system volume in bytes, its verity tree included.
    pub system_bytes: u64,
    /// The system volume's verity tree, where the stage has one.
    pub system: Option<Verity>,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// The distribution's packages, `NAME_VERSION_ARCH` each.
    pub packages: Vec<String>,
    /// The Python packages, `NAME==VERSION` each.
    pub python: Vec<String>,
    /// The driver that its profile added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<BuiltDriver>,
    /// The checks that the tree passed.
    pub gate: Vec<String>,
}

/// Copies a partition of the image at `path` to `to`. Only a failure that is the image's fault is
/// reported as [`StageError::NotAnImage`].
fn extract(path: &Path, number: u32, to: &Path) -> Result<(), StageError> {
    disk::extract(path, number, to).map_err(|error| match error {
        BootError::Work(error @ (WorkError::MissingTool { .. } | WorkError::DiskFull { .. })) => {
            error.into()
        }
        error => StageError::NotAnImage { path: path.to_owned(), problem: error.to_string() },
    })
}

/// An opened image.
#[derive(Debug)]
pub struct StageImage {
    /// What it is.
    pub meta: StageMeta,
    path: PathBuf,
    files: Scratch,
}

impl StageImage {
    /// Opens an image and unpacks its small partition, in about a fifth of a second.
    pub fn open(path: &Path) -> Result<Self, StageError> {
        let bad = |problem: String| StageError::NotAnImage { path: path.to_owned(), problem };
        if !path.is_file() {
            return Err(bad("there is no such file".into()));
        }
        let files = Scratch::new()?;
        let partition = files.join("stage.erofs");
        extract(path, STAGE, &partition)?;
        erofs::extract(&partition, files.path()).map_err(|e| match e {
            StageError::Work(WorkError::Tool { .. }) => bad(e.to_string()),
            e => e,
        })?;
        fs::remove_file(&partition).map_err(WorkError::io("remove", &partition))?;
        let bytes = cvm_base::read_bounded(&files.join("stage.json"), MAX_META_BYTES)
            .map_err(|e| bad(e.to_string()))?;
        let meta: StageMeta =
            serde_json::from_slice(&bytes).map_err(|e| bad(format!("stage.json: {e}")))?;
        if meta.version != VERSION {
            return Err(bad(format!(
                "stage.json has version {}, expected {VERSION}",
                meta.version
            )));
        }
        Ok(Self { meta, path: path.to_owned(), files })
    }

    /// Reads `vmlinuz`, `os-release` or a file below `lib/modules/RELEASE/`.
    pub fn read_file(&self, name: &str) -> Result<Vec<u8>, StageError> {
        let inside = Path::new(name)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        if !inside {
            return Err(StageError::Tree {
                path: name.into(),
                problem: "is not a path inside a stage image".into(),
            });
        }
        Ok(cvm_base::read_bounded(&self.files.join(name), MAX_FILE_BYTES)?)
    }

    /// The certificate that `db` must hold so that the kernel loads the image's own modules. It is
    /// checked against its digest.
    pub fn module_signer(&self) -> Result<Option<Vec<u8>>, StageError> {
        let Some(driver) = &self.meta.driver else { return Ok(None) };
        let certificate = self.read_file(BuiltDriver::SIGNER)?;
        let (found, expected) = (cvm_base::sha256(&certificate), driver.signer_sha256);
        match found == expected {
            true => Ok(Some(certificate)),
            false => Err(StageError::WrongDigest { path: self.path.clone(), found, expected }),
        }
    }

    /// Copies the system volume (`meta.system_bytes` bytes, verity tree included) to `to`, and
    /// checks it against the image's own digest.
    pub fn extract_system(&self, to: &Path) -> Result<(), StageError> {
        extract(&self.path, SYSTEM, to)?;
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(to)
            .map_err(WorkError::io("open", to))?;
        file.set_len(self.meta.system_bytes).map_err(WorkError::io("cut", to))?;
        let found = digest(to, self.meta.system_bytes)?;
        if found != self.meta.content_sha256 {
            let expected = self.meta.content_sha256;
            return Err(StageError::WrongDigest { path: self.path.clone(), found, expected });
        }
        Ok(())
    }

    /// Unpacks the system volume's tree into the new folder `to`.
    pub(super) fn extract_tree(&self, to: &Path) -> Result<(), StageError> {
        let volume = to.with_extension("erofs");
        self.extract_system(&volume)?;
        erofs::extract(&volume, to)?;
        fs::remove_file(&volume).map_err(WorkError::io("remove", &volume))?;
        Ok(())
    }

    /// The small partition's files, without `stage.json`, for an image that builds on this one.
    pub(super) fn files(&self) -> &Path {
        self.files.path()
    }
}

/// SHA-256 of the first `bytes` bytes of a file.
pub(super) fn digest(path: &Path, bytes: u64) -> Result<Bytes32, StageError> {
    let mut file = File::open(path).map_err(WorkError::io("read", path))?.take(bytes);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(WorkError::io("read", path))? {
            0 => return Ok(cvm_base::Bytes32 { 0: hash.finalize().into() }),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Writes an image of the files in `folder` (without `stage.json`) and the volume `system` to
/// `output`, whole or not at all. `work` is a folder for temporary files on `output`'s disk.
pub(super) fn write(
    meta: &StageMeta,
    folder: &Path,
    system: &Path,
    work: &Path,
    output: &Path,
) -> Result<(), StageError> {
    let json = serde_json::to_vec_pretty(meta)
        .map_err(|e| StageError::NotAnImage { path: output.to_owned(), problem: e.to_string() })?;
    cvm_base::write_atomic(&folder.join("stage.json"), &json, 0o644)?;
    let id = image_id(&meta.inputs_sha256);
    let small = work.join("stage.erofs");
    let stage_bytes = erofs::make_compressed(folder, &small, false, &id)?;

    let bad = |e: &dyn std::fmt::Display| StageError::NotAnImage {
        path: output.to_owned(),
        problem: e.to_string(),
    };
    let placement = place(stage_bytes, meta.system_bytes).map_err(|e| bad(&e))?;
    let raw = work.join("disk.raw");
    let io = |action| WorkError::io(action, raw.clone());
    let mut file = File::create_new(&raw).map_err(io("make"))?;
    file.set_len(placement.disk_bytes).map_err(io("write"))?;
    partition_table::write(&mut file, &placement, &id).map_err(|e| bad(&e))?;
    for (partition, source) in placement.partitions.iter().zip([&small, system]) {
        file.seek(SeekFrom::Start(partition.offset)).map_err(io("write"))?;
        let mut source_file = File::open(source).map_err(WorkError::io("read", source))?;
        std::io::copy(&mut source_file, &mut file).map_err(io("write"))?;
    }
    drop(file);

    let packed = work.join("disk.qcow2");
    let mut command = tool::command("qemu-img");
    command.args(["convert", "-f", "raw", "-O", "qcow2"]).arg(&raw).arg(&packed);
    tool::run("qemu-img", "packing the image", command)?;
    fs::remove_file(&raw).map_err(io("remove"))?;
    File::open(&packed).and_then(|f| f.sync_all()).map_err(WorkError::io("sync", &packed))?;
    fs::rename(&packed, output).map_err(WorkError::io("replace", output))?;
    Ok(())
}

/// Where the two partitions lie, each on whole mebibytes.
fn place(stage_bytes: u64, system_bytes: u64) -> Result<Placement, NameError> {
    let (stage, system) = (stage_bytes.next_multiple_of(MIB), system_bytes.next_multiple_of(MIB));
    let (first, second) = (MIB, MIB + stage);
    Ok(Placement {
        partitions: vec![
            PlacedPartition { number: STAGE, name: "stage".parse()?, offset: first, length: stage },
            PlacedPartition {
                number: SYSTEM,
                name: "system".parse()?,
                offset: second,
                length: system,
            },
        ],
        state_offset: 0,
        disk_bytes: second + system + MIB,
    })
}

/// The id of the file systems and the disk: the same inputs give the same id.
pub(super) fn image_id(inputs: &Bytes32) -> Bytes16 {
    let mut id = [0; 16];
    id.copy_from_slice(&inputs.0[..16]);
    cvm_base::Bytes16 { 0: id }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A small image of `stage` at `path`.
    pub(in crate::stage) fn small(path: &Path, stage: &str) -> StageMeta {
        let work = tempfile::tempdir().unwrap();
        let (tree, folder) = (work.path().join("tree"), work.path().join("files"));
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::write(tree.join("etc/os-release"), "ID=test\n").unwrap();
        fs::create_dir_all(folder.join("lib/modules/1")).unwrap();
        fs::write(folder.join("vmlinuz"), vec![1; 70_000]).unwrap();
        fs::write(folder.join("lib/modules/1/modules.dep"), "").unwrap();
        let inputs = cvm_base::sha256(stage.as_bytes());
        let system = work.path().join("system");
        let system_bytes =
            erofs::make_compressed(&tree, &system, false, &image_id(&inputs)).unwrap();
        let meta = StageMeta {
            version: VERSION,
            stage: stage.into(),
            profile: "debian-12".into(),
            inputs_sha256: inputs,
            base_sha256: None,
            content_sha256: digest(&system, system_bytes).unwrap(),
            system_bytes,
            system: None,
            kernel: "1".into(),
            packages: vec!["a_1_amd64".into()],
            python: vec![],
            driver: None,
            gate: vec!["no-login".into()],
        };
        write(&meta, &folder, &system, work.path(), path).unwrap();
        meta
    }

    #[test]
    fn an_image_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.qcow2");
        let meta = small(&path, "nvidia_cc_base");
        let image = StageImage::open(&path).unwrap();
        assert_eq!(image.meta, meta);
        assert_eq!(image.read_file("vmlinuz").unwrap(), vec![1; 70_000]);
        image.read_file("lib/modules/1/modules.dep").unwrap();
        for bad in ["../etc/passwd", "/etc/passwd", "none"] {
            assert!(image.read_file(bad).is_err(), "{bad}");
        }
        let tree = dir.path().join("tree");
        image.extract_tree(&tree).unwrap();
        assert_eq!(fs::read_to_string(tree.join("etc/os-release")).unwrap(), "ID=test\n");
    }

    #[test]
    fn a_damaged_system_volume_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.qcow2");
        small(&path, "nvidia_cc_base");
        disk::patch(&path, SYSTEM, 1024, b"x").unwrap();
        let error = StageImage::open(&path)
            .unwrap()
            .extract_system(&dir.path().join("system"))
            .unwrap_err();
        assert!(matches!(error, StageError::WrongDigest { .. }), "{error}");
    }

    #[test]
    fn other_files_are_not_images() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.qcow2");
        fs::write(&path, b"not a disk").unwrap();
        for path in [path, dir.path().join("missing")] {
            assert!(matches!(StageImage::open(&path).unwrap_err(), StageError::NotAnImage { .. }));
        }
    }
}
