//! `index.json`: what a cache holds, signed.

use cvm_base::{Bytes, Bytes32};
use cvm_layout::signed::{self, Kind};
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{error::CollateralError, key::Key};

/// The index's name in a cache's folder. Signature and document are one file, so that they change
/// together.
pub(crate) const INDEX_FILE: &str = "index.json";
/// The longest index that is read, in bytes. Longer ones are refused unread.
pub(crate) const MAX_INDEX_BYTES: u64 = 1024 * 1024;
/// The most pieces that a cache holds.
pub(crate) const MAX_ENTRIES: usize = 1024;
/// The most bytes that all of them may have together.
pub(crate) const MAX_TOTAL_BYTES: u64 = 64 * 1024 * 1024;
/// The one schema version that this program reads and writes.
const VERSION: u32 = 1;
/// The longest source that is written down.
const MAX_SOURCE: usize = 512;

/// One piece of collateral.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// What it is.
    pub key: Key,
    /// Its digest, which names its file.
    pub sha256: Bytes32,
    /// Where it is from: URLs, or the name of an imported file.
    pub source: String,
    /// When, in seconds since 1970 UTC.
    pub fetched_at: u64,
    /// The last second at which all of it is valid: the earliest `notAfter` of its certificates and
    /// `nextUpdate` of its lists.
    pub valid_until: u64,
}

impl IndexEntry {
    /// Its file's name in `files/`: never from the index, so it cannot lead elsewhere.
    pub fn file(&self) -> String {
        format!("{}-{}.{}", self.key.kind(), self.sha256, self.key.suffix())
    }
}

/// An entry as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryText {
    kind: String,
    key: String,
    file: String,
    sha256: Bytes32,
    source: String,
    fetched_at: u64,
    valid_until: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    entries: Vec<EntryText>,
}

/// The signature covers `collateral` byte for byte.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    collateral: &'a RawValue,
    signer: Bytes32,
    signature: Bytes<64>,
}

/// Writes and signs an index.
pub(crate) fn write(entries: &[IndexEntry], key: &SigningKey) -> Result<Vec<u8>, CollateralError> {
    let fail = |e: serde_json::Error| CollateralError::index(e.to_string());
    let entries = entries
        .iter()
        .map(|entry| EntryText {
            kind: entry.key.kind().into(),
            key: entry.key.name(),
            file: entry.file(),
            sha256: entry.sha256,
            source: entry.source.clone(),
            fetched_at: entry.fetched_at,
            valid_until: entry.valid_until,
        })
        .collect();
    let document =
        serde_json::to_string_pretty(&Document { version: VERSION, entries }).map_err(fail)?;
    let signature = Bytes(signed::sign(key, Kind::Collateral, document.as_bytes()));
    let collateral = &RawValue::from_string(document).map_err(fail)?;
    let envelope =
        Envelope { collateral, signer: Bytes(key.verifying_key().to_bytes()), signature };
    let mut text = serde_json::to_string_pretty(&envelope).map_err(fail)?;
    text.push('\n');
    Ok(text.into_bytes())
}

/// Reads an index that one of `trusted` signed: its entries, by key, and who signed it.
pub(crate) fn read(
    bytes: &[u8],
    trusted: &[VerifyingKey],
) -> Result<(Vec<IndexEntry>, VerifyingKey), CollateralError> {
    let limit = |what: &str, found: u64, limit: u64| CollateralError::TooMuch {
        what: what.into(),
        found,
        limit,
    };
    if bytes.len() as u64 > MAX_INDEX_BYTES {
        return Err(limit("the collateral's index", bytes.len() as u64, MAX_INDEX_BYTES));
    }
    let envelope: Envelope<'_> =
        serde_json::from_slice(bytes).map_err(|e| CollateralError::index(e.to_string()))?;
    let signer = envelope.signer;
    let key = trusted
        .iter()
        .find(|key| key.as_bytes() == &signer.0)
        .ok_or(CollateralError::Signer { signer })?;
    let document = envelope.collateral.get().as_bytes();
    signed::verify(key, Kind::Collateral, document, &envelope.signature.0)
        .map_err(|_| CollateralError::Signature { signer })?;

    let document: Document =
        serde_json::from_slice(document).map_err(|e| CollateralError::index(e.to_string()))?;
    if document.version != VERSION {
        let problem = format!("version {}, this program reads {VERSION}", document.version);
        return Err(CollateralError::index(problem));
    }
    if document.entries.len() > MAX_ENTRIES {
        return Err(limit("entries", document.entries.len() as u64, MAX_ENTRIES as u64));
    }
    let mut entries: Vec<IndexEntry> = Vec::with_capacity(document.entries.len());
    for text in document.entries {
        let entry = IndexEntry {
            key: Key::parse(&text.kind, &text.key)?,
            sha256: text.sha256,
            source: text.source,
            fetched_at: text.fetched_at,
            valid_until: text.valid_until,
        };
        if text.file != entry.file() {
            return Err(CollateralError::index(format!(
                "the file of {} must be {}",
                entry.key,
                entry.file()
            )));
        }
        if entry.source.len() > MAX_SOURCE || entry.source.chars().any(char::is_control) {
            return Err(CollateralError::index(format!("the source of {}", entry.key)));
        }
        if entries.last().is_some_and(|last| last.key >= entry.key) {
            return Err(CollateralError::index(
                "the entries are not in order, or one is there twice",
            ));
        }
        entries.push(entry);
    }
    Ok((entries, *key))
}

/// A source as an index holds it: printable, bounded.
pub(crate) fn source(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let end = clean
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .take_while(|end| *end <= MAX_SOURCE)
        .last();
    clean.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}
