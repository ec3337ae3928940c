//! JSON around evidence: which of its members are evidence, which may be, and which say nothing.

use serde_json::{Map, Value};

use super::{Form, UnpackError, encoding::encoded};

/// Members beside evidence that are not evidence: what the attester bound or was told, and
/// collateral whose signature is checked elsewhere. Nobody signs these members.
///
/// Names are compared in lower case, without dashes.
const LABELS: [&str; 9] = [
    "collateral",
    "userdata",
    "reportdata",
    "runtimedata",
    "initdata",
    "inittimedata",
    "vmconfig",
    "activatedcredential",
    "verifiernonce",
];
/// What a challenge is called. Whoever sent the evidence sent it too.
const NONCES: [&str; 5] = ["nonce", "challenge", "eatnonce", "usernonce", "sessionnonce"];
/// More characters than any label has.
const MAX_LABEL: usize = 128;

/// A JSON text's parts, each by its name.
#[derive(Default)]
pub(super) struct Inside {
    /// What must be readable.
    pub(super) parts: Vec<(String, Vec<u8>)>,
    /// Members that nobody here knows: evidence or not, as their content says.
    pub(super) others: Vec<(String, Vec<u8>)>,
    /// Nonces in hex.
    pub(super) nonces: Vec<Vec<u8>>,
}

/// The parts of a wrapper.
pub(super) fn inside(text: &str) -> Result<Inside, UnpackError> {
    let value: Value = serde_json::from_str(text).map_err(|_| UnpackError::Unknown)?;
    let object = match value {
        Value::String(text) => {
            return Ok(Inside {
                parts: vec![("text".into(), text.into_bytes())],
                ..Inside::default()
            });
        }
        Value::Object(object) => object,
        Value::Array(parts) => return Ok(listed(&parts)),
        _ => return Err(UnpackError::Unknown),
    };
    let has = |name: &str| object.get(name).is_some_and(|value| !value.is_null());
    if object.get("attestation_report").is_some_and(|report| report.get("data").is_some()) {
        return Err(UnpackError::Unsupported("Hygon CSV's evidence is not verified here"));
    }
    if has("evidence") && has("certificate") {
        let devices = Value::Array(vec![Value::Object(object)]).to_string().into_bytes();
        return Ok(Inside { parts: vec![("evidence".into(), devices)], ..Inside::default() });
    }
    let known = known_members(&object);
    let mut found = Inside::default();
    for name in known {
        let part = object
            .get(*name)
            .and_then(as_bytes)
            .filter(|text| !matches!(&text[..], b"" | b"{}" | b"[]"));
        found.parts.extend(part.map(|part| ((*name).to_owned(), part)));
    }
    found.beside(&object, known);
    Ok(found)
}

/// The members of a wrapper that must be readable.
fn known_members(object: &Map<String, Value>) -> &'static [&'static str] {
    let has = |name: &str| object.get(name).is_some_and(|value| !value.is_null());
    match () {
        // A quote and what came with it: Trustee's, Intel's and dstack's clients name the log
        // differently.
        () if object.get("quote").is_some_and(Value::is_string) => {
            &["quote", "cc_eventlog", "event_log", "eventlog", "aa_eventlog"]
        }
        // A TPM's quote: Azure's tools write hex, Trustee's base64, and the key and log around it.
        () if has("tpm_quote") => {
            &["tpm_quote", "ak_public", "event_log", "eventlog", "cc_eventlog"]
        }
        () if has("message") && has("signature") => &["message", "signature", "pcrs"],
        // What services answer, and what requests and composites hold.
        () => &[
            "token",
            "rim",
            "ear",
            "evidence",
            "tee-evidence",
            "primary_evidence",
            "additional_evidence",
            "snp",
            "tdx",
            "sgx",
            "az-snp-vtpm",
            "az-tdx-vtpm",
            "tpm",
            "nvidia",
        ],
    }
}

/// The members beside those that a verifier of KBS evidence reads.
pub(super) fn beside_kbs(json: &[u8]) -> Inside {
    let mut found = Inside::default();
    match serde_json::from_slice(json) {
        Ok(Value::Object(object)) => {
            let has = |name: &str| object.contains_key(name);
            let mut known = vec![];
            if has("attestation_report") {
                known.extend(["attestation_report", "cert_chain"]);
            }
            if has("device_evidence_list") || has("evidence_list") {
                known.extend(["device_evidence_list", "evidence_list", "arch"]);
            }
            if is_azure(&object) {
                known.extend([
                    "version",
                    "tpm_quote",
                    "hcl_report",
                    "vcek",
                    "td_quote",
                    "quote",
                    "report",
                ]);
            }
            found.beside(&object, &known);
        }
        Ok(Value::Array(devices)) => {
            for device in devices.iter().filter_map(Value::as_object) {
                found.beside(device, &["arch", "uuid", "evidence", "certificate"]);
            }
        }
        _ => {}
    }
    found
}

/// Evidence of Azure's vTPM, of either version.
pub(crate) fn is_azure(object: &Map<String, Value>) -> bool {
    let has = |name: &str| object.contains_key(name);
    has("hcl_report") || (has("quote") && has("report"))
}

impl Inside {
    fn beside(&mut self, object: &Map<String, Value>, known: &[&str]) {
        for (name, value) in object.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
            let plain = name.to_ascii_lowercase().replace(['-', '_'], "");
            match value {
                Value::String(text) if NONCES.contains(&plain.as_str()) => {
                    let nonce = Form::of(text.as_bytes()) == Some(Form::Nonce);
                    self.nonces.extend(nonce.then(|| text.clone().into_bytes()));
                }
                _ if NONCES.contains(&plain.as_str()) || LABELS.contains(&plain.as_str()) => {}
                value => self.others.extend(as_bytes(value).map(|bytes| (name.clone(), bytes))),
            }
        }
    }
}

/// Whether this can hold evidence at all: data, as text or as numbers, longer than a digest or a
/// name is.
pub(super) fn is_opaque(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return bytes.len() > MAX_LABEL / 2 };
    match serde_json::from_str(text) {
        Ok(value @ (Value::Array(_) | Value::Object(_) | Value::String(_))) => holds_data(&value),
        _ => is_data(text),
    }
}

fn holds_data(value: &Value) -> bool {
    match value {
        Value::String(text) => is_data(text),
        Value::Array(items) => {
            (items.len() > MAX_LABEL / 2 && items.iter().all(Value::is_u64))
                || items.iter().any(holds_data)
        }
        Value::Object(members) => members.values().any(holds_data),
        _ => false,
    }
}

fn is_data(text: &str) -> bool {
    text.len() > MAX_LABEL
        && (encoded(text).is_some() || text.contains("-----BEGIN") || text.starts_with("eyJ"))
}

/// What a list holds. The token of NVIDIA's SDK is one: its own, which nobody's key signs, in front
/// of those of each verifier by its name.
fn listed(parts: &[Value]) -> Inside {
    let mut found = Inside::default();
    let is_jwt = |pair: &Value| pair.get(0).and_then(Value::as_str) == Some("JWT");
    let others = match parts {
        [own, Value::Object(verifiers), rest @ ..] if is_jwt(own) => {
            for (name, answer) in verifiers {
                let to = if answer.is_array() { &mut found.parts } else { &mut found.others };
                to.extend(as_bytes(answer).map(|bytes| (name.clone(), bytes)));
            }
            rest
        }
        parts => parts,
    };
    let named = |(part, at): (&Value, usize)| Some((format!("[{at}]"), as_bytes(part)?));
    found.others.extend(others.iter().zip(parts.len() - others.len()..).filter_map(named));
    found
}

/// Text as it is meant, bytes that are written as numbers, and JSON as it is.
fn as_bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_u64) => {
            items.iter().map(|item| u8::try_from(item.as_u64()?).ok()).collect()
        }
        Value::Array(_) | Value::Object(_) => Some(value.to_string().into_bytes()),
        _ => None,
    }
}
