//! What verified evidence says, and how it compares with reference values.

use cvm_base::Bytes32;
use serde_json::{Map, Value, json};

use crate::{
    Reference,
    eventlog::{Event, extend},
    handoff_digest,
    tpm::{ClockInfo, REQUIRED_PCRS},
};

/// What evidence proved. A new kind is a variant here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claims {
    /// A TPM 2.0.
    Tpm(Box<TpmClaims>),
}

/// When in an image's life the evidence was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// `cvm-init` of this image is running: the only phase in which halves are released.
    Boot,
    /// This image, after `cvm-init` handed off.
    AfterHandoff,
    /// Not this image, or not in a known state.
    Other,
}

impl Phase {
    /// Its name in claims and logs: `boot`, `after-handoff`, `other`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::AfterHandoff => "after-handoff",
            Self::Other => "other",
        }
    }
}

/// What a quote, its event log and its endorsement proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmClaims {
    /// SHA-256 PCRs 0 to 15, as quoted.
    pub pcrs: [Bytes32; REQUIRED_PCRS],
    /// PCR 11 was extended by the handoff behind everything that the log explains.
    pub handed_off: bool,
    /// SHA-256 of the root certificate that endorses this TPM. The policy must name it.
    pub ek_root_sha256: Bytes32,
    /// SHA-256 of the endorsement certificate: this TPM.
    pub ek_certificate_sha256: Bytes32,
    /// The attestation key's Name: hash algorithm (2 bytes) and digest.
    pub ak_name: Vec<u8>,
    /// Vendor specific.
    pub firmware_version: u64,
    /// Clock and counters at the time of the quote.
    pub clock: ClockInfo,
    /// The quote's nonce: the first half of the session's binding.
    pub nonce: Bytes32,
    /// The measurements that the log lists, in order.
    pub event_log: Vec<LoggedEvent>,
    /// SHA-256 of the log.
    pub event_log_sha256: Bytes32,
}

/// One measurement, with a name for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedEvent {
    /// The register.
    pub pcr: u8,
    /// What was measured, as far as the digest proves it.
    pub event: String,
    /// What was extended.
    pub digest: Bytes32,
}

impl From<&Event<'_>> for LoggedEvent {
    fn from(event: &Event<'_>) -> Self {
        Self { pcr: event.pcr, event: event.describe(), digest: event.digest }
    }
}

/// A register that differs from its reference value, and the first measurement at which it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcrMismatch {
    /// The register.
    pub pcr: u8,
    /// The reference value.
    pub expected: Bytes32,
    /// The quoted value.
    pub found: Bytes32,
    /// In words: which measurement was expected, which one was made.
    pub reason: String,
}

impl std::fmt::Display for PcrMismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PCR {}: {}", self.pcr, self.reason)
    }
}

impl Claims {
    /// The protocol's name of the kind.
    pub fn tee(&self) -> &'static str {
        match self {
            Self::Tpm(_) => "tpm",
        }
    }

    /// In which phase of which image's life the evidence was made: of this one, or `Other`.
    pub fn phase(&self, reference: &Reference) -> Phase {
        match self {
            Self::Tpm(claims) => claims.phase(reference),
        }
    }

    /// Every difference from the reference; empty exactly in [`Phase::Boot`].
    pub fn mismatches(&self, reference: &Reference) -> Vec<PcrMismatch> {
        match self {
            Self::Tpm(claims) => claims.mismatches(reference),
        }
    }

    /// The content of `ear.veraison.annotated-evidence` in a policy's input: one member, named by the kind.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Tpm(claims) => json!({ "tpm": claims.to_json() }),
        }
    }
}

impl TpmClaims {
    fn phase(&self, reference: &Reference) -> Phase {
        let differs = |pcr: u8, expected: &Bytes32| self.pcrs.get(usize::from(pcr)) != Some(expected);
        let mut differing = reference.tpm.pcrs.iter().filter(|(pcr, expected)| differs(**pcr, expected));
        match (differing.next(), differing.next()) {
            (None, _) => Phase::Boot,
            (Some((11, expected)), None) if self.pcrs[11] == extend(expected, &handoff_digest()) => Phase::AfterHandoff,
            _ => Phase::Other,
        }
    }

    fn mismatches(&self, reference: &Reference) -> Vec<PcrMismatch> {
        let mut found = Vec::new();
        for (pcr, expected) in &reference.tpm.pcrs {
            let Some(quoted) = self.pcrs.get(usize::from(*pcr)).filter(|quoted| *quoted != expected) else { continue };
            found.push(PcrMismatch {
                pcr: *pcr,
                expected: *expected,
                found: *quoted,
                reason: self.explain(*pcr, reference),
            });
        }
        found
    }

    fn explain(&self, pcr: u8, reference: &Reference) -> String {
        let mut expected = reference.tpm.explain.iter().filter(|event| event.pcr == pcr);
        let mut logged = self.event_log.iter().filter(|event| event.pcr == pcr);
        loop {
            return match (expected.next(), logged.next()) {
                (Some(e), Some(l)) if e.digest == l.digest => continue,
                (Some(e), Some(l)) => {
                    format!("expected \"{}\" ({}), measured \"{}\" ({})", e.event, e.digest, l.event, l.digest)
                }
                (Some(e), None) => format!("expected \"{}\" ({}), which was not measured", e.event, e.digest),
                (None, Some(l)) => format!("\"{}\" ({}) was measured in addition", l.event, l.digest),
                (None, None) if pcr == 11 && self.handed_off => "the image has handed off".into(),
                (None, None) => "software measured something that no log lists".into(),
            };
        }
    }

    fn to_json(&self) -> Value {
        let mut map = Map::new();
        // Stock policies know `pcr00` …; ours compare `pcrs` with the reference's map of the same form.
        let mut pcrs = Map::new();
        for (pcr, value) in self.pcrs.iter().enumerate() {
            map.insert(format!("pcr{pcr:02}"), json!(value));
            pcrs.insert(pcr.to_string(), json!(value));
        }
        map.insert("pcrs".into(), pcrs.into());
        map.insert("report_data".into(), json!(self.nonce));
        map.insert("handed_off".into(), json!(self.handed_off));
        map.insert("ek_root_sha256".into(), json!(self.ek_root_sha256));
        map.insert("ek_certificate_sha256".into(), json!(self.ek_certificate_sha256));
        map.insert("ak_name".into(), json!(self.ak_name.iter().map(|b| format!("{b:02x}")).collect::<String>()));
        map.insert("firmware_version".into(), json!(format!("{:016x}", self.firmware_version)));
        map.insert("clock".into(), json!(self.clock.clock));
        map.insert("clock_safe".into(), json!(self.clock.safe));
        map.insert("reset_count".into(), json!(self.clock.reset_count));
        map.insert("restart_count".into(), json!(self.clock.restart_count));
        map.insert("event_log_sha256".into(), json!(self.event_log_sha256));
        let events = self.event_log.iter();
        let events = events.map(|e| json!({ "pcr": e.pcr, "event": e.event, "digest": e.digest }));
        map.insert("event_log".into(), events.collect());
        // DESIGN §2.7: whoever runs a virtual TPM's host can make it say anything.
        map.insert("trust".into(), json!("untrusted-host"));
        map.into()
    }
}
