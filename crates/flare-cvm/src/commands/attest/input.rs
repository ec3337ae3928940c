//! Files, folders and collateral caches, into an evidence set.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cvm_base::{Explain as _, FileError, read_bounded};
use cvm_collateral::{Cache, Key, read_public_key};
use cvm_evidence::trustee::COLLATERAL;
use cvm_verify::{
    appraise::{EvidenceSet, Refusal, Reports},
    files::{Form, unpack},
};
use ed25519_dalek::VerifyingKey;
use serde_json::Value;

use super::limits::MAX_FILE;
use crate::problem::Problem;

/// A machine's folder holds one folder per device, and that of the GPUs one folder per GPU.
const MAX_DEPTH: u32 = 3;

/// What was read.
#[derive(Default)]
pub(super) struct Input {
    pub(super) set: EvidenceSet,
    /// Files and folders that were read, by device and inode, because links may lead to one again;
    /// and the groups that have each, because a certificate may vouch in several folders.
    seen: BTreeMap<(u64, u64), BTreeSet<String>>,
    /// Signed caches among the evidence: each file's name and bytes.
    travelled: Vec<(String, Vec<u8>)>,
}

impl Input {
    /// Adds a file; or a folder's files as one group, and each folder in it as another. `-` is
    /// standard input.
    pub(super) fn add(&mut self, path: &Path) -> Result<()> {
        if path == Path::new("-") {
            return self.standard_input();
        }
        if path.is_dir() {
            return self.device(path, 0);
        }
        self.file("", path)
    }

    fn device(&mut self, folder: &Path, depth: u32) -> Result<()> {
        let found =
            fs::metadata(folder).with_context(|| format!("cannot find {}", folder.display()))?;
        if self.seen.contains_key(&identity(&found)) {
            return Ok(());
        }
        self.seen.entry(identity(&found)).or_default();
        let group = folder.display().to_string();
        for path in entries_of(folder)? {
            let unread =
                |reason: &str| Refusal::input(&path.display().to_string(), reason, "leave it out");
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
        if let Ok(found) = fs::metadata(path)
            && found.is_file()
        {
            let groups = self.seen.entry(identity(&found)).or_default();
            let again = !groups.is_empty();
            if !groups.insert(group.to_owned()) || (again && holds_evidence(&bytes)) {
                return Ok(());
            }
        }
        self.present(group, &name, bytes);
        Ok(())
    }

    fn standard_input(&mut self) -> Result<()> {
        const NAME: &str = "standard input";
        let mut bytes = Vec::new();
        io::stdin()
            .take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(FileError::TooLong { path: NAME.into(), limit: MAX_FILE }.into());
        }
        self.present("", NAME, bytes);
        Ok(())
    }

    fn present(&mut self, group: &str, name: &str, bytes: Vec<u8>) {
        if Cache::is_packed(&bytes) {
            self.travelled.push((name.to_owned(), bytes));
        } else {
            self.set.present(group, name, bytes);
        }
    }

    /// Takes what the evidence needs from signed caches: the one at `at`, and those that came with
    /// the evidence. If `at` is a plain folder, takes everything in it.
    pub(super) fn collateral(
        &mut self,
        at: Option<&Path>,
        signers: &[PathBuf],
        now: u64,
    ) -> Result<()> {
        let trusted =
            signers.iter().map(|path| read_public_key(path)).collect::<Result<Vec<_>, _>>()?;
        if let Some(path) = at {
            if path.join("index.json").is_file() || path.is_file() {
                self.take(&cache(path, &trusted)?, now);
            } else {
                for file in entries_of(path)?.into_iter().filter(|path| path.is_file()) {
                    self.set.add_collateral(
                        &file.display().to_string(),
                        read_bounded(&file, MAX_FILE)?,
                    );
                }
            }
        }
        let kbs = self
            .set
            .all(Form::KbsEvidence)
            .filter_map(|json| serde_json::from_slice::<Value>(json).ok());
        let inside: Vec<_> =
            kbs.filter_map(|body| body.get(COLLATERAL).map(Value::to_string)).collect();
        let inside = inside
            .into_iter()
            .map(|packed| ("the evidence's own collateral".to_owned(), packed.into_bytes()));
        for (name, packed) in std::mem::take(&mut self.travelled).into_iter().chain(inside) {
            match Cache::unpack(&packed, &trusted) {
                Ok(cache) => self.take(&cache, now),
                Err(error) => {
                    let help = "name its collector's public key with --collateral-signer, if you \
                                trust that collector";
                    self.set.leave_out(Refusal::policy(
                        &name,
                        error.code(),
                        error.to_string(),
                        help,
                    ));
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
        // The reports say which manifests they need.
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
            format!("{} is a signed cache, but no trusted signer is named", path.display()),
            "name the collector's public key with --collateral-signer (flare-cvm collateral show \
             prints the signer)",
        );
    }
    let cache = match path.is_file() {
        true => Cache::unpack(&read_bounded(path, MAX_FILE)?, trusted).map_err(Into::into),
        false => Cache::open(path, trusted),
    };
    cache.with_context(|| path.display().to_string())
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Whether these bytes are evidence: that is read once, wherever links show it.
fn holds_evidence(bytes: &[u8]) -> bool {
    unpack(bytes).is_ok_and(|found| found.pieces.iter().any(|piece| piece.form.is_evidence()))
}

fn entries_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut paths: Vec<_> =
        entries.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}
