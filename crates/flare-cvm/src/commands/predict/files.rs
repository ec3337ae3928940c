//! What predictions read: the bundle's files, the host's firmware, and the reference set that they
//! are added to.

use std::fs;

use anyhow::{Context, Result};
use cvm_base::{read_bounded, read_text, write_atomic};
use cvm_evidence::{Reference, ReferenceSet};
use cvm_image::boot::{LOADER_PATH, UKI_PATH, disk, secure_boot::Databases};
use cvm_layout::esp;
use cvm_predict::Inputs;

use super::args::Predict;
use crate::problem::Problem;

/// More than any firmware or reference file has, in bytes.
pub(super) const MAX_FILE: u64 = 64 * 1024 * 1024;
/// More than any UKI has, in bytes.
const MAX_UKI: u64 = 512 * 1024 * 1024;

pub(super) fn reference(args: &Predict) -> Result<Reference> {
    Ok(Reference::parse(&read_bounded(&args.bundle.join("reference.json"), MAX_FILE)?)?)
}

/// The bundle's files that its boot measures.
pub(super) struct BundleFiles {
    pub(super) loader: Vec<u8>,
    pub(super) uki: Vec<u8>,
    pub(super) databases: Databases,
    pub(super) gpt: Vec<u8>,
}

impl BundleFiles {
    pub(super) fn read(args: &Predict) -> Result<Self> {
        let variables = read_bounded(&args.bundle.join("OVMF_VARS.fd"), MAX_FILE)?;
        Ok(Self {
            loader: from_partition(args, 1, LOADER_PATH)?,
            uki: from_partition(args, 2, UKI_PATH)?,
            databases: Databases::read(&variables)?,
            gpt: disk::table(&args.bundle.join("disk.qcow2"))?,
        })
    }

    pub(super) fn inputs(&self) -> Inputs<'_> {
        let Databases { pk, kek, db, dbx, db_authority } = &self.databases;
        Inputs { loader: &self.loader, uki: &self.uki, pk, kek, db, dbx, authority: db_authority }
    }

    /// Every input with its SHA-256.
    pub(super) fn named(&self) -> Vec<String> {
        let Inputs { loader, uki, pk, kek, db, dbx, .. } = self.inputs();
        let named = [
            ("p1's loader", loader),
            ("p2's UKI", uki),
            ("PK", pk),
            ("KEK", kek),
            ("db", db),
            ("dbx", dbx),
        ];
        named.map(|(name, bytes)| format!("{name} = sha256 {}", cvm_base::sha256(bytes))).into()
    }
}

/// A file of one of the bundle's FAT partitions.
pub(super) fn from_partition(args: &Predict, number: u32, path: &str) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let image = folder.path().join("partition");
    disk::extract(&args.bundle.join("disk.qcow2"), number, &image)?;
    let bytes = fs::read(&image).context("cannot read the partition's copy")?;
    esp::read_file(&bytes, path, MAX_UKI)?.with_context(|| format!("p{number} has no {path}"))
}

/// Adds the prediction to the reference set of `--set`, which begins as the bundle's
/// reference.json.
pub(super) fn add_to_set(
    args: &Predict,
    add: impl FnOnce(&mut ReferenceSet) -> Result<()>,
) -> Result<()> {
    let Some(path) = &args.set else { return Ok(()) };
    let mut set = match path.exists() {
        true => ReferenceSet::parse(&read_text(path, MAX_FILE)?)?,
        false => ReferenceSet::from(&reference(args)?),
    };
    add(&mut set)?;
    write_atomic(path, &set.to_bytes(), 0o644)?;
    Ok(())
}

pub(super) fn firmware(args: &Predict) -> Result<Vec<u8>> {
    match &args.firmware {
        Some(path) => Ok(read_bounded(path, MAX_FILE)?),
        None => Problem::result(
            "CLI-022",
            "the host's firmware decides what is measured, and none was given",
            "give the file that the host starts with --firmware",
        ),
    }
}
