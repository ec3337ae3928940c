//! Opening a store.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use cvm_base::{FileError, time};
use cvm_custody::Party;
use ed25519_dalek::{SigningKey, VerifyingKey};
use rusqlite::{Connection, OpenFlags};

use super::base::{Presented, SCHEMA, SqliteStore, StoreInner, check_clock};

use crate::{documents::Identity, error::KeyHolderError, log, memory::Memory};

/// The store's name in a party's folder.
pub const FILE: &str = "keyholder.sqlite";

impl SqliteStore {
    /// Opens the store in a party's folder, or makes it. Only with a `signer` it can be written.
    ///
    /// # Errors
    /// [`KeyHolderError::Log`], with a `signer`, for a log that was tampered with.
    pub fn open(
        folder: &Path,
        identity: Identity,
        signer: Option<SigningKey>,
    ) -> Result<Self, KeyHolderError> {
        let path = folder.join(FILE);
        let fail = |e: rusqlite::Error| KeyHolderError::Store {
            path: path.clone(),
            problem: e.to_string(),
        };
        restrict(&path)?;
        let key =
            VerifyingKey::from_bytes(&identity.public.0).map_err(|e| KeyHolderError::Internal {
                doing: "reading the party's identity",
                problem: e.to_string(),
            })?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(fail)?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(fail)?;
        // A decision must be on the disk before its answer leaves.
        connection.pragma_update(None, "journal_mode", "wal").map_err(fail)?;
        connection.pragma_update(None, "synchronous", "full").map_err(fail)?;
        connection.execute_batch(&format!("{SCHEMA}{}", log::SCHEMA)).map_err(fail)?;
        let inner = Mutex::new(StoreInner { connection, memory: Ok(Memory::empty()) });
        let store = Self { path, inner, identity, key, signer, presented: None, clock: time::now };
        if store.signer.is_some() {
            store.migrate()?;
        }
        Ok(store)
    }

    /// Lets the images of `agreement`, if one is given, enrol themselves. It must be this party's.
    pub fn enrolling(
        self,
        agreement: Option<&[u8]>,
        party: &Arc<Party>,
    ) -> Result<Self, KeyHolderError> {
        let Some(agreement) = agreement else { return Ok(self) };
        self.identity.agreement(agreement)?;
        Ok(Self {
            presented: Some(Presented {
                agreement: agreement.to_owned(),
                party: Arc::clone(party),
            }),
            ..self
        })
    }

    /// Dates the operator's decisions by another clock, for evidence of another day.
    #[must_use]
    pub fn with_clock(self, clock: fn() -> u64) -> Self {
        Self { clock, ..self }
    }

    /// Refuses a clock that is earlier than the log's last entry.
    ///
    /// # Errors
    /// [`KeyHolderError::Clock`].
    pub fn check_clock(&self, now: u64) -> Result<(), KeyHolderError> {
        self.read(|_, memory| check_clock(memory, now))
    }
}

/// Makes the file, if need be, for its owner alone.
fn restrict(path: &Path) -> Result<(), KeyHolderError> {
    use std::os::unix::fs::OpenOptionsExt;
    let opened =
        std::fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    opened
        .map(drop)
        .map_err(|source| FileError::Io { action: "open", path: path.to_owned(), source }.into())
}
