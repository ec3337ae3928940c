//! One SQLite file: enrolled images, sessions, seals, and the log. Several processes may share it.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cvm_base::{Bytes, Bytes32, sha256, time};
use cvm_layout::manifest::ImageId;
pub use cvm_release::server::Seal;
use cvm_release::{
    messages::PresentImage,
    server::{Attested, Decision, Enrolled, Fault, Reason, Refusal, Step, Store, Verdict},
};
use ed25519_dalek::{SigningKey, VerifyingKey};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};

use crate::{
    KeyHolderError,
    enroll::{Documents, Identity},
    log::{self, Entry, Head},
};

/// The store's name in a party's folder.
pub const FILE: &str = "keyholder.sqlite";

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS images (
        image TEXT PRIMARY KEY, agreement BLOB NOT NULL, manifest BLOB NOT NULL, manifest_signature BLOB NOT NULL,
        reference BLOB NOT NULL, reference_signature BLOB NOT NULL, enrolled INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS sessions (
        session BLOB PRIMARY KEY, expires INTEGER NOT NULL, attested TEXT, released TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS sessions_expire ON sessions (expires);
    CREATE TABLE IF NOT EXISTS guests (
        guest BLOB PRIMARY KEY, image TEXT NOT NULL, released INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS seals (
        image TEXT PRIMARY KEY, header_sha256 BLOB NOT NULL, registered INTEGER NOT NULL,
        share BLOB, may_move INTEGER NOT NULL DEFAULT 0
    ) STRICT;
";

const SEAL: &str = "SELECT header_sha256, share, may_move FROM seals WHERE image = ?1";

fn seal_row(row: &Row<'_>) -> rusqlite::Result<Seal> {
    Ok(Seal { header_sha256: Bytes(row.get(0)?), share: row.get(1)?, may_move: row.get(2)? })
}

/// The store of one party.
pub struct SqliteStore {
    path: PathBuf,
    connection: Mutex<Connection>,
    identity: Identity,
    /// Absent where only looking is needed: then nothing can be logged, so nothing decided.
    signer: Option<SigningKey>,
    /// The agreement whose images may enrol themselves; absent where only the operator enrols.
    presented_under: Option<Vec<u8>>,
}

impl SqliteStore {
    /// Opens, or makes, the store in a party's folder. With a `signer` it can be written.
    pub fn open(folder: &Path, identity: Identity, signer: Option<SigningKey>) -> Result<Self, KeyHolderError> {
        let path = folder.join(FILE);
        let fail = |e: rusqlite::Error| KeyHolderError::Store { path: path.clone(), problem: e.to_string() };
        restrict(&path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(fail)?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(fail)?;
        // A decision must be on the disk before its answer leaves.
        connection.pragma_update(None, "journal_mode", "wal").map_err(fail)?;
        connection.pragma_update(None, "synchronous", "full").map_err(fail)?;
        connection.execute_batch(&format!("{SCHEMA}{}", log::SCHEMA)).map_err(fail)?;
        Ok(Self { path, connection: Mutex::new(connection), identity, signer, presented_under: None })
    }

    /// Lets the images of this agreement enrol themselves, where it is given and this party's.
    pub fn enrolling(self, agreement: Option<Vec<u8>>) -> Result<Self, KeyHolderError> {
        if let Some(agreement) = &agreement {
            self.identity.agreement(agreement)?;
        }
        Ok(Self { presented_under: agreement, ..self })
    }

    /// Enrols an image; the same one twice is fine.
    pub fn enroll(&self, documents: &Documents) -> Result<Enrolled, KeyHolderError> {
        let enrolled = documents.check(&self.identity)?;
        let image = enrolled.manifest.image_id;
        let existing = self.documents(&image)?;
        if let Some(existing) = existing.filter(|existing| existing.manifest != documents.manifest) {
            return Err(KeyHolderError::Enrolled { image, enrolled: sha256(&existing.manifest) });
        }
        let decision = self.operator(Step::Enrol, Some(image), Some(enrolled.manifest.site.to_string()), String::new());
        self.insert(&image, documents, &decision)?;
        Ok(enrolled)
    }

    fn insert(&self, image: &ImageId, documents: &Documents, decision: &Decision) -> Result<(), KeyHolderError> {
        self.write(|tx, signer| {
            tx.execute(
                "INSERT OR REPLACE INTO images VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    image.to_string(),
                    documents.agreement,
                    documents.manifest,
                    documents.manifest_signature,
                    documents.reference,
                    documents.reference_signature,
                    decision.time,
                ],
            )?;
            log::append(tx, signer, decision)
        })
    }

    /// All enrolled images, with what is registered for each.
    pub fn images(&self) -> Result<Vec<(Enrolled, Option<Seal>)>, KeyHolderError> {
        let ids = self.read(|connection| {
            let mut statement = connection.prepare("SELECT image FROM images ORDER BY enrolled, image")?;
            statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let ids = ids.iter().filter_map(|id| id.parse().ok());
        ids.map(|id: ImageId| Ok((self.image(&id)?, self.registered(&id)?))).collect()
    }

    /// One enrolled image, its signatures checked again.
    pub fn image(&self, image: &ImageId) -> Result<Enrolled, KeyHolderError> {
        // The file may have been changed by hand since; the agreement's signatures may not.
        match self.documents(image)? {
            Some(documents) => documents.check(&self.identity),
            None => Err(KeyHolderError::NotEnrolled(*image)),
        }
    }

    /// What is registered for an image.
    pub fn registered(&self, image: &ImageId) -> Result<Option<Seal>, KeyHolderError> {
        self.read(|c| c.query_row(SEAL, [image.to_string()], seal_row).optional())
    }

    /// Lets an image that is bound to a machine move: its next boot elsewhere gets this party's share.
    ///
    /// # Errors
    /// [`KeyHolderError::NotBound`] for an image that needs no machine's secret.
    pub fn allow_move(&self, image: &ImageId) -> Result<(), KeyHolderError> {
        let site = self.image(image)?.manifest.site.to_string();
        if self.registered(image)?.is_none_or(|seal| seal.share.is_none()) {
            return Err(KeyHolderError::NotBound(*image));
        }
        let detail = "may move to another machine".to_owned();
        let decision = self.operator(Step::SealMove, Some(*image), Some(site), detail);
        self.write(|tx, signer| {
            tx.execute("UPDATE seals SET may_move = 1 WHERE image = ?1", [image.to_string()])?;
            log::append(tx, signer, &decision)
        })
    }

    /// Forgets an image's registered header, so that its next boot is a first boot again.
    pub fn reset_seal(&self, image: &ImageId) -> Result<Option<Bytes32>, KeyHolderError> {
        let site = self.image(image)?.manifest.site.to_string();
        let forgotten = self.registered(image)?.map(|seal| seal.header_sha256);
        let detail = forgotten.map_or("nothing was registered".into(), |header| format!("forgot {header}"));
        let decision = self.operator(Step::SealReset, Some(*image), Some(site), detail);
        self.write(|tx, signer| {
            tx.execute("DELETE FROM seals WHERE image = ?1", [image.to_string()])?;
            log::append(tx, signer, &decision)
        })?;
        Ok(forgotten)
    }

    /// The log as it stands.
    pub fn log(&self) -> Result<Vec<Entry>, KeyHolderError> {
        self.read(log::entries)
    }

    /// Walks the log; an error says how it was tampered with.
    pub fn verify_log(&self) -> Result<Head, KeyHolderError> {
        let key = VerifyingKey::from_bytes(&self.identity.public.0)
            .map_err(|e| KeyHolderError::Internal { doing: "reading the party's identity", problem: e.to_string() })?;
        Ok(self.read(|connection| log::verify(connection, &key))??)
    }

    fn documents(&self, image: &ImageId) -> Result<Option<Documents>, KeyHolderError> {
        let sql = "SELECT agreement, manifest, manifest_signature, reference, reference_signature FROM images WHERE image = ?1";
        self.read(|connection| {
            connection
                .query_row(sql, [image.to_string()], |row| {
                    Ok(Documents {
                        agreement: row.get(0)?,
                        manifest: row.get(1)?,
                        manifest_signature: row.get(2)?,
                        reference: row.get(3)?,
                        reference_signature: row.get(4)?,
                    })
                })
                .optional()
        })
    }

    fn operator(&self, step: Step, image: Option<ImageId>, site: Option<String>, detail: String) -> Decision {
        let (time, peer) = (time::now(), "operator".into());
        Decision { time, peer, step, verdict: Verdict::Done, reason: None, detail, image, site, session: None }
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic in another thread left no half-made change: transactions roll back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, KeyHolderError> {
        work(&self.lock()).map_err(|e| self.failed(e))
    }

    /// One transaction that holds the write lock from its beginning.
    fn write<T>(
        &self,
        work: impl FnOnce(&rusqlite::Transaction<'_>, &SigningKey) -> rusqlite::Result<T>,
    ) -> Result<T, KeyHolderError> {
        let signer = self.signer.as_ref().ok_or_else(|| KeyHolderError::Store {
            path: self.path.clone(),
            problem: "opened for reading only".into(),
        })?;
        let mut connection = self.lock();
        let run = |connection: &mut Connection| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&tx, signer)?;
            tx.commit()?;
            Ok(value)
        };
        run(&mut connection).map_err(|e| self.failed(e))
    }

    fn failed(&self, error: rusqlite::Error) -> KeyHolderError {
        KeyHolderError::Store { path: self.path.clone(), problem: error.to_string() }
    }
}

/// Makes the file, if need be, for its owner alone.
fn restrict(path: &Path) -> Result<(), KeyHolderError> {
    use std::os::unix::fs::OpenOptionsExt;
    let opened = std::fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    opened.map(drop).map_err(|source| cvm_base::FileError::Io { action: "open", path: path.to_owned(), source }.into())
}

impl From<KeyHolderError> for Fault {
    fn from(error: KeyHolderError) -> Self {
        Fault::new("using the store", error)
    }
}

impl Store for SqliteStore {
    fn consume(&self, session: &[u8; 16], expires: u64, now: u64) -> Result<bool, Fault> {
        Ok(self.write(|tx, _| {
            tx.execute("DELETE FROM sessions WHERE expires <= ?1", [now])?;
            let sql = "INSERT INTO sessions (session, expires) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            Ok(tx.execute(sql, params![session, expires])? == 1)
        })?)
    }

    fn put_attested(&self, session: &[u8; 16], attested: &Attested, expires: u64) -> Result<(), Fault> {
        let text = serde_json::to_string(attested).map_err(|e| Fault::new("writing a session", e))?;
        let sql = "UPDATE sessions SET attested = ?2, expires = ?3 WHERE session = ?1";
        self.write(|tx, _| tx.execute(sql, params![session, text, expires]))?;
        Ok(())
    }

    fn attested(&self, session: &[u8; 16], now: u64) -> Result<Option<Attested>, Fault> {
        let sql = "SELECT attested FROM sessions WHERE session = ?1 AND expires > ?2 AND attested IS NOT NULL";
        let found = self.read(|c| c.query_row(sql, params![session, now], |row| row.get::<_, String>(0)).optional())?;
        found.map(|text| serde_json::from_str(&text).map_err(|e| Fault::new("reading a session", e))).transpose()
    }

    fn release_once(
        &self,
        session: &[u8; 16],
        image: &ImageId,
        guest: Option<&Bytes32>,
        now: u64,
    ) -> Result<bool, Fault> {
        let image = image.to_string();
        // One statement each, in one transaction: of two requests at once, one is first.
        Ok(self.write(|tx, _| {
            let known = "SELECT 1 FROM guests WHERE guest = ?1";
            let known = |guest: &Bytes32| tx.query_row(known, [guest.0], |_| Ok(())).optional();
            if guest.map(known).transpose()?.flatten().is_some() {
                return Ok(false);
            }
            let sql = "UPDATE sessions SET released = ?2
                       WHERE session = ?1 AND expires > ?3 AND attested IS NOT NULL AND released IS NULL";
            let first = tx.execute(sql, params![session, image, now])? == 1;
            if let Some(guest) = guest.filter(|_| first) {
                tx.execute("INSERT INTO guests VALUES (?1, ?2, ?3)", params![guest.0, image, now])?;
            }
            Ok(first)
        })?)
    }

    fn released(&self, session: &[u8; 16]) -> Result<Option<ImageId>, Fault> {
        let sql = "SELECT released FROM sessions WHERE session = ?1";
        let found = self.read(|c| c.query_row(sql, [session], |row| row.get::<_, Option<String>>(0)).optional())?;
        Ok(found.flatten().and_then(|image| image.parse().ok()))
    }

    fn enrolled(&self, image: &ImageId) -> Result<Option<Enrolled>, Fault> {
        match self.image(image) {
            Ok(enrolled) => Ok(Some(enrolled)),
            Err(KeyHolderError::NotEnrolled(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn present(&self, image: &ImageId, presented: &PresentImage, decision: Decision) -> Result<Enrolled, Refusal> {
        let Some(agreement) = &self.presented_under else {
            return Err(Refusal::new(Reason::EnrolmentClosed, "it is not served with --enroll-presented"));
        };
        let documents = Documents {
            agreement: agreement.clone(),
            manifest: presented.manifest.clone(),
            manifest_signature: presented.manifest_sig.clone(),
            reference: presented.reference.clone(),
            reference_signature: presented.reference_sig.clone(),
        };
        let refused = |problem: String| Refusal::new(Reason::DocumentsRefused, problem);
        let enrolled = documents.check(&self.identity).map_err(|e| refused(e.to_string()))?;
        let found = enrolled.manifest.image_id;
        if found != *image {
            return Err(refused(format!("they are of image {found}")));
        }
        // What is enrolled stays: nobody may exchange reference values by presenting others.
        match self.documents(image).map_err(Fault::from)? {
            Some(existing) if existing.manifest == documents.manifest => Ok(self.image(image).map_err(Fault::from)?),
            Some(existing) => Err(refused(
                KeyHolderError::Enrolled { image: *image, enrolled: sha256(&existing.manifest) }.to_string(),
            )),
            None => {
                let decision = Decision { site: Some(enrolled.manifest.site.to_string()), ..decision };
                self.insert(image, &documents, &decision).map_err(Fault::from)?;
                Ok(enrolled)
            }
        }
    }

    fn seal(&self, image: &ImageId) -> Result<Option<Seal>, Fault> {
        Ok(self.registered(image)?)
    }

    fn register_seal(&self, image: &ImageId, seal: &Seal, now: u64) -> Result<Seal, Fault> {
        let image = image.to_string();
        Ok(self.write(|tx, _| {
            let sql = "INSERT INTO seals VALUES (?1, ?2, ?3, ?4, 0) ON CONFLICT DO NOTHING";
            tx.execute(sql, params![image, seal.header_sha256.0, now, seal.share])?;
            tx.query_row(SEAL, [&image], seal_row)
        })?)
    }

    fn moved(&self, image: &ImageId) -> Result<(), Fault> {
        let sql = "UPDATE seals SET may_move = 0 WHERE image = ?1";
        Ok(self.write(|tx, _| tx.execute(sql, [image.to_string()]).map(drop))?)
    }

    fn record(&self, decision: &Decision) -> Result<(), Fault> {
        Ok(self.write(|tx, signer| log::append(tx, signer, decision))?)
    }
}
