//! A running CVM's quote, under a key that a key holder certified.
//!
//! Peers cannot repeat credential activation for each token: they believe a key holder's statement
//! ([`crate::ak_certificate`]) of the key, and verify what the key says now. Here is the second
//! half; the caller decides whether somebody certified the key that [`QuotedTpm::ak_name`] names.

use cvm_base::{Bytes, Bytes32, sha256};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{quote, replay};
use crate::{Phase, claims::measurements};
use cvm_evidence::{
    AttestError, Reference,
    eventlog::{EventLog, PredictedEvent, extend, first_difference},
    handoff_digest,
    tpm::{ClockInfo, Public, REQUIRED_PCRS, parse_quote, parse_signature},
    tpm_nonce,
    wire::{Base64, TpmQuote},
};

/// What a running CVM shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotedEvidence {
    /// The attestation key, marshalled TPMT_PUBLIC: its Name is what certificates name.
    pub ak_public: Base64,
    /// The quote, and the values it covers.
    pub tpm_quote: TpmQuote,
    /// The boot's event log, as far as it is short enough to travel: only it names what differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_log: Option<Base64>,
}

/// What such a quote proves, if its key lives in a TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotedTpm {
    /// SHA-256 PCRs 0 to 15, as quoted.
    pub pcrs: [Bytes32; REQUIRED_PCRS],
    /// The attestation key's Name.
    pub ak_name: Bytes<34>,
    /// Vendor specific.
    pub firmware_version: u64,
    /// Clock and counters at the time of the quote.
    pub clock: ClockInfo,
    /// The quote's nonce.
    pub nonce: Bytes32,
    /// The measurements that the log lists; empty without one.
    pub event_log: Vec<PredictedEvent>,
    /// SHA-256 of the log, if there was one.
    pub event_log_sha256: Option<Bytes32>,
}

/// A register that differs from what it must be after the handoff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The register.
    pub pcr: u8,
    /// After the handoff of this image.
    pub expected: Bytes32,
    /// Quoted.
    pub found: Bytes32,
    /// In words.
    pub reason: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pcr, expected, found, reason } = self;
        write!(f, "PCR {pcr} is {found}, expected {expected}: {reason}")
    }
}

/// Verifies a quote over `digest` (a TPM carries its first 32 bytes) under the key that comes with
/// it.
///
/// # Errors
/// [`AttestError`], for the first check that fails; for a log that does not explain the registers
/// as well.
pub fn verify_quoted(
    evidence: &QuotedEvidence,
    digest: &[u8; 48],
) -> Result<QuotedTpm, AttestError> {
    let ak = Public::parse(evidence.ak_public.as_ref())?;
    ak.check_attestation_key()?;
    let ak_name = <[u8; 34]>::try_from(ak.name().as_slice()).map_err(|_| {
        AttestError::AttestationKey { problem: "its Name is not made with SHA-256".into() }
    })?;
    let message = evidence.tpm_quote.message.as_ref();
    quote::check_signature(&ak, message, &parse_signature(evidence.tpm_quote.signature.as_ref())?)?;
    let quote = parse_quote(message)?;
    let nonce = tpm_nonce(digest);
    let hash = ak.check_restricted_signing()?.hash();
    let pcrs = quote::check(&quote, &nonce, &evidence.tpm_quote.pcrs, hash)?;
    let mut event_log = Vec::new();
    if let Some(bytes) = &evidence.event_log {
        let log = EventLog::parse(bytes.as_ref())?;
        check_replay_but_11(&log, &pcrs)?;
        event_log = log.events().iter().map(PredictedEvent::from).collect();
    }
    Ok(QuotedTpm {
        pcrs,
        ak_name: Bytes(ak_name),
        firmware_version: quote.firmware_version,
        clock: quote.clock,
        nonce: Bytes(nonce),
        event_log,
        event_log_sha256: evidence.event_log.as_ref().map(|log| sha256(log.as_ref())),
    })
}

/// The comparison with the reference judges PCR 11: no log lists what was extended after the
/// handoff, and the answer shall name that register, not refuse the log.
fn check_replay_but_11(
    log: &EventLog<'_>,
    pcrs: &[Bytes32; REQUIRED_PCRS],
) -> Result<(), AttestError> {
    match replay::check(log, pcrs) {
        Ok(_) | Err(AttestError::Replay { pcr: 11, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

impl QuotedTpm {
    /// Every register that is not as the reference has it after the handoff; empty exactly in
    /// [`Phase::AfterHandoff`].
    pub fn differences(&self, reference: &Reference) -> Vec<Difference> {
        let mut found = Vec::new();
        for (pcr, predicted) in &reference.tpm.pcrs {
            let expected =
                if *pcr == 11 { extend(predicted, &handoff_digest()) } else { *predicted };
            let Some(quoted) =
                self.pcrs.get(usize::from(*pcr)).filter(|quoted| **quoted != expected)
            else {
                continue;
            };
            let reason = self.explain(*pcr, predicted, quoted, reference);
            found.push(Difference { pcr: *pcr, expected, found: *quoted, reason });
        }
        found
    }

    /// Where in the image's life the machine is.
    pub fn phase(&self, reference: &Reference) -> Phase {
        let at = |pcr: u8| self.pcrs.get(usize::from(pcr));
        match self.differences(reference).as_slice() {
            [] => Phase::AfterHandoff,
            [Difference { pcr: 11, .. }] if at(11) == reference.tpm.pcrs.get(&11) => Phase::Boot,
            _ => Phase::Other,
        }
    }

    fn explain(
        &self,
        pcr: u8,
        predicted: &Bytes32,
        quoted: &Bytes32,
        reference: &Reference,
    ) -> String {
        if pcr == 11 && quoted == predicted {
            return "the image has not handed off".into();
        }
        if self.event_log.is_empty() {
            return "no event log came with the quote".into();
        }
        match first_difference(
            measurements(&reference.tpm.explain, pcr),
            measurements(&self.event_log, pcr),
        ) {
            Some(difference) => difference.to_string(),
            None => "something was measured that no log lists: after the handoff, by software in \
                the guest"
                .into(),
        }
    }

    /// The members of a policy's `tpm` claims, without what certificates add.
    pub fn to_json(&self) -> Value {
        let registers = || self.pcrs.iter().enumerate();
        let pcrs: Value = registers().map(|(pcr, v)| (pcr.to_string(), json!(v))).collect();
        let mut value = json!({
            "ak_name": self.ak_name,
            "firmware_version": format!("{:016x}", self.firmware_version),
            "report_data": self.nonce,
            "event_log_sha256": self.event_log_sha256,
            "pcrs": pcrs,
        });
        if let (Value::Object(members), Ok(Value::Object(clock))) =
            (&mut value, serde_json::to_value(self.clock))
        {
            members.extend(clock);
        }
        for (pcr, digest) in registers() {
            value[format!("pcr{pcr:02}")] = json!(digest);
        }
        value
    }
}
