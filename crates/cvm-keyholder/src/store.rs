//! One SQLite file: the log, and the texts that its entries name by their digests. Several
//! processes may share it.
//!
//! No row is believed for being there. What is enrolled, attested, released, sealed and withdrawn
//! follows from the signed log ([`crate::memory`]); a row of another table is only taken if an
//! entry names its digest.

mod migrate;
mod protocol;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cvm_base::{Bytes32, sha256, time};
use cvm_custody::Party;
use cvm_layout::{manifest::ImageId, names::Name};
use cvm_release::server::{Decision, Effect, Enrolled, MAX_REASON, Step, Subject, Verdict};
use ed25519_dalek::{SigningKey, VerifyingKey};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior,
    params,
};

use crate::{
    KeyHolderError,
    enroll::{Documents, Identity},
    log::{self, Entry, Head, Tampering},
    memory::{Image, Memory, Sealed, Withdrawal},
};

/// The store's name in a party's folder.
pub const FILE: &str = "keyholder.sqlite";

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS images (
        image TEXT PRIMARY KEY, agreement BLOB NOT NULL, manifest BLOB NOT NULL, manifest_signature BLOB NOT NULL,
        reference BLOB NOT NULL, reference_signature BLOB NOT NULL, enrolled INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS sessions (
        session BLOB PRIMARY KEY, expires INTEGER NOT NULL, attested TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS sessions_expire ON sessions (expires);
    CREATE TABLE IF NOT EXISTS shares (image TEXT PRIMARY KEY, share BLOB NOT NULL) STRICT;
";

/// The store of one party.
pub struct SqliteStore {
    path: PathBuf,
    inner: Mutex<Inner>,
    identity: Identity,
    key: VerifyingKey,
    /// Absent where only looking is needed: then nothing can be logged, so nothing decided.
    signer: Option<SigningKey>,
    /// Absent where only the operator enrols.
    presented: Option<Presented>,
    clock: fn() -> u64,
}

/// Whose images may enrol themselves by what they present.
struct Presented {
    /// The agreement that they are of.
    agreement: Vec<u8>,
    /// Who tells its own permits and the marks of its own builds.
    party: Arc<Party>,
}

struct Inner {
    connection: Connection,
    /// Once it was tampered with, nothing more is decided here.
    memory: Result<Memory, Tampering>,
}

/// An enrolled image, as an operator sees it.
#[derive(Debug)]
pub struct Listed {
    /// Its documents.
    pub enrolled: Enrolled,
    /// What is registered for it.
    pub sealed: Option<Sealed>,
    /// The withdrawal that keeps it from being released.
    pub withdrawn: Option<(Subject, Withdrawal)>,
}

/// Why work on the store ended early.
enum Trouble {
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

type Work<T> = Result<T, Trouble>;

impl SqliteStore {
    /// Opens, or makes, the store in a party's folder. With a `signer` it can be written.
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
        let inner = Mutex::new(Inner { connection, memory: Ok(Memory::empty()) });
        let store = Self { path, inner, identity, key, signer, presented: None, clock: time::now };
        if store.signer.is_some() {
            store.migrate()?;
        }
        Ok(store)
    }

    /// Lets the images of this agreement enrol themselves, where it is given and this party's.
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

    /// Dates the operator's decisions by another clock: for evidence of another day.
    #[must_use]
    pub fn with_clock(self, clock: fn() -> u64) -> Self {
        Self { clock, ..self }
    }

    /// Whether this clock may go on where the log ends.
    ///
    /// # Errors
    /// [`KeyHolderError::Clock`] if it lies behind what was decided already.
    pub fn check_clock(&self, now: u64) -> Result<(), KeyHolderError> {
        self.read(|_, memory| check_clock(memory, now))
    }

    /// Enrols an image; the same one twice is fine.
    pub fn enroll(&self, documents: &Documents) -> Result<Enrolled, KeyHolderError> {
        let enrolled = documents.check(&self.identity)?;
        let manifest = &enrolled.manifest;
        let image = manifest.image_id;
        let decision =
            self.operator(Step::Enrol, Some(image), Some(manifest.site.clone()), String::new());
        self.write(|tx, memory| {
            let subjects = [Subject::Image(image), Subject::Site(manifest.site.clone())];
            if let Some((subject, withdrawal)) = memory.withdrawn(&subjects) {
                let (subject, withdrawal) = (subject.clone(), withdrawal.clone());
                return Err(KeyHolderError::Withdrawn { subject, withdrawal }.into());
            }
            let known = memory.images.get(&image).map(|known| known.manifest_sha256);
            if let Some(enrolled) = known.filter(|known| *known != sha256(&documents.manifest)) {
                return Err(KeyHolderError::Enrolled { image, enrolled }.into());
            }
            Ok(((), Some(insert(tx, &image, documents, decision)?)))
        })?;
        Ok(enrolled)
    }

    /// The enrolled images in the order of their enrolment; and what the store holds that the log
    /// does not stand for.
    pub fn images(&self) -> Result<(Vec<Listed>, Vec<KeyHolderError>), KeyHolderError> {
        self.read(|connection, memory| {
            let (mut listed, mut odd) = (Vec::new(), Vec::new());
            let mut images: Vec<_> = memory.images.iter().collect();
            images.sort_by_key(|(_, known)| known.entry);
            for (image, known) in images {
                let enrolled = match self.intact(connection, image, known) {
                    Ok(enrolled) => enrolled,
                    Err(Trouble::Holder(error)) => {
                        odd.push(error);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let subjects =
                    [Subject::Image(*image), Subject::Site(enrolled.manifest.site.clone())];
                let withdrawn =
                    memory.withdrawn(&subjects).map(|(subject, w)| (subject.clone(), w.clone()));
                listed.push(Listed {
                    enrolled,
                    sealed: memory.seals.get(image).copied(),
                    withdrawn,
                });
            }
            let mut statement = connection.prepare("SELECT image FROM images ORDER BY image")?;
            let name = |row: &Row<'_>| {
                Ok(String::from_utf8_lossy(row.get_ref(0)?.as_bytes()?).into_owned())
            };
            let rows = statement.query_map([], name)?.collect::<rusqlite::Result<Vec<_>>>()?;
            let stranger = |image: &String| {
                image.parse().map_or(true, |id: ImageId| !memory.images.contains_key(&id))
            };
            odd.extend(rows.into_iter().filter(stranger).map(|image| {
                let old = image.parse().is_ok_and(|id: ImageId| memory.unstated.contains(&id));
                let problem = match old {
                    true => {
                        "an earlier version enrolled it, whose log does not say by which documents"
                    }
                    false => "no entry of the log enrolled it",
                };
                KeyHolderError::Row {
                    image: image.chars().take(80).collect(),
                    problem: problem.into(),
                }
            }));
            Ok((listed, odd))
        })
    }

    /// One enrolled image, its signatures checked again.
    ///
    /// # Errors
    /// [`KeyHolderError::Row`] where its documents are not those that were enrolled.
    pub fn image(&self, image: &ImageId) -> Result<Enrolled, KeyHolderError> {
        self.read(|connection, memory| match memory.images.get(image) {
            Some(known) => self.intact(connection, image, known),
            None => Err(KeyHolderError::NotEnrolled(*image).into()),
        })
    }

    /// What is registered for an image.
    pub fn registered(&self, image: &ImageId) -> Result<Option<Sealed>, KeyHolderError> {
        self.read(|_, memory| Ok(memory.seals.get(image).copied()))
    }

    /// What the party withdrew its consent from.
    pub fn withdrawals(&self) -> Result<Vec<(Subject, Withdrawal)>, KeyHolderError> {
        self.read(|_, memory| Ok(memory.withdrawn.clone().into_iter().collect()))
    }

    /// Takes the party's consent back: nothing is released to the subject until [`Self::restore`].
    ///
    /// # Errors
    /// [`KeyHolderError::Reason`] for a reason that is too long.
    pub fn withdraw(&self, subject: Subject, reason: &str) -> Result<(), KeyHolderError> {
        if reason.chars().count() > MAX_REASON {
            return Err(KeyHolderError::Reason);
        }
        let separator = if reason.is_empty() { "" } else { ": " };
        let decision =
            self.about(Step::Withdraw, &subject, format!("{subject}{separator}{reason}"));
        let effect = Effect::Withdrawn { subject, reason: reason.to_owned() };
        self.write(|_, _| Ok(((), Some(Decision { effect: Some(effect), ..decision }))))
    }

    /// Gives it again.
    ///
    /// # Errors
    /// [`KeyHolderError::NotWithdrawn`].
    pub fn restore(&self, subject: Subject) -> Result<(), KeyHolderError> {
        let decision = self.about(Step::Restore, &subject, subject.to_string());
        self.write(|_, memory| match memory.withdrawn.contains_key(&subject) {
            true => {
                Ok(((), Some(Decision { effect: Some(Effect::Restored { subject }), ..decision })))
            }
            false => Err(KeyHolderError::NotWithdrawn(subject).into()),
        })
    }

    /// Lets an image that is bound to a machine move: its next boot elsewhere gets this party's
    /// share.
    ///
    /// # Errors
    /// [`KeyHolderError::NotBound`] for an image that needs no machine's secret.
    pub fn allow_move(&self, image: &ImageId) -> Result<(), KeyHolderError> {
        let site = self.image(image)?.manifest.site;
        let decision = self.operator(
            Step::SealMove,
            Some(*image),
            Some(site),
            "may move to another machine".into(),
        );
        self.write(|_, memory| match memory.seals.get(image) {
            Some(Sealed { share_sha256: Some(_), .. }) => {
                Ok(((), Some(Decision { effect: Some(Effect::MayMove), ..decision })))
            }
            _ => Err(KeyHolderError::NotBound(*image).into()),
        })
    }

    /// Forgets an image's registered header, so that its next boot is a first boot again.
    pub fn reset_seal(&self, image: &ImageId) -> Result<Option<Bytes32>, KeyHolderError> {
        let site = self.image(image)?.manifest.site;
        self.write(|tx, memory| {
            let forgotten = memory.seals.get(image).map(|sealed| sealed.header_sha256);
            let detail = forgotten
                .map_or("nothing was registered".into(), |header| format!("forgot {header}"));
            let decision = self.operator(Step::SealReset, Some(*image), Some(site), detail);
            tx.execute("DELETE FROM shares WHERE image = ?1", [image.to_string()])?;
            Ok((forgotten, Some(Decision { effect: Some(Effect::SealForgotten), ..decision })))
        })
    }

    /// The log as it stands.
    pub fn log(&self) -> Result<Vec<Entry>, KeyHolderError> {
        log::entries(&self.lock().connection).map_err(|e| self.explained(e.into()))
    }

    /// Walks the log; an error says how it was tampered with.
    pub fn verify_log(&self) -> Result<Head, KeyHolderError> {
        let mut inner = self.lock();
        let verified = inner.connection.transaction().and_then(|tx| log::verify(&tx, &self.key));
        Ok(verified.map_err(|e| self.explained(e.into()))??)
    }

    /// The image's documents, which must be those that were enrolled.
    fn intact(&self, connection: &Connection, image: &ImageId, known: &Image) -> Work<Enrolled> {
        let odd = |problem: &str| KeyHolderError::Row {
            image: image.to_string(),
            problem: problem.to_owned(),
        };
        let documents =
            documents(connection, image)?.ok_or_else(|| odd("its documents are missing"))?;
        for (name, bytes, expected) in [
            ("manifest.json", &documents.manifest, known.manifest_sha256),
            ("reference.json", &documents.reference, known.reference_sha256),
        ] {
            let found = sha256(bytes);
            if found != expected {
                return Err(odd(&format!(
                    "{expected} was enrolled as its {name}, the store has {found}"
                ))
                .into());
            }
        }
        Ok(documents.check(&self.identity)?)
    }

    /// A decision of the operator about what may be withdrawn.
    fn about(&self, step: Step, subject: &Subject, detail: String) -> Decision {
        let (image, site) = match subject {
            Subject::Image(image) => (Some(*image), None),
            Subject::Site(site) => (None, Some(site.clone())),
            Subject::Chip(_) => (None, None),
        };
        self.operator(step, image, site, detail)
    }

    fn operator(
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

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic in another thread left no half-made change: transactions roll back.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the log says now, and rows of the same moment.
    fn read<T>(
        &self,
        work: impl FnOnce(&Connection, &Memory) -> Work<T>,
    ) -> Result<T, KeyHolderError> {
        let Inner { connection, memory } = &mut *self.lock();
        let run = || {
            let tx = connection.transaction()?;
            let memory = self.current(&tx, memory)?;
            work(&tx, memory)
        };
        run().map_err(|e| self.explained(e))
    }

    /// One transaction that holds the write lock from its beginning, and appends the decision that
    /// it comes to.
    fn write<T, D: IntoIterator<Item = Decision>>(
        &self,
        work: impl FnOnce(&Transaction<'_>, &Memory) -> Work<(T, D)>,
    ) -> Result<T, KeyHolderError> {
        let Inner { connection, memory } = &mut *self.lock();
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
            // The memory learns of it as it learns of what other processes did.
            Ok(value)
        };
        run().map_err(|e| self.explained(e))
    }

    /// The memory, with what was logged since.
    fn current<'a>(
        &self,
        tx: &Transaction<'_>,
        memory: &'a mut Result<Memory, Tampering>,
    ) -> Work<&'a Memory> {
        if let Ok(known) = memory {
            match log::catch_up(tx, &self.key, known) {
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

    fn explained(&self, trouble: Trouble) -> KeyHolderError {
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
}

fn check_clock(memory: &Memory, now: u64) -> Work<()> {
    match memory.is_ahead_of(now) {
        true => Err(KeyHolderError::Clock { now, last: memory.time }.into()),
        false => Ok(()),
    }
}

/// The decision that enrols these documents, once they are in their table.
fn insert(
    tx: &Transaction<'_>,
    image: &ImageId,
    documents: &Documents,
    decision: Decision,
) -> Work<Decision> {
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
    Ok(Decision { effect: Some(documents.effect()), ..decision })
}

fn documents(connection: &Connection, image: &ImageId) -> rusqlite::Result<Option<Documents>> {
    let sql = "SELECT agreement, manifest, manifest_signature, reference, reference_signature FROM \
        images WHERE image = ?1";
    let read = |row: &Row<'_>| {
        Ok(Documents {
            agreement: row.get(0)?,
            manifest: row.get(1)?,
            manifest_signature: row.get(2)?,
            reference: row.get(3)?,
            reference_signature: row.get(4)?,
        })
    };
    connection.query_row(sql, [image.to_string()], read).optional()
}

/// Makes the file, if need be, for its owner alone.
fn restrict(path: &Path) -> Result<(), KeyHolderError> {
    use std::os::unix::fs::OpenOptionsExt;
    let opened =
        std::fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    opened.map(drop).map_err(|source| {
        cvm_base::FileError::Io { action: "open", path: path.to_owned(), source }.into()
    })
}

#[cfg(test)]
mod tests {
    use cvm_base::Bytes;
    use cvm_release::server::Store as _;

    use super::*;

    /// What cannot be written is not decided (`what_cannot_be_logged_is_not_released`); here, what
    /// is said of it.
    #[test]
    fn a_full_disk_has_a_code_of_its_own_and_leaves_the_log_intact() {
        let folder = tempfile::tempdir().unwrap();
        let signer = SigningKey::from_bytes(&[7; 32]);
        let identity = Identity {
            name: "alice".parse().unwrap(),
            public: Bytes(signer.verifying_key().to_bytes()),
        };
        let store = SqliteStore::open(folder.path(), identity, Some(signer)).unwrap();
        let room = |pages: u32| {
            store.lock().connection.pragma_update(None, "max_page_count", pages).unwrap()
        };
        let decision = store.operator(Step::Unknown, None, None, "x".repeat(1000));
        // SQLite takes what the file has by now as the least.
        room(1);
        let fault = (0..1000)
            .find_map(|_| store.record(&decision).err())
            .expect("there is no room for 1000 entries");
        assert!(fault.to_string().contains("KEY-022"), "{fault}");
        let before = store.verify_log().unwrap();
        assert!(store.record(&decision).is_err());
        assert_eq!(store.verify_log().unwrap(), before);
        room(10_000);
        store.record(&decision).unwrap();
        assert_eq!(store.verify_log().unwrap().entries, before.entries + 1);
    }
}
