//! Files, folders and collateral caches, into an evidence set.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cvm_attest::{
    appraise::{EvidenceSet, Refusal, Reports},
    collateral::{Cache, Key, read_public_key},
};
use cvm_base::read_bounded;

use super::{super::problem::Problem, MAX_FILE};

/// What was read, and what could not be.
#[derive(Default)]
pub(super) struct Input {
    pub(super) set: EvidenceSet,
    /// Files that were named, and are nothing that is known.
    pub(super) refused: Vec<Refusal>,
    /// The same out of folders, which may hold notes and signatures besides evidence.
    pub(super) left_out: Vec<Refusal>,
}

impl Input {
    /// Adds a file, or a folder's files as one group.
    pub(super) fn add(&mut self, path: &Path) -> Result<()> {
        let name = path.display().to_string();
        if path.is_dir() {
            let unknown = self.folder(&name, path)?;
            // A device's folder without its evidence: what is unknown in it may be just that, damaged.
            let to = if self.set.attests(&name) { &mut self.left_out } else { &mut self.refused };
            to.extend(unknown);
            return Ok(());
        }
        self.refused.extend(self.set.add("", &name, read_bounded(path, MAX_FILE)?).err());
        Ok(())
    }

    /// Adds a folder's files; gives back those that are nothing that is known.
    fn folder(&mut self, group: &str, path: &Path) -> Result<Vec<Refusal>> {
        let mut unknown = Vec::new();
        for file in files_of(path)? {
            let name = file.display().to_string();
            unknown.extend(self.set.add(group, &name, read_bounded(&file, MAX_FILE)?).err());
        }
        Ok(unknown)
    }

    /// Takes what the evidence needs out of a signed cache, or everything out of a plain folder.
    pub(super) fn collateral(&mut self, folder: &Path, signers: &[PathBuf], now: u64) -> Result<()> {
        if !folder.join("index.json").is_file() {
            let unknown = self.folder("", folder)?;
            self.left_out.extend(unknown);
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
        let reports = Reports::of(&self.set);
        let of_amd = reports.snp.iter().flat_map(|report| cache.for_snp_report(report, now));
        let of_intel = reports.quotes.iter().filter_map(|quote| cache.for_quote(quote, now));
        // Manifests are told apart by the reports themselves.
        let of_nvidia = cache.entries().filter(|entry| matches!(entry.key, Key::Rim(_)));
        let of_nvidia = of_nvidia.filter_map(|entry| cache.find(&entry.key, now).ok());
        for found in of_amd.chain(of_intel).chain(of_nvidia) {
            self.refused.extend(self.set.add("", &found.entry.key.name(), found.bytes.to_vec()).err());
        }
        Ok(())
    }
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut files: Vec<_> = entries.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}
