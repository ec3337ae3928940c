//! What a quote alone proved.

use std::collections::BTreeMap;

use cvm_base::Bytes32;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    NotChecked,
    claims::{hex_bytes, hex_u64},
};
use cvm_evidence::{
    eventlog::LoggedEvent,
    tpm::{ClockInfo, Digest, HashAlg},
};

/// A bank's registers.
pub type Registers = BTreeMap<u32, Digest>;

/// What a quote proved, and which checks were not made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteClaims {
    /// The bank of `pcrs`: the strongest use is made of SHA-256, then SHA-384, SHA-512, SHA-1.
    pub bank: HashAlg,
    /// The quoted registers of that bank; empty when no values were shown.
    pub pcrs: Registers,
    /// The quoted registers of the quote's other banks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other_banks: BTreeMap<HashAlg, Registers>,
    /// Which registers the quote covers: `sha256:0,1,2`; several banks are joined by `+`.
    pub selection: String,
    /// The quote's digest over them.
    #[serde(with = "hex_bytes")]
    pub pcr_digest: Vec<u8>,
    /// The quote's `extraData`.
    #[serde(rename = "report_data", with = "hex_bytes")]
    pub nonce: Vec<u8>,
    /// SHA-256 of the attestation key's SubjectPublicKeyInfo.
    pub ak_sha256: Digest,
    /// The attestation key's Name, where its public area was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ak_name: Option<String>,
    /// How it signed: `rsassa-sha256`, `ecdsa-sha384`, ….
    pub ak_scheme: String,
    /// SHA-256 of the root that the attestation key's certificate leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ak_root_sha256: Option<Bytes32>,
    /// Vendor specific; 16 hex digits in JSON.
    #[serde(with = "hex_u64")]
    pub firmware_version: u64,
    /// Clock and counters at the time of the quote.
    #[serde(flatten)]
    pub clock: ClockInfo,
    /// The log's events in registers whose quoted value they lead to, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_log: Option<Vec<LoggedEvent>>,
    /// SHA-256 of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_log_sha256: Option<Bytes32>,
    /// Quoted registers to whose value the log does not lead, where the policy lets that pass:
    /// software measures into them after the firmware closed its log. Their events are not listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_replayed: Vec<u32>,
    /// What was not checked, and why.
    pub not_checked: Vec<NotChecked>,
}

impl QuoteClaims {
    /// The claims as policies read them: one member, `tpm`, with `pcr00` … beside the claims' own
    /// members.
    pub fn to_json(&self) -> Value {
        json!({ "tpm": self.members() })
    }

    /// The content of `tpm`.
    pub fn members(&self) -> Value {
        // Serialization cannot fail: keys are strings and numbers.
        let mut value = serde_json::to_value(self).unwrap_or_default();
        for (register, digest) in &self.pcrs {
            value[format!("pcr{register:02}")] = json!(digest);
        }
        // Invariant 7: whoever runs a virtual TPM's host can make it say anything.
        value["trust"] = json!("untrusted-host");
        value
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// [`cvm_evidence::AttestError::Malformed`].
    pub fn from_json(annotated: &Value) -> Result<Self, cvm_evidence::AttestError> {
        let tpm = annotated.get("tpm").unwrap_or(&Value::Null);
        Deserialize::deserialize(tpm).map_err(|e: serde_json::Error| {
            cvm_evidence::AttestError::malformed("tpm claims", e.to_string())
        })
    }
}
