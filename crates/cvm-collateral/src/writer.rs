//! Writing a cache: whole or not at all, at every moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use cvm_base::{FileError, sha256, write_atomic};
use ed25519_dalek::{SigningKey, VerifyingKey};

use crate::{
    cache::{Cache, FILES},
    content,
    error::{CacheError, CollateralError},
    index::{self, INDEX_FILE, IndexEntry, MAX_ENTRIES},
    key::Key,
};

/// A piece to file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub key: Key,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Where it is from: a URL, or a file's name.
    pub source: String,
    /// When, in seconds since 1970 UTC.
    pub fetched_at: u64,
}

/// A cache's folder, open for one writer.
///
/// Files are named by their digest and written first. Then the index changes in one rename. Then
/// the files that it no longer names are removed. A reader, or a power cut, sees the old cache or
/// the new one.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    key: SigningKey,
    entries: BTreeMap<Key, IndexEntry>,
    _lock: File,
}

impl Writer {
    /// Opens a folder, or makes it. Its content must be signed by `key` or by one of `trusted`,
    /// and whole.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn open(
        folder: &Path,
        key: SigningKey,
        trusted: &[VerifyingKey],
    ) -> Result<Self, CacheError> {
        let files = folder.join(FILES);
        fs::create_dir_all(&files).map_err(io_error("create", &files))?;
        let lock_path = folder.join(".lock");
        let lock = File::create(&lock_path).map_err(io_error("create", &lock_path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => CacheError::Busy { folder: folder.display().to_string() },
            TryLockError::Error(source) => io_error("lock", &lock_path)(source).into(),
        })?;
        let mut entries = BTreeMap::new();
        if folder.join(INDEX_FILE).symlink_metadata().is_ok() {
            let trusted = [&[key.verifying_key()], trusted].concat();
            let held = Cache::open(folder, &trusted)?.into_held();
            entries = held.into_iter().map(|(key, (entry, _))| (key, entry)).collect();
        }
        Ok(Self { folder: folder.into(), key, entries, _lock: lock })
    }

    /// What the cache holds.
    pub fn entries(&self) -> impl Iterator<Item = &IndexEntry> {
        self.entries.values()
    }

    /// Files `item`, unless the piece under its key was collected later: then `false`. The cache is
    /// whole again when this returns.
    ///
    /// # Errors
    /// [`CollateralError::Content`] and others for bytes that are not what their key says;
    /// [`FileError`].
    pub fn put(&mut self, item: &Item) -> Result<bool, CacheError> {
        let valid_until = content::check(&item.key, &item.bytes)?;
        if self.entries.get(&item.key).is_some_and(|held| held.fetched_at > item.fetched_at) {
            return Ok(false);
        }
        let entry = IndexEntry {
            key: item.key.clone(),
            sha256: sha256(&item.bytes),
            source: index::source(&item.source),
            fetched_at: item.fetched_at,
            valid_until,
        };
        let mut entries = self.entries.clone();
        write_atomic(&self.folder.join(FILES).join(entry.file()), &item.bytes, 0o644)?;
        entries.insert(item.key.clone(), entry);
        self.commit(entries)?;
        Ok(true)
    }

    /// Files all newer pieces of another cache; returns how many.
    ///
    /// # Errors
    /// As [`Writer::put`].
    pub fn merge(&mut self, other: Cache) -> Result<usize, CacheError> {
        let mut filed = 0;
        for (key, (entry, bytes)) in other.into_held() {
            let item = Item { key, bytes, source: entry.source, fetched_at: entry.fetched_at };
            filed += usize::from(self.put(&item)?);
        }
        Ok(filed)
    }

    fn commit(&mut self, entries: BTreeMap<Key, IndexEntry>) -> Result<(), CacheError> {
        if entries.len() > MAX_ENTRIES {
            let (found, limit) = (entries.len() as u64, MAX_ENTRIES as u64);
            return Err(CollateralError::TooMuch { what: "entries".into(), found, limit }.into());
        }
        let list: Vec<IndexEntry> = entries.values().cloned().collect();
        write_atomic(&self.folder.join(INDEX_FILE), &index::write(&list, &self.key)?, 0o644)?;
        self.entries = entries;
        self.sweep();
        Ok(())
    }

    /// Removes files that no entry names. One that stays costs only space.
    fn sweep(&self) {
        let named: BTreeSet<String> = self.entries.values().map(IndexEntry::file).collect();
        for file in fs::read_dir(self.folder.join(FILES)).into_iter().flatten().flatten() {
            if file.file_name().to_str().is_some_and(|name| !named.contains(name)) {
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { action, path, source }
}
