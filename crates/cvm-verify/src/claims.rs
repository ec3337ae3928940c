//! What verified evidence says, and how it compares with reference values.

use cvm_base::Bytes32;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::acpi;
use cvm_evidence::{
    AttestError, JOBS_PCR, Reference, UNTOUCHED,
    eventlog::{PredictedEvent, extend, first_difference},
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
    /// This image, after `cvm-init` handed off: p5's half of an image that requires GPUs may be
    /// released.
    AfterHandoff,
    /// This image, whose running system has opened the job store of an image that requires GPUs:
    /// nothing is released to it any more.
    JobsOpened,
    /// Not this image, or not in a known state.
    Other,
}

impl Phase {
    /// Its name in claims and logs: `boot`, `after-handoff`, `jobs-opened`, `other`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::AfterHandoff => "after-handoff",
            Self::JobsOpened => "jobs-opened",
            Self::Other => "other",
        }
    }
}

/// What a quote, its event log and its endorsement proved.
///
/// Its JSON form is what policies read; see [`Claims::to_json`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmClaims {
    /// SHA-256 PCRs 0 to 15, as quoted.
    #[serde(with = "pcr_map")]
    pub pcrs: [Bytes32; REQUIRED_PCRS],
    /// PCR 11 was extended by the handoff, after everything that the log explains.
    pub handed_off: bool,
    /// SHA-256 of the root certificate that endorses this TPM. The policy must name it.
    pub ek_root_sha256: Bytes32,
    /// SHA-256 of the endorsement certificate: this TPM.
    pub ek_certificate_sha256: Bytes32,
    /// The attestation key's Name: hash algorithm (2 bytes) and digest.
    #[serde(with = "hex_bytes")]
    pub ak_name: Vec<u8>,
    /// Vendor specific; 16 hex digits in JSON.
    #[serde(with = "hex_u64")]
    pub firmware_version: u64,
    /// Clock and counters at the time of the quote.
    #[serde(flatten)]
    pub clock: ClockInfo,
    /// The quote's nonce: the first half of the session's binding.
    #[serde(rename = "report_data")]
    pub nonce: Bytes32,
    /// The measurements that the log lists, in order, named as far as their digests prove it.
    pub event_log: Vec<PredictedEvent>,
    /// SHA-256 of the log.
    pub event_log_sha256: Bytes32,
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

    /// The content of `ear.veraison.annotated-evidence` in a policy's input: one member, named by
    /// the kind.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Tpm(claims) => json!({ "tpm": claims.to_json() }),
        }
    }

    /// Reads what [`Claims::to_json`] wrote: claims that travelled in a token.
    ///
    /// # Errors
    /// [`AttestError::Kind`] when no known kind is there, [`AttestError::Malformed`] for another
    /// form.
    pub fn from_json(annotated: &Value) -> Result<Self, AttestError> {
        let Some(tpm) = annotated.get("tpm") else {
            return Err(AttestError::Kind { found: "in these claims".into() });
        };
        Deserialize::deserialize(tpm)
            .map(|claims| Self::Tpm(Box::new(claims)))
            .map_err(|e| AttestError::malformed("tpm claims", e.to_string()))
    }
}

impl TpmClaims {
    fn phase(&self, reference: &Reference) -> Phase {
        let differs =
            |pcr: u8, expected: &Bytes32| self.pcrs.get(usize::from(pcr)) != Some(expected);
        let mut differing =
            reference.tpm.pcrs.iter().filter(|(pcr, expected)| differs(**pcr, expected));
        match (differing.next(), differing.next()) {
            (None, _) => Phase::Boot,
            (Some((11, expected)), None)
                if self.pcrs[11] == extend(expected, &handoff_digest()) =>
            {
                // Nobody else extends this register here, and nobody can take it back.
                match self.pcrs[usize::from(JOBS_PCR)] {
                    UNTOUCHED => Phase::AfterHandoff,
                    _ => Phase::JobsOpened,
                }
            }
            _ => Phase::Other,
        }
    }

    fn mismatches(&self, reference: &Reference) -> Vec<PcrMismatch> {
        let mut found = Vec::new();
        for (pcr, expected) in &reference.tpm.pcrs {
            let Some(quoted) =
                self.pcrs.get(usize::from(*pcr)).filter(|quoted| *quoted != expected)
            else {
                continue;
            };
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
        match first_difference(
            measurements(&reference.tpm.explain, pcr),
            measurements(&self.event_log, pcr),
        ) {
            Some(difference) => difference.to_string(),
            None if pcr == 11 && self.handed_off => "the image has handed off".into(),
            None => "software measured something that no log lists".into(),
        }
    }

    fn to_json(&self) -> Value {
        // Serialization cannot fail: string keys only.
        let mut value = serde_json::to_value(self).unwrap_or_default();
        // Stock policies know `pcr00` …; ours compare `pcrs` with the reference's map of the same
        // form.
        for (pcr, digest) in self.pcrs.iter().enumerate() {
            value[format!("pcr{pcr:02}")] = json!(digest);
        }
        // Invariant 7: whoever runs a virtual TPM's host can make it say anything.
        value["trust"] = json!("untrusted-host");
        value["not_checked"] = json!([acpi::in_pcr1()]);
        value
    }
}

pub(crate) fn measurements(
    events: &[PredictedEvent],
    pcr: u8,
) -> impl Iterator<Item = (&str, Bytes32)> {
    events
        .iter()
        .filter(move |event| event.pcr == pcr)
        .map(|event| (event.event.as_str(), event.digest))
}

/// `{"0": hex, …, "15": hex}`, as in `reference.json`.
mod pcr_map {
    use std::collections::BTreeMap;

    use cvm_base::Bytes32;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use cvm_evidence::tpm::REQUIRED_PCRS;

    pub(super) fn serialize<S: Serializer>(
        pcrs: &[Bytes32; REQUIRED_PCRS],
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_map(pcrs.iter().enumerate())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<[Bytes32; REQUIRED_PCRS], D::Error> {
        let map = BTreeMap::<usize, Bytes32>::deserialize(d)?;
        if !map.keys().copied().eq(0..REQUIRED_PCRS) {
            return Err(D::Error::custom("registers other than 0 to 15"));
        }
        let pcrs: Vec<_> = map.into_values().collect();
        pcrs.try_into().map_err(|_| D::Error::custom("registers other than 0 to 15"))
    }
}

pub(crate) mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(d)?).map_err(D::Error::custom)
    }
}

/// A number that JSON readers would round.
pub(crate) mod hex_u64 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(number: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format!("{number:016x}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        u64::from_str_radix(&String::deserialize(d)?, 16).map_err(D::Error::custom)
    }
}
