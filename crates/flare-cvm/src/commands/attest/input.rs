//! Files, folders and collateral caches, into an evidence set.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cvm_attest::{
    appraise::{EvidenceSet, Refusal, Reports},
    collateral::{Cache, Key, read_public_key},
    files::Form,
    trustee::COLLATERAL,
};
use cvm_base::{Explain as _, read_bounded};
use ed25519_dalek::VerifyingKey;
use serde_json::Value;

use super::{super::problem::Problem, MAX_FILE};

/// A folder of one machine holds a folder for each device, and those of GPUs a folder for each GPU.
const MAX_DEPTH: u32 = 3;

/// What was read, and what could not be.
#[derive(Default)]
pub(super) struct Input {
    pub(super) set: EvidenceSet,
    /// Files that were named, and are nothing that is known.
    pub(super) refused: Vec<Refusal>,
    /// The same out of folders, which may hold notes and signatures besides evidence.
    pub(super) left_out: Vec<Refusal>,
    /// Signed caches that lay among the evidence: the file's name and its bytes.
    travelled: Vec<(String, Vec<u8>)>,
}

impl Input {
    /// Adds a file; or a folder's files as one group, and each folder in it as another.
    pub(super) fn add(&mut self, path: &Path) -> Result<()> {
        if path.is_dir() {
            return self.device(path, 0);
        }
        let refused = self.file("", path)?;
        self.refused.extend(refused);
        Ok(())
    }

    fn device(&mut self, path: &Path, depth: u32) -> Result<()> {
        let name = path.display().to_string();
        let (files, folders): (Vec<_>, Vec<_>) = entries_of(path)?.into_iter().partition(|path| path.is_file());
        let unknown = self.group(&name, files)?;
        // A device's folder without its evidence: what is unknown in it may be just that, damaged.
        let to = if self.set.attests(&name) { &mut self.left_out } else { &mut self.refused };
        to.extend(unknown);
        let folders = folders.iter().filter(|path| path.is_dir() && depth < MAX_DEPTH);
        folders.into_iter().try_for_each(|folder| self.device(folder, depth + 1))
    }

    /// Adds files to one group; gives back those that are nothing that is known.
    fn group(&mut self, group: &str, files: Vec<PathBuf>) -> Result<Vec<Refusal>> {
        let unknown = files.iter().map(|file| self.file(group, file)).collect::<Result<Vec<_>>>()?;
        Ok(unknown.into_iter().flatten().collect())
    }

    fn file(&mut self, group: &str, path: &Path) -> Result<Option<Refusal>> {
        let (name, bytes) = (path.display().to_string(), read_bounded(path, MAX_FILE)?);
        if Cache::is_packed(&bytes) {
            self.travelled.push((name, bytes));
            return Ok(None);
        }
        Ok(self.set.add(group, &name, bytes).err())
    }

    /// Takes what the evidence needs out of signed caches: the one at `at`, if it is one, and those that travelled with
    /// the evidence. Of a plain folder, everything.
    pub(super) fn collateral(&mut self, at: Option<&Path>, signers: &[PathBuf], now: u64) -> Result<()> {
        let trusted = signers.iter().map(|path| read_public_key(path)).collect::<Result<Vec<_>, _>>()?;
        if let Some(path) = at {
            if path.join("index.json").is_file() || path.is_file() {
                self.take(&cache(path, &trusted)?, now);
            } else {
                let files = entries_of(path)?.into_iter().filter(|path| path.is_file()).collect();
                let unknown = self.group("", files)?;
                self.left_out.extend(unknown);
            }
        }
        let kbs = self.set.all(Form::KbsEvidence).filter_map(|json| serde_json::from_slice::<Value>(json).ok());
        let inside: Vec<_> = kbs.filter_map(|body| body.get(COLLATERAL).map(Value::to_string)).collect();
        let inside = inside.into_iter().map(|packed| ("the evidence's own collateral".to_owned(), packed.into_bytes()));
        for (name, packed) in std::mem::take(&mut self.travelled).into_iter().chain(inside) {
            match Cache::unpack(&packed, &trusted) {
                Ok(cache) => self.take(&cache, now),
                Err(error) => {
                    let help = "name its collector's public key with --collateral-signer, if you trust that collector";
                    self.left_out.push(Refusal::policy(&name, error.code(), error.to_string(), help));
                }
            }
        }
        Ok(())
    }

    /// Adds what a cache holds for the evidence.
    fn take(&mut self, cache: &Cache, now: u64) {
        let reports = Reports::of(&self.set);
        let of_amd = reports.snp.iter().flat_map(|report| cache.for_snp_report(report, now));
        let of_intel = reports.quotes.iter().filter_map(|quote| cache.for_quote(quote, now));
        // Manifests are told apart by the reports themselves.
        let of_nvidia = cache.entries().filter(|entry| matches!(entry.key, Key::Rim(_)));
        let of_nvidia = of_nvidia.filter_map(|entry| cache.find(&entry.key, now).ok());
        for found in of_amd.chain(of_intel).chain(of_nvidia) {
            self.refused.extend(self.set.add("", &found.entry.key.name(), found.bytes.to_vec()).err());
        }
    }
}

/// The signed cache at `path`, a folder or packed, of one of those collectors.
pub(super) fn cache(path: &Path, trusted: &[VerifyingKey]) -> Result<Cache> {
    if trusted.is_empty() {
        return Problem::result(
            "CLI-021",
            format!("{} is a signed cache, and nobody says whose signature counts", path.display()),
            "name the collector's public key with --collateral-signer (flare-cvm collateral show prints the signer)",
        );
    }
    let cache = match path.is_file() {
        true => Cache::unpack(&read_bounded(path, MAX_FILE)?, trusted).map_err(Into::into),
        false => Cache::open(path, trusted),
    };
    cache.with_context(|| path.display().to_string())
}

fn entries_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut paths: Vec<_> = entries.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}
