//! The store as the release protocol uses it.

use cvm_base::{Bytes32, Explain as _, sha256};
use cvm_layout::{manifest::ImageId, names::Name};
use cvm_release::messages::PresentImage;
use cvm_release_server::{
    AttestedSession, Chip, Decision, Effect, EnrolledImage, Fault, Reason, ReleaseRefusal, Seal,
    Store, Subject,
};
use rusqlite::{OptionalExtension, params};

use super::{
    base::{Presented, SqliteStore, Trouble},
    rows::insert,
};
use crate::{
    documents::{Documents, are_twins},
    error::KeyHolderError,
    memory::{CLOCK_LEEWAY, Withdrawal},
};

impl From<KeyHolderError> for Fault {
    fn from(error: KeyHolderError) -> Self {
        Fault::new("using the store", format_args!("{}: {error}", error.code()))
    }
}

impl Store for SqliteStore {
    fn consume(&self, session: &[u8; 16], expires: u64, now: u64) -> Result<bool, Fault> {
        Ok(self.write(|tx, memory| {
            tx.execute(
                "DELETE FROM sessions WHERE expires <= ?1",
                [now.saturating_sub(CLOCK_LEEWAY)],
            )?;
            let sql =
                "INSERT INTO sessions (session, expires) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            // The row may be gone; the log says whether the challenge was answered.
            let fresh = memory.session(session).is_none()
                && tx.execute(sql, params![session, expires])? == 1;
            Ok((fresh, None::<Decision>))
        })?)
    }

    fn put_attested(
        &self,
        session: &[u8; 16],
        attested: &AttestedSession,
        expires: u64,
        chips: Vec<Chip>,
        decision: Decision,
    ) -> Result<(), Fault> {
        let text =
            serde_json::to_string(attested).map_err(|e| Fault::new("writing a session", e))?;
        let effect = Effect::Attested { attested_sha256: sha256(text.as_bytes()), expires, chips };
        let sql =
            "INSERT OR REPLACE INTO sessions (session, expires, attested) VALUES (?1, ?2, ?3)";
        Ok(self.write(|tx, _| {
            tx.execute(sql, params![session, expires, text])?;
            Ok(((), Some(Decision { effect: Some(effect), ..decision })))
        })?)
    }

    fn attested(&self, session: &[u8; 16], now: u64) -> Result<Option<AttestedSession>, Fault> {
        let sql = "SELECT attested FROM sessions WHERE session = ?1";
        let found = self.read(|connection, memory| {
            let Some(known) = memory.session(session).filter(|known| known.expires > now) else {
                return Ok(None);
            };
            let row = connection
                .query_row(sql, [session], |row| row.get::<_, Option<String>>(0))
                .optional()?;
            Ok(Some(row.flatten().filter(|text| sha256(text.as_bytes()) == known.attested_sha256)))
        })?;
        let Some(text) = found else { return Ok(None) };
        let text = text
            .ok_or_else(|| Fault::new("reading a session", "its row is not what was attested"))?;
        serde_json::from_str(&text).map(Some).map_err(|e| Fault::new("reading a session", e))
    }

    fn release_once(
        &self,
        session: &[u8; 16],
        guest: Option<&Bytes32>,
        decision: Decision,
    ) -> Result<(), ReleaseRefusal> {
        let refusal = |reason, detail: &str| Ok((Err(ReleaseRefusal::new(reason, detail)), None));
        let once = self.write(|_, memory| {
            let Some(known) = memory.session(session).filter(|known| known.expires > decision.time)
            else {
                return refusal(Reason::NotAttested, "this session has shown no accepted evidence");
            };
            if guest.is_some_and(|guest| memory.served(guest)) {
                return refusal(
                    Reason::ReleasedBefore,
                    "this guest has had a release since its launch already",
                );
            }
            if known.released.is_some() {
                return refusal(Reason::ReleasedBefore, "this session has had a release already");
            }
            let site = decision.site.as_deref().and_then(|site| site.parse::<Name>().ok());
            let subjects =
                decision.image.map(Subject::Image).into_iter().chain(site.map(Subject::Site));
            let subjects: Vec<_> =
                subjects.chain(known.chips.iter().cloned().map(Subject::Chip)).collect();
            if let Some(withdrawn) = memory.withdrawn(&subjects) {
                return refusal(Reason::Withdrawn, &words(withdrawn));
            }
            let effect = Effect::Released { guest: guest.copied() };
            Ok((Ok(()), Some(Decision { effect: Some(effect), ..decision })))
        });
        once.map_err(Fault::from)?
    }

    fn released(&self, session: &[u8; 16]) -> Result<Option<ImageId>, Fault> {
        Ok(self.read(|_, memory| Ok(memory.session(session).and_then(|known| known.released)))?)
    }

    fn enrolled(&self, image: &ImageId) -> Result<Option<EnrolledImage>, Fault> {
        match self.image(image) {
            Ok(enrolled) => Ok(Some(enrolled)),
            Err(KeyHolderError::NotEnrolled(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn present(
        &self,
        image: &ImageId,
        presented: &PresentImage,
        decision: Decision,
    ) -> Result<EnrolledImage, ReleaseRefusal> {
        let Some(Presented { agreement, party }) = &self.presented else {
            return Err(ReleaseRefusal::new(
                Reason::EnrolmentClosed,
                "it is not served with --enroll-presented",
            ));
        };
        let documents = Documents {
            agreement: agreement.clone(),
            manifest: presented.manifest.clone(),
            manifest_signature: presented.manifest_sig.clone(),
            reference: presented.reference.clone(),
            reference_signature: presented.reference_sig.clone(),
        };
        let refused = |problem: String| ReleaseRefusal::new(Reason::DocumentsRefused, problem);
        let enrolled = documents.check(&self.identity).map_err(|e| refused(e.to_string()))?;
        let (found, site) = (enrolled.manifest.image_id, enrolled.manifest.site.clone());
        if found != *image {
            return Err(refused(format!("they are of image {found}")));
        }
        let admitted = documents.check_presented(
            party,
            &enrolled.manifest,
            &presented.enrolment,
            decision.time,
        );
        let decision = Decision { site: Some(site.to_string()), ..decision };
        let presented = self.write(|tx, memory| {
            if let Some(withdrawn) =
                memory.withdrawn(&[Subject::Image(*image), Subject::Site(site)])
            {
                return Ok((Err(ReleaseRefusal::new(Reason::Withdrawn, words(withdrawn))), None));
            }
            // Nobody may exchange the documents of an enrolled image by presenting others: only the
            // same ones are taken again, below.
            let Some(known) = memory.images.get(image) else {
                if let Err(error) = admitted {
                    return Ok((Err(refused(error.to_string())), None));
                }
                for (other, known) in &memory.images {
                    match self.intact(tx, other, known) {
                        Ok(other) if are_twins(&other.manifest, &enrolled.manifest) => {
                            let problem = format!(
                                "image {} of the same build is enrolled for this site",
                                other.manifest.image_id
                            );
                            return Ok((Err(refused(problem)), None));
                        }
                        Ok(_) => {}
                        // Nobody can tell whether it is the build's image for this site.
                        Err(Trouble::Holder(error)) => {
                            return Ok((Err(refused(error.to_string())), None));
                        }
                        Err(error) => return Err(error),
                    }
                }
                return Ok((Ok(enrolled), Some(insert(tx, image, &documents, decision)?)));
            };
            let enrolled_sha256 = known.manifest_sha256;
            if enrolled_sha256 != sha256(&documents.manifest) {
                let error = KeyHolderError::Enrolled { image: *image, enrolled: enrolled_sha256 };
                return Ok((Err(refused(error.to_string())), None));
            }
            match self.intact(tx, image, known) {
                Ok(enrolled) => Ok((Ok(enrolled), None)),
                // Its row was lost or damaged, and these are the same documents: they mend it.
                Err(Trouble::Holder(_))
                    if known.reference_sha256 == sha256(&documents.reference) =>
                {
                    Ok((Ok(enrolled), Some(insert(tx, image, &documents, decision)?)))
                }
                Err(error) => Err(error),
            }
        });
        presented.map_err(Fault::from)?
    }

    fn withdrawn(&self, subject: &Subject) -> Result<Option<String>, Fault> {
        Ok(self.read(|_, memory| Ok(memory.withdrawn([subject]).map(words)))?)
    }

    fn withdrawn_machine(&self, chips: &[Chip]) -> Result<Option<String>, Fault> {
        let chips: Vec<_> = chips.iter().cloned().map(Subject::Chip).collect();
        Ok(self.read(|_, memory| {
            let hidden =
                || memory.withdrawn.iter().find(|(subject, _)| matches!(subject, Subject::Chip(_)));
            Ok(match (memory.withdrawn(&chips), chips.is_empty()) {
                (Some(withdrawn), _) => Some(words(withdrawn)),
                (None, true) => {
                    hidden().map(|it| format!("the evidence names no chip, and {}", words(it)))
                }
                (None, false) => None,
            })
        })?)
    }

    fn withdrawn_images(&self) -> Result<Vec<EnrolledImage>, Fault> {
        Ok(self.read(|connection, memory| {
            let withdrawn = |site: &Option<String>, image: &ImageId| {
                let site =
                    site.as_ref().and_then(|site| site.parse::<Name>().ok()).map(Subject::Site);
                let subjects: Vec<_> = site.into_iter().chain([Subject::Image(*image)]).collect();
                memory.withdrawn(&subjects).is_some()
            };
            let images =
                memory.images.iter().filter(|(image, known)| withdrawn(&known.site, image));
            // What has lost its documents is refused by its name.
            Ok(images
                .filter_map(|(image, known)| self.intact(connection, image, known).ok())
                .collect())
        })?)
    }

    fn seal(&self, image: &ImageId) -> Result<Option<Seal>, Fault> {
        let sql = "SELECT share FROM shares WHERE image = ?1";
        Ok(self.read(|connection, memory| {
            let Some(sealed) = memory.seals.get(image) else { return Ok(None) };
            let share = match sealed.share_sha256 {
                None => None,
                Some(expected) => {
                    let row = connection
                        .query_row(sql, [image.to_string()], |row| row.get::<_, Vec<u8>>(0));
                    let share = row.optional()?.filter(|share| sha256(share) == expected);
                    let odd = || KeyHolderError::Row {
                        image: image.to_string(),
                        problem:
                            "this party's share of its machine's secret is not what was registered"
                                .into(),
                    };
                    Some(share.ok_or_else(odd)?)
                }
            };
            Ok(Some(Seal { header_sha256: sealed.header_sha256, share, may_move: sealed.may_move }))
        })?)
    }

    fn register_seal(
        &self,
        image: &ImageId,
        seal: &Seal,
        decision: Decision,
    ) -> Result<bool, Fault> {
        let Seal { header_sha256, share, .. } = seal;
        let share_sha256 = share.as_deref().map(sha256);
        let effect = Effect::Sealed { header_sha256: *header_sha256, share_sha256 };
        let sql = "INSERT OR REPLACE INTO shares VALUES (?1, ?2)";
        Ok(self.write(|tx, memory| {
            if memory.seals.contains_key(image) {
                return Ok((false, None));
            }
            if let Some(share) = share {
                tx.execute(sql, params![image.to_string(), share])?;
            }
            Ok((true, Some(Decision { image: Some(*image), effect: Some(effect), ..decision })))
        })?)
    }

    fn moved(&self, image: &ImageId, decision: Decision) -> Result<(), Fault> {
        let decision = Decision { image: Some(*image), effect: Some(Effect::Moved), ..decision };
        Ok(self.write(|_, _| Ok(((), Some(decision))))?)
    }

    fn record(&self, decision: &Decision) -> Result<(), Fault> {
        Ok(self.write(|_, _| Ok(((), Some(decision.clone()))))?)
    }
}

/// A withdrawal, in words for the log.
fn words((subject, withdrawal): (&Subject, &Withdrawal)) -> String {
    format!("{subject} was {withdrawal}")
}
