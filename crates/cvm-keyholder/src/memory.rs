//! What a key holder remembers: the sum of the changes in its signed log.
//!
//! The store's other tables hold texts that are too long for the log. The memory names each by its
//! digest; nothing else in a row is believed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
};

use cvm_base::{Bytes, Bytes16, Bytes32, time::rfc3339};
use cvm_layout::manifest::ImageId;
pub use cvm_release_server::{Chip, Subject};
use cvm_release_server::{Decision, Effect, Step, Verdict};
use ed25519_dalek::VerifyingKey;
use rusqlite::Connection;

use crate::log::{Head, LogEntry, Tampering, stored_head, walk};

/// By how many seconds two clocks, or two requests at once, may differ.
pub const CLOCK_LEEWAY: u64 = 60;

/// An enrolled image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownImage {
    /// Of its manifest.
    pub manifest_sha256: Bytes32,
    /// Of its reference values.
    pub reference_sha256: Bytes32,
    /// The entry that enrolled it.
    pub entry: u64,
    /// Its site, as the entry names it.
    pub site: Option<String>,
}

/// What is registered for an image's job store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// SHA-256 of p5's header.
    pub header_sha256: Bytes32,
    /// Of this party's sealed share of the machine's secret, where the image is bound to its
    /// machine.
    pub share_sha256: Option<Bytes32>,
    /// The operator allows it to move to another machine.
    pub may_move: bool,
}

/// A consent that was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// Unix seconds.
    pub since: u64,
    /// The operator's words; may be empty.
    pub reason: String,
}

impl fmt::Display for Withdrawal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.reason.is_empty() { "" } else { ": " };
        write!(f, "withdrawn at {}{separator}{}", rfc3339(self.since), self.reason)
    }
}

/// An attested session.
#[derive(Debug)]
pub(crate) struct Session {
    pub attested_sha256: Bytes32,
    pub expires: u64,
    pub chips: Vec<Chip>,
    /// The image whose half it was given.
    pub released: Option<ImageId>,
}

/// The memory as of one entry of the log.
#[derive(Debug)]
pub(crate) struct Memory {
    pub head: Head,
    /// The latest time in the log.
    pub time: u64,
    pub images: BTreeMap<ImageId, KnownImage>,
    pub seals: HashMap<ImageId, Sealed>,
    pub withdrawn: BTreeMap<Subject, Withdrawal>,
    sessions: HashMap<Bytes16, Session>,
    guests: HashSet<Bytes32>,
    /// Enrolled by an earlier version, whose log does not say by which documents.
    pub unstated: BTreeSet<ImageId>,
}

impl Memory {
    pub(crate) fn empty() -> Self {
        Self {
            head: Head::NONE,
            time: 0,
            images: BTreeMap::new(),
            seals: HashMap::new(),
            withdrawn: BTreeMap::new(),
            sessions: HashMap::new(),
            guests: HashSet::new(),
            unstated: BTreeSet::new(),
        }
    }

    /// Takes in the next entry.
    pub(crate) fn apply(&mut self, entry: &LogEntry, head: Head) {
        self.head = head;
        let decision = &entry.decision;
        self.time = self.time.max(decision.time);
        let Some(effect) = &decision.effect else {
            if let (Step::Enrol | Step::Present, Verdict::Done | Verdict::Enrolled, Some(image)) =
                (decision.step, decision.verdict, decision.image)
            {
                self.unstated.insert(image);
            }
            return;
        };
        self.change(entry.number, decision, effect);
    }

    fn change(&mut self, number: u64, decision: &Decision, effect: &Effect) {
        let session = decision.session.as_deref().and_then(|id| id.parse::<Bytes16>().ok());
        match (effect.clone(), decision.image) {
            (Effect::Enrolled { manifest_sha256, reference_sha256 }, Some(image)) => {
                self.unstated.remove(&image);
                let entry = self.images.get(&image).map_or(number, |image| image.entry);
                let site = decision.site.clone();
                self.images
                    .insert(image, KnownImage { manifest_sha256, reference_sha256, entry, site });
            }
            (Effect::Attested { attested_sha256, expires, chips }, _) => {
                let time = self.time;
                self.sessions.retain(|_, session| !is_over(session.expires, time));
                let session = session
                    .map(|id| (id, Session { attested_sha256, expires, chips, released: None }));
                self.sessions.extend(session);
            }
            (Effect::Released { guest }, image) => {
                self.guests.extend(guest);
                if let Some(session) = session.and_then(|id| self.sessions.get_mut(&id)) {
                    session.released = image;
                }
            }
            (Effect::Sealed { header_sha256, share_sha256 }, Some(image)) => {
                self.seals.insert(image, Sealed { header_sha256, share_sha256, may_move: false });
            }
            (Effect::MayMove, Some(image)) => self.let_move(&image, true),
            (Effect::Moved, Some(image)) => self.let_move(&image, false),
            (Effect::SealForgotten, Some(image)) => drop(self.seals.remove(&image)),
            (Effect::Withdrawn { subject, reason }, _) => {
                self.withdrawn.insert(subject, Withdrawal { since: decision.time, reason });
            }
            (Effect::Restored { subject }, _) => drop(self.withdrawn.remove(&subject)),
            // This party signs none of the other effects without the image that they concern.
            (_, None) => {}
        }
    }

    fn let_move(&mut self, image: &ImageId, may_move: bool) {
        if let Some(sealed) = self.seals.get_mut(image) {
            sealed.may_move = may_move;
        }
    }

    /// An attested session, expired or not.
    pub(crate) fn session(&self, id: &[u8; 16]) -> Option<&Session> {
        self.sessions.get(&Bytes(*id))
    }

    /// Whether the guest had its release.
    pub(crate) fn served(&self, guest: &Bytes32) -> bool {
        self.guests.contains(guest)
    }

    /// The first of these that was withdrawn.
    pub(crate) fn withdrawn<'a>(
        &self,
        subjects: impl IntoIterator<Item = &'a Subject>,
    ) -> Option<(&'a Subject, &Withdrawal)> {
        subjects.into_iter().find_map(|subject| Some((subject, self.withdrawn.get(subject)?)))
    }

    /// Whether the log is ahead of a clock that says `now`, by more than the leeway.
    pub(crate) fn is_ahead_of(&self, now: u64) -> bool {
        now.saturating_add(CLOCK_LEEWAY) < self.time
    }
}

/// Takes what was logged since into the memory. The signed head vouches for the entries before it.
///
/// Call it within a transaction, because it reads both. After an error the memory may hold what
/// nobody vouches for.
pub(crate) fn catch_up(
    connection: &Connection,
    key: &VerifyingKey,
    memory: &mut Memory,
) -> rusqlite::Result<Result<(), Tampering>> {
    let seen = memory.head;
    if seen != Head::NONE
        && let Some((head, _)) = stored_head(connection)?
    {
        if head == seen {
            return Ok(Ok(()));
        }
        if head.entries <= seen.entries {
            return Ok(Err(Tampering::SetBack { expected: seen.entries, found: head.entries }));
        }
    }
    let each = |entry: &LogEntry, _: &[u8], _: &[u8], head| {
        memory.apply(entry, head);
        true
    };
    Ok(walk(connection, key, seen, each)?.map(drop))
}

/// Whether a session that ends at `expires` is over, even for a clock that is late by the leeway.
pub(crate) fn is_over(expires: u64, now: u64) -> bool {
    expires.saturating_add(CLOCK_LEEWAY) <= now
}
