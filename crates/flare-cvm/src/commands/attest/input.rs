//! Files, folders and collateral caches, into an evidence set.

use std::{
    collections::BTreeSet,
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

/// What was read.
#[derive(Default)]
pub(super) struct Input {
    pub(super) set: EvidenceSet,
    /// Folders that were read, by their true paths: links may lead to one again.
    seen: BTreeSet<PathBuf>,
    /// Signed caches that lay among the evidence: the file's name and its bytes.
    travelled: Vec<(String, Vec<u8>)>,
}

impl Input {
    /// Adds a file; or a folder's files as one group, and each folder in it as another.
    pub(super) fn add(&mut self, path: &Path) -> Result<()> {
        if path.is_dir() {
            return self.device(path, 0);
        }
        self.file("", path)
    }

    fn device(&mut self, folder: &Path, depth: u32) -> Result<()> {
        let real = folder.canonicalize().with_context(|| format!("cannot find {}", folder.display()))?;
        if !self.seen.insert(real) {
            return Ok(());
        }
        let group = folder.display().to_string();
        for path in entries_of(folder)? {
            let unread = |reason: &str| Refusal::input(&path.display().to_string(), reason, "leave it out");
            if path.is_file() {
                self.file(&group, &path)?;
            } else if !path.is_dir() {
                self.set.unread(unread("it is neither a file nor a folder"));
            } else if depth == MAX_DEPTH {
                self.set.unread(unread("folders in folders are not read as deep as this one lies"));
            } else {
                self.device(&path, depth + 1)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, group: &str, path: &Path) -> Result<()> {
        let (name, bytes) = (path.display().to_string(), read_bounded(path, MAX_FILE)?);
        if Cache::is_packed(&bytes) {
            self.travelled.push((name, bytes));
        } else {
            self.set.present(group, &name, bytes);
        }
        Ok(())
    }

    /// Takes what the evidence needs out of signed caches: the one at `at`, if it is one, and those that travelled with
    /// the evidence. Of a plain folder, everything.
    pub(super) fn collateral(&mut self, at: Option<&Path>, signers: &[PathBuf], now: u64) -> Result<()> {
        let trusted = signers.iter().map(|path| read_public_key(path)).collect::<Result<Vec<_>, _>>()?;
        if let Some(path) = at {
            if path.join("index.json").is_file() || path.is_file() {
                self.take(&cache(path, &trusted)?, now);
            } else {
                for file in entries_of(path)?.into_iter().filter(|path| path.is_file()) {
                    self.set.add_collateral(&file.display().to_string(), read_bounded(&file, MAX_FILE)?);
                }
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
                    self.set.leave_out(Refusal::policy(&name, error.code(), error.to_string(), help));
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
            self.set.add_collateral(&found.entry.key.name(), found.bytes.to_vec());
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
