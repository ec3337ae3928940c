//! Replaying a log in any of its banks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use super::{
    describe::event_type_name,
    log::{Log, Record},
};
use crate::tpm::{Digest, HashAlg};

impl HashAlg {
    /// The digest of the parts, one after the other.
    pub fn digest<'a>(self, parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
        match self {
            Self::Sha1 => self.hashed::<Sha1>(parts),
            Self::Sha256 => self.hashed::<Sha256>(parts),
            Self::Sha384 => self.hashed::<Sha384>(parts),
            Self::Sha512 => self.hashed::<Sha512>(parts),
        }
    }

    fn hashed<'a, H: sha2::Digest>(self, parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
        let mut hash = H::new();
        parts.into_iter().for_each(|part| hash.update(part));
        // A hash has its algorithm's size.
        Digest::new(self, &hash.finalize()).unwrap_or(Digest::filled(self, 0))
    }
}

impl Digest {
    /// TPM2_PCR_Extend, and TDG.MR.RTMR.EXTEND: the hash of this register's value and `digest`.
    pub fn extend(&self, digest: &[u8]) -> Digest {
        self.alg().digest([self.as_bytes(), digest])
    }
}

impl<'a> Log<'a> {
    /// What a register holds before its first event.
    pub fn start(&self, bank: HashAlg, register: u32) -> Digest {
        match register {
            0 => Digest::startup(bank, self.startup_locality()),
            _ => Digest::filled(bank, 0),
        }
    }

    /// The events of one register in one bank, in order: each with the value to which it brings the
    /// register. Nothing when the log has no such bank.
    pub fn replay_register(
        &self,
        bank: HashAlg,
        register: u32,
    ) -> impl Iterator<Item = (&Record<'a>, Digest)> + use<'_, 'a> {
        let mut value = self.start(bank, register);
        self.records().iter().filter(move |record| record.register == register).filter_map(
            move |record| {
                value = value.extend(record.digest(bank)?);
                Some((record, value))
            },
        )
    }

    /// The values the log leads to in one bank, for every register that it extends, and for
    /// register 0. `None` when the log has no such bank.
    pub fn replay(&self, bank: HashAlg) -> Option<BTreeMap<u32, Digest>> {
        if !self.banks().contains(&bank) {
            return None;
        }
        let mut values = BTreeMap::from([(0, self.start(bank, 0))]);
        for record in self.records() {
            let value = values.entry(record.register).or_insert(Digest::filled(bank, 0));
            *value = value.extend(record.digest(bank)?);
        }
        Some(values)
    }

    /// In words, why a register's `quoted` value is not the one that the log leads to.
    pub fn explain(&self, register: u32, quoted: &Digest) -> String {
        let bank = quoted.alg();
        let steps: Vec<_> = self.replay_register(bank, register).collect();
        if *quoted == self.start(bank, register) {
            return format!(
                "nothing was measured into it, and the log lists {} events",
                steps.len()
            );
        }
        let Some(at) = steps.iter().position(|(_, value)| value == quoted) else {
            return match steps.last() {
                None => "the log lists no event of this register".into(),
                Some((record, _)) => format!(
                    "no beginning of the log's {} events leads to it: one was changed or left out, \
                     or something was measured that is not logged; the last logged one is {}",
                    steps.len(),
                    LoggedEvent::new(record, bank).name()
                ),
            };
        };
        let next = steps
            .get(at + 1)
            .map_or_else(String::new, |(record, _)| LoggedEvent::new(record, bank).name());
        format!(
            "it is the value after event {} of {}: {next} was logged and not measured",
            at + 1,
            steps.len()
        )
    }
}

/// One event of a log in one bank, as claims list it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedEvent {
    /// PCR, or index of a TDX register (RTMR *n* is *n* + 1).
    pub register: u32,
    /// The TCG specification's name of the type, or its number. As the log says: types are not
    /// measured.
    #[serde(rename = "type")]
    pub kind: String,
    /// What was extended.
    pub digest: Digest,
    /// What was measured, where it is a text and the digest proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What the log says, without proof: whoever wrote the log chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproven_text: Option<String>,
}

impl LoggedEvent {
    /// The event in a bank that it has a digest for (zeros in a bank that it lacks).
    pub fn new(record: &Record<'_>, bank: HashAlg) -> Self {
        let digest = record
            .digest(bank)
            .and_then(|d| Digest::new(bank, d))
            .unwrap_or(Digest::filled(bank, 0));
        let mut texts = record.texts().into_iter();
        let first = texts.next();
        let unproven = first.as_ref().map(|reading| reading.text.clone());
        let text = first
            .into_iter()
            .chain(texts)
            .find(|t| bank.digest([t.measured]) == digest)
            .map(|t| t.text);
        Self {
            register: record.register,
            kind: event_type_name(record.kind)
                .map_or_else(|| format!("{:#010x}", record.kind), Into::into),
            digest,
            unproven_text: unproven.filter(|_| text.is_none()),
            text,
        }
    }

    /// For people: the type, and the text with a note where nothing proves it.
    pub fn name(&self) -> String {
        match (&self.text, &self.unproven_text) {
            (Some(text), _) => format!("{} {text:?}", self.kind),
            (None, Some(text)) => format!("{} {text:?} (as the log says)", self.kind),
            (None, None) => self.kind.clone(),
        }
    }
}
