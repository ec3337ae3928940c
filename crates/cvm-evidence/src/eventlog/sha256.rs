//! The SHA-256 bank of a TPM's log.

use std::collections::BTreeMap;

use cvm_base::{Bytes, Bytes32, printable, sha256};
use serde::{Deserialize, Serialize};

use super::{
    describe::{MAX_NAME, variable_name},
    event_type,
    log::{Log, Record, Registers},
};
use crate::{
    error::AttestError,
    tpm::{HashAlg, Reader},
};

/// One measurement of the SHA-256 bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The register, 0 to 23.
    pub pcr: u8,
    /// TCG_EVENTTYPE.
    pub kind: u32,
    /// What was extended.
    pub digest: Bytes32,
    /// What the log says about it. Not measured as such: believe it only where its hash is
    /// `digest`.
    pub data: &'a [u8],
}

impl<'a> Event<'a> {
    fn from_record(record: &Record<'a>) -> Option<Self> {
        let digest = Bytes(record.digest(HashAlg::Sha256)?.try_into().ok()?);
        // Registers above 23 were refused.
        Some(Self {
            pcr: u8::try_from(record.register).ok()?,
            kind: record.kind,
            digest,
            data: record.data,
        })
    }

    /// A name for people: the event's text where the digest proves it, else its type.
    pub fn describe(&self) -> String {
        let proven = sha256(self.data) == self.digest;
        match self.kind {
            event_type::SEPARATOR => "separator".into(),
            event_type::EFI_ACTION if proven => printable(self.data, MAX_NAME),
            event_type::EFI_VARIABLE_DRIVER_CONFIG if proven => {
                format!("variable {}", variable_name(self.data))
            }
            event_type::EFI_VARIABLE_AUTHORITY if proven => {
                format!("authority {}", variable_name(self.data))
            }
            event_type::EFI_VARIABLE_DRIVER_CONFIG => "variable".into(),
            event_type::EFI_VARIABLE_AUTHORITY => "authority".into(),
            event_type::EFI_BOOT_SERVICES_APPLICATION => "application".into(),
            event_type::IPL => "loader event".into(),
            other => format!("event {other:#010x}"),
        }
    }
}

/// One measurement: one that a boot of the image makes, or made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictedEvent {
    /// The register.
    pub pcr: u8,
    /// What is measured, for people.
    pub event: String,
    /// What is extended.
    pub digest: Bytes32,
}

impl From<&Event<'_>> for PredictedEvent {
    fn from(event: &Event<'_>) -> Self {
        Self { pcr: event.pcr, event: event.describe(), digest: event.digest }
    }
}

/// A parsed log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLog<'a> {
    events: Vec<Event<'a>>,
    startup_locality: u8,
}

impl<'a> EventLog<'a> {
    /// Reads a log that has a SHA-256 bank. Zero or 0xff padding after the last event is allowed.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for a log without a SHA-256 digest in every event, any size that
    /// does not fit, or two StartupLocalities that differ.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, AttestError> {
        let log = Log::parse(bytes, Registers::Pcrs)?;
        let startup_locality = log.startup_locality();
        let events = log.records().iter().map(Event::from_record).collect::<Option<_>>();
        match events.filter(|_| log.banks().contains(&HashAlg::Sha256)) {
            Some(events) => Ok(Self { events, startup_locality }),
            None => Err(Reader::new("event log", bytes).error("no SHA-256 bank")),
        }
    }

    /// The events that extend a register, in order.
    pub fn events(&self) -> &[Event<'a>] {
        &self.events
    }

    /// The SHA-256 values the log leads to, for every register it extends, and for PCR 0.
    pub fn replay(&self) -> BTreeMap<u8, Bytes32> {
        // Profile §10.4.5.3: PCR 0 starts as the locality of TPM2_Startup.
        let mut start = [0; 32];
        start[31] = self.startup_locality;
        let mut pcrs = BTreeMap::from([(0, Bytes(start))]);
        for event in &self.events {
            let value = pcrs.entry(event.pcr).or_insert(Bytes([0; 32]));
            *value = extend(value, &event.digest);
        }
        pcrs
    }
}

/// TPM2_PCR_Extend in the SHA-256 bank: SHA-256(`pcr` ‖ `digest`).
pub fn extend(pcr: &Bytes32, digest: &Bytes32) -> Bytes32 {
    sha256(&[pcr.0, digest.0].concat())
}
