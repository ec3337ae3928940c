//! Reading a cache, and looking things up in it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cvm_base::{FileError, read_bounded, sha256, time::rfc3339};
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use crate::{
    content,
    error::{CacheError, CollateralError},
    index::{self, INDEX_FILE, IndexEntry, MAX_INDEX_BYTES, MAX_TOTAL_BYTES},
    key::Key,
    wanted,
};

/// The folder of the pieces.
pub(crate) const FILES: &str = "files";
/// The most bytes that a packed cache may have: its files in base64, and its index.
const MAX_PACKED_BYTES: usize =
    (MAX_TOTAL_BYTES + MAX_TOTAL_BYTES / 2 + 2 * MAX_INDEX_BYTES) as usize;

/// Collateral that a trusted collector signed, and that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    index: Vec<u8>,
    signer: VerifyingKey,
    held: BTreeMap<Key, (IndexEntry, Vec<u8>)>,
}

/// A piece that a lookup found, valid at the time asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// Its content: DER, PEM, JSON or XML, depending on its kind.
    pub bytes: &'a [u8],
    /// Its source, and the end of its validity.
    pub entry: &'a IndexEntry,
}

/// A cache in one document.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Packed {
    index: String,
    files: BTreeMap<String, String>,
}

impl Cache {
    /// Reads a folder that one of `trusted` collected.
    ///
    /// # Errors
    /// [`CacheError`]: an unknown signer, a changed piece, a missing one.
    pub fn open(folder: &Path, trusted: &[VerifyingKey]) -> Result<Self, CacheError> {
        let index = read_bounded(&ordinary(folder.join(INDEX_FILE))?, MAX_INDEX_BYTES)?;
        Self::from_parts(index, trusted, |entry| {
            let name = entry.file();
            let path = ordinary(folder.join(FILES).join(&name))
                .map_err(|_| CollateralError::NoFile { file: name })?;
            Ok(read_bounded(&path, entry.key.limit())?)
        })
    }

    /// Reads a cache from bytes: its index, and a function that gives each entry's file.
    ///
    /// # Errors
    /// As [`Cache::open`], and what `read` returns.
    fn from_parts<E: From<CollateralError>>(
        index: Vec<u8>,
        trusted: &[VerifyingKey],
        mut read: impl FnMut(&IndexEntry) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let (entries, signer) = index::read(&index, trusted)?;
        let mut held = BTreeMap::new();
        let mut total = 0;
        for entry in entries {
            let bytes = read(&entry)?;
            total += bytes.len() as u64;
            if total > MAX_TOTAL_BYTES {
                let what = "the collateral".into();
                return Err(CollateralError::TooMuch {
                    what,
                    found: total,
                    limit: MAX_TOTAL_BYTES,
                }
                .into());
            }
            verify(&entry, &bytes)?;
            held.insert(entry.key.clone(), (entry, bytes));
        }
        Ok(Self { index, signer, held })
    }

    /// The cache in one JSON document, to travel inside evidence.
    pub fn pack(&self) -> Vec<u8> {
        let files = self
            .held
            .values()
            .map(|(entry, bytes)| (entry.file(), STANDARD.encode(bytes)))
            .collect();
        let index = String::from_utf8_lossy(&self.index).into_owned();
        // Serialization of strings cannot fail.
        serde_json::to_vec(&Packed { index, files }).unwrap_or_default()
    }

    /// Whether this is what [`Cache::pack`] writes, whoever signed it.
    pub fn is_packed(bytes: &[u8]) -> bool {
        bytes.len() <= MAX_PACKED_BYTES && serde_json::from_slice::<Packed>(bytes).is_ok()
    }

    /// Reads what [`Cache::pack`] wrote.
    ///
    /// # Errors
    /// As [`Cache::open`].
    pub fn unpack(json: &[u8], trusted: &[VerifyingKey]) -> Result<Self, CollateralError> {
        if json.len() > MAX_PACKED_BYTES {
            let (found, limit) = (json.len() as u64, MAX_PACKED_BYTES as u64);
            return Err(CollateralError::TooMuch {
                what: "the packed collateral".into(),
                found,
                limit,
            });
        }
        let packed: Packed =
            serde_json::from_slice(json).map_err(|e| CollateralError::index(e.to_string()))?;
        Self::from_parts(packed.index.into_bytes(), trusted, |entry| {
            let file = entry.file();
            let base64 = packed.files.get(&file).ok_or(CollateralError::NoFile { file })?;
            STANDARD.decode(base64).map_err(|e| CollateralError::content(&entry.key, e.to_string()))
        })
    }

    /// Who collected it.
    pub fn signer(&self) -> &VerifyingKey {
        &self.signer
    }

    /// Everything in it, by key, whether still valid or not.
    pub fn entries(&self) -> impl Iterator<Item = &IndexEntry> {
        self.held.values().map(|(entry, _)| entry)
    }

    /// The piece under `key`, valid at `now` (seconds since 1970 UTC, as in all lookups).
    ///
    /// # Errors
    /// [`CollateralError::Missing`]; [`CollateralError::Expired`] past its date.
    pub fn find(&self, key: &Key, now: u64) -> Result<Found<'_>, CollateralError> {
        let (entry, bytes) =
            self.held.get(key).ok_or_else(|| CollateralError::Missing { key: key.clone() })?;
        if now > entry.valid_until {
            return Err(CollateralError::Expired {
                key: key.clone(),
                valid_until: entry.valid_until,
                now,
            });
        }
        Ok(Found { bytes, entry })
    }

    /// The pieces that can vouch for an SNP report (or for its signed part), valid at `now`: see
    /// [`wanted::serves_snp_report`].
    pub fn for_snp_report(&self, report: &[u8], now: u64) -> impl Iterator<Item = Found<'_>> {
        let serves = move |entry: &IndexEntry| {
            now <= entry.valid_until && wanted::serves_snp_report(&entry.key, report)
        };
        self.held
            .values()
            .filter(move |(entry, _)| serves(entry))
            .map(|(entry, bytes)| Found { bytes, entry })
    }

    /// Intel's collateral for a quote's platform, valid at `now`.
    pub fn for_quote(&self, quote: &[u8], now: u64) -> Option<Found<'_>> {
        wanted::by_quote(quote).ok()?.iter().find_map(|key| self.find(key, now).ok())
    }

    /// An NVIDIA reference manifest (XML).
    ///
    /// # Errors
    /// As [`Cache::find`].
    pub fn rim(&self, id: &str, now: u64) -> Result<Found<'_>, CollateralError> {
        self.find(&Key::Rim(id.into()), now)
    }

    /// Its parts, for the writer.
    pub(crate) fn into_held(self) -> BTreeMap<Key, (IndexEntry, Vec<u8>)> {
        self.held
    }
}

/// Whether `bytes` are what `entry` says.
fn verify(entry: &IndexEntry, bytes: &[u8]) -> Result<(), CollateralError> {
    let found = sha256(bytes);
    if found != entry.sha256 {
        return Err(CollateralError::Digest { file: entry.file(), expected: entry.sha256, found });
    }
    let until = content::check(&entry.key, bytes)?;
    if until != entry.valid_until {
        let problem = format!(
            "it is valid until {}, the index says {}",
            rfc3339(until),
            rfc3339(entry.valid_until)
        );
        return Err(CollateralError::content(&entry.key, problem));
    }
    Ok(())
}

/// `path`, if it is an ordinary file: a folder from elsewhere may hold links, pipes and devices.
fn ordinary(path: PathBuf) -> Result<PathBuf, FileError> {
    let fail = |source| FileError::Io { action: "read", path: path.clone(), source };
    if path.symlink_metadata().map_err(fail)?.is_file() {
        return Ok(path);
    }
    Err(fail(std::io::Error::other("not an ordinary file")))
}
