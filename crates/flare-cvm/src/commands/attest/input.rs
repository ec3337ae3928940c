//! Files, folders and collateral caches, into an evidence set.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cvm_attest::{
    appraise::{EvidenceSet, Refusal},
    collateral::{Cache, read_public_key, wanted},
    files::Form,
};
use cvm_base::read_bounded;

use super::{super::problem::Problem, MAX_FILE};

/// Adds a file, or a folder's files as one group.
pub(super) fn add(set: &mut EvidenceSet, refused: &mut Vec<Refusal>, path: &Path, folder: bool) -> Result<()> {
    if !folder {
        refused.extend(set.add("", &path.display().to_string(), read_bounded(path, MAX_FILE)?).err());
        return Ok(());
    }
    let group = path.display().to_string();
    for file in files_of(path)? {
        let name = file.strip_prefix(path).unwrap_or(&file).display().to_string();
        // A folder may hold notes and signatures besides evidence.
        let _ = set.add(&group, &name, read_bounded(&file, MAX_FILE)?);
    }
    Ok(())
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut files: Vec<_> = entries.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

/// Takes what the evidence needs out of a signed cache, or everything out of a plain folder.
pub(super) fn collateral(
    set: &mut EvidenceSet,
    refused: &mut Vec<Refusal>,
    folder: &Path,
    signers: &[PathBuf],
    now: u64,
) -> Result<()> {
    if !folder.join("index.json").is_file() {
        for file in files_of(folder)? {
            let _ = set.add("", &file.display().to_string(), read_bounded(&file, MAX_FILE)?);
        }
        return Ok(());
    }
    let trusted = signers.iter().map(|path| read_public_key(path)).collect::<Result<Vec<_>, _>>()?;
    if trusted.is_empty() {
        return Problem::result(
            "CLI-021",
            format!("{} is a signed cache, and nobody says whose signature counts", folder.display()),
            "name the collector's public key with --collateral-signer (flare-cvm collateral show prints the signer)",
        );
    }
    let cache = Cache::open(folder, &trusted)?;
    let mut keys = Vec::new();
    for report in set.all(Form::SnpReport) {
        keys.extend(wanted::by_snp_report(report, None).unwrap_or_default());
    }
    for quote in set.all(Form::TdxQuote).chain(set.all(Form::SgxQuote)) {
        keys.extend(wanted::by_quote(quote).unwrap_or_default());
    }
    let found: Vec<_> =
        keys.iter().filter_map(|key| Some((key.name(), cache.find(key, now).ok()?.bytes.to_vec()))).collect();
    for (name, bytes) in found {
        refused.extend(set.add("", &name, bytes).err());
    }
    // Manifests are told apart by the reports themselves.
    for entry in cache.entries() {
        if let Ok(found) = cache.find(&entry.key, now)
            && Form::of(found.bytes) == Some(Form::Rim)
        {
            refused.extend(set.add("", &entry.key.name(), found.bytes.to_vec()).err());
        }
    }
    Ok(())
}
