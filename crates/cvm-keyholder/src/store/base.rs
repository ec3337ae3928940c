//! The store's file, how it is read and written, and what makes a row believed.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cvm_custody::Party;
use cvm_layout::{manifest::ImageId, names::Name};
use cvm_release_server::{Decision, EnrolledImage, Step, Subject, Verdict};
use ed25519_dalek::{SigningKey, VerifyingKey};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use crate::{
    documents::Identity,
    error::KeyHolderError,
    log::{self, Tampering},
    memory::{Memory, Sealed, Withdrawal, catch_up},
};

/// The tables beside the log's.
pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS images (
        image TEXT PRIMARY KEY, agreement BLOB NOT NULL, manifest BLOB NOT NULL,
        manifest_signature BLOB NOT NULL, reference BLOB NOT NULL,
        reference_signature BLOB NOT NULL, enrolled INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS sessions (
        session BLOB PRIMARY KEY, expires INTEGER NOT NULL, attested TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS sessions_expire ON sessions (expires);
    CREATE TABLE IF NOT EXISTS shares (image TEXT PRIMARY KEY, share BLOB NOT NULL) STRICT;
";

/// The store of one party.
pub struct SqliteStore {
    pub(super) path: PathBuf,
    pub(super) inner: Mutex<StoreInner>,
    pub(super) identity: Identity,
    pub(super) key: VerifyingKey,
    /// Absent in a store that is only read: without it nothing can be logged or decided.
    pub(super) signer: Option<SigningKey>,
    /// Absent if only the operator enrols.
    pub(super) presented: Option<Presented>,
    pub(super) clock: fn() -> u64,
}

/// What allows images to enrol themselves by the documents that they present.
pub(super) struct Presented {
    /// Their agreement.
    pub(super) agreement: Vec<u8>,
    /// The party, which checks its own permits and the marks of its builds.
    pub(super) party: Arc<Party>,
}

pub(super) struct StoreInner {
    pub(super) connection: Connection,
    /// Once the log was tampered with, nothing more is decided here.
    pub(super) memory: Result<Memory, Tampering>,
}

/// An enrolled image, as an operator sees it.
#[derive(Debug)]
pub struct Listed {
    /// Its documents.
    pub enrolled: EnrolledImage,
    /// What is registered for it.
    pub sealed: Option<Sealed>,
    /// The withdrawal that keeps it from being released.
    pub withdrawn: Option<(Subject, Withdrawal)>,
}

/// Why work on the store ended early.
pub(super) enum Trouble {
    Sql(rusqlite::Error),
    Holder(KeyHolderError),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<KeyHolderError> for Trouble {
    fn from(error: KeyHolderError) -> Self {
        Self::Holder(error)
    }
}

pub(super) type Work<T> = Result<T, Trouble>;

impl SqliteStore {
    pub(super) fn lock(&self) -> MutexGuard<'_, StoreInner> {
        // A panic in another thread left no half-made change: transactions roll back.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the memory, and rows of the same moment.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Connection, &Memory) -> Work<T>,
    ) -> Result<T, KeyHolderError> {
        let StoreInner { connection, memory } = &mut *self.lock();
        let run = || {
            let tx = connection.transaction()?;
            let memory = self.current(&tx, memory)?;
            work(&tx, memory)
        };
        run().map_err(|e| self.explained(e))
    }

    /// One transaction, which holds the write lock from its beginning, and appends the decisions
    /// that `work` returns.
    pub(super) fn write<T, D: IntoIterator<Item = Decision>>(
        &self,
        work: impl FnOnce(&Transaction<'_>, &Memory) -> Work<(T, D)>,
    ) -> Result<T, KeyHolderError> {
        let StoreInner { connection, memory } = &mut *self.lock();
        let run = || {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let memory = self.current(&tx, memory)?;
            let (value, decisions) = work(&tx, memory)?;
            let mut head = memory.head;
            for decision in decisions {
                check_clock(memory, decision.time)?;
                let signer = self.signer.as_ref().ok_or_else(|| KeyHolderError::Store {
                    path: self.path.clone(),
                    problem: "opened for reading only".into(),
                })?;
                head = log::append(&tx, signer, &head, &decision)?;
            }
            tx.commit()?;
            // The memory learns of it from the log, as it learns what other processes did.
            Ok(value)
        };
        run().map_err(|e| self.explained(e))
    }

    /// The memory, with everything that is logged by now.
    fn current<'a>(
        &self,
        tx: &Transaction<'_>,
        memory: &'a mut Result<Memory, Tampering>,
    ) -> Work<&'a Memory> {
        if let Ok(known) = memory {
            match catch_up(tx, &self.key, known) {
                Ok(Ok(())) => {}
                Ok(Err(tampering)) => *memory = Err(tampering),
                Err(error) => {
                    *memory = Ok(Memory::empty());
                    return Err(error.into());
                }
            }
        }
        memory.as_ref().map_err(|tampering| KeyHolderError::Log(tampering.clone()).into())
    }

    pub(super) fn explained(&self, trouble: Trouble) -> KeyHolderError {
        match trouble {
            Trouble::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                KeyHolderError::Full { path: self.path.clone() }
            }
            Trouble::Sql(error) => {
                KeyHolderError::Store { path: self.path.clone(), problem: error.to_string() }
            }
            Trouble::Holder(error) => error,
        }
    }

    pub(super) fn operator(
        &self,
        step: Step,
        image: Option<ImageId>,
        site: Option<Name>,
        detail: String,
    ) -> Decision {
        let (time, peer, site) = ((self.clock)(), "operator".into(), site.map(String::from));
        let verdict = Verdict::Done;
        Decision {
            time,
            peer,
            step,
            verdict,
            reason: None,
            detail,
            image,
            site,
            session: None,
            effect: None,
        }
    }
}

pub(super) fn check_clock(memory: &Memory, now: u64) -> Work<()> {
    match memory.is_ahead_of(now) {
        true => Err(KeyHolderError::Clock { now, last: memory.time }.into()),
        false => Ok(()),
    }
}
