//! What the party's operator does with the store.

use cvm_base::{Bytes32, sha256};
use cvm_layout::manifest::ImageId;
use cvm_release_server::{Decision, Effect, EnrolledImage, MAX_REASON, Step, Subject};
use rusqlite::Row;

use super::{
    base::{Listed, SqliteStore, Trouble},
    rows::insert,
};

use crate::{
    documents::Documents,
    error::KeyHolderError,
    log::{self, Head, LogEntry},
    memory::{Sealed, Withdrawal},
};

impl SqliteStore {
    /// Enrols an image. Enrolling it twice with the same manifest is fine.
    pub fn enrol(&self, documents: &Documents) -> Result<EnrolledImage, KeyHolderError> {
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

    /// The enrolled images in the order of their enrolment, and an error for each row that the log
    /// does not vouch for.
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
    pub fn image(&self, image: &ImageId) -> Result<EnrolledImage, KeyHolderError> {
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

    /// Gives the party's consent again.
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

    /// The log, unverified.
    pub fn log(&self) -> Result<Vec<LogEntry>, KeyHolderError> {
        log::entries(&self.lock().connection).map_err(|e| self.explained(e.into()))
    }

    /// Walks the log; an error says how it was tampered with.
    pub fn verify_log(&self) -> Result<Head, KeyHolderError> {
        let mut inner = self.lock();
        let verified = inner.connection.transaction().and_then(|tx| log::verify(&tx, &self.key));
        Ok(verified.map_err(|e| self.explained(e.into()))??)
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
}

#[cfg(test)]
mod tests {
    use cvm_base::Bytes;
    use cvm_release_server::Store as _;
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::documents::Identity;

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
