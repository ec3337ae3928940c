//! `cvm-attest` behind the protocol's verifier trait.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use cvm_attest::{
    AttestError, Claims, CredentialState, Evidence, Phase, Reference, Roots, TpmClaims, reference::PredictedEvent,
    tpm::ClockInfo, wire::HandshakeParams,
};
use cvm_base::Bytes32;
use cvm_release::{
    binding::Binding,
    messages::Tee,
    server::{Enrolled, EvidenceVerifier, Fault, Prepared, Reason, Refusal, Verified},
};
use serde::Deserialize;
use serde_json::{Value, json};

/// Checks TPM evidence, and sample evidence where a test's policy folder says so.
pub struct Verifier {
    /// Who may endorse a TPM.
    pub roots: Roots,
    /// Whether `sample` evidence, which anybody can make, takes part in the protocol.
    pub allow_sample: bool,
}

impl EvidenceVerifier for Verifier {
    fn prepare(&self, tee: Tee, extra_params: &Value) -> Result<Prepared, Refusal> {
        match tee {
            Tee::Tpm => prepare_tpm(extra_params),
            // Stock clients send no evidence ahead. Whether sample evidence counts is told only once
            // it is shown: a stock client is served the protocol up to there.
            Tee::Sample => Ok(Prepared::default()),
            other => Err(unsupported(other)),
        }
    }

    fn verify(
        &self,
        tee: Tee,
        evidence: &Value,
        binding: &Binding,
        kept: &[u8],
        now: u64,
    ) -> Result<Verified, Refusal> {
        match tee {
            Tee::Tpm => self.verify_tpm(evidence, binding, kept, now),
            Tee::Sample if self.allow_sample => verify_sample(evidence, binding),
            other => Err(unsupported(other)),
        }
    }

    fn compare(&self, claims: &Value, image: &Enrolled) -> Result<(), Refusal> {
        let evidence = claims.pointer("/submods/cpu0/ear.veraison.annotated-evidence").unwrap_or(&Value::Null);
        if self.allow_sample && evidence.get("sample").is_some() {
            return Ok(());
        }
        let fault = |e: String| Refusal::from(Fault::new("comparing with the reference values", e));
        let reference: Reference = serde_json::from_value(image.reference.clone()).map_err(|e| fault(e.to_string()))?;
        let shown: Shown = serde_json::from_value(evidence.get("tpm").cloned().unwrap_or_default())
            .map_err(|e| fault(e.to_string()))?;
        let claims = shown.claims().ok_or_else(|| fault("the claims lack a register".into()))?;
        match claims.phase(&reference) {
            Phase::Boot => Ok(()),
            Phase::AfterHandoff => {
                Err(Refusal::new(Reason::AfterHandoff, "the CVM has handed off: it is past the phase of secrets"))
            }
            Phase::Other => {
                let mismatches = claims.mismatches(&reference);
                let found: Vec<String> = mismatches.iter().map(|m| shown.difference(m.pcr, &reference)).collect();
                Err(Refusal::new(Reason::WrongPcr, found.join("; ")))
            }
        }
    }
}

/// What [`Claims::to_json`] wrote at `attest` and the comparison needs again.
#[derive(Deserialize)]
struct Shown {
    pcrs: BTreeMap<u8, Bytes32>,
    handed_off: bool,
    event_log: Vec<PredictedEvent>,
    event_log_sha256: Bytes32,
    ek_root_sha256: Bytes32,
    ek_certificate_sha256: Bytes32,
    report_data: Bytes32,
}

impl Shown {
    fn claims(&self) -> Option<Claims> {
        let pcrs: Vec<Bytes32> = (0..16).map(|pcr| self.pcrs.get(&pcr).copied()).collect::<Option<_>>()?;
        Some(Claims::Tpm(Box::new(TpmClaims {
            pcrs: pcrs.try_into().ok()?,
            handed_off: self.handed_off,
            ek_root_sha256: self.ek_root_sha256,
            ek_certificate_sha256: self.ek_certificate_sha256,
            event_log_sha256: self.event_log_sha256,
            nonce: self.report_data,
            // These take no part in a comparison; `difference` reads the log.
            event_log: Vec::new(),
            ak_name: Vec::new(),
            firmware_version: 0,
            clock: ClockInfo { clock: 0, reset_count: 0, restart_count: 0, safe: false },
        })))
    }

    /// A register that differs, and the first measurement at which it does.
    fn difference(&self, pcr: u8, reference: &Reference) -> String {
        let of = |events: &[PredictedEvent]| events.iter().filter(|e| e.pcr == pcr).cloned().collect::<Vec<_>>();
        let (expected, measured) = (of(&reference.tpm.explain), of(&self.event_log));
        let at = expected.iter().zip(&measured).take_while(|(e, m)| e.digest == m.digest).count();
        let name = |event: Option<&PredictedEvent>| match event {
            Some(event) => format!("{:?} ({})", event.event, event.digest),
            None => "nothing more".into(),
        };
        format!("PCR {pcr}: expected {}, measured {}", name(expected.get(at)), name(measured.get(at)))
    }
}

fn unsupported(tee: Tee) -> Refusal {
    Refusal::new(Reason::Unsupported, format!("evidence of kind {} is not accepted here", tee.name()))
}

fn prepare_tpm(extra_params: &Value) -> Result<Prepared, Refusal> {
    let text = extra_params.as_str().unwrap_or_default();
    let params: HandshakeParams = serde_json::from_str(text)
        .map_err(|e| Refusal::new(Reason::Malformed, format!("extra-params do not carry a TPM's keys: {e}")))?;
    let (challenge, state) = cvm_attest::challenge(&params).map_err(refusal)?;
    let fault = |e: serde_json::Error| Refusal::from(Fault::new("writing a challenge", e));
    Ok(Prepared {
        extra_params: serde_json::to_string(&challenge).map_err(fault)?,
        kept: serde_json::to_vec(&state).map_err(fault)?,
    })
}

impl Verifier {
    fn verify_tpm(&self, evidence: &Value, binding: &Binding, kept: &[u8], now: u64) -> Result<Verified, Refusal> {
        let state: CredentialState =
            serde_json::from_slice(kept).map_err(|e| Refusal::from(Fault::new("reading a challenge", e)))?;
        let evidence = Evidence::from_json(Tee::Tpm.name(), evidence).map_err(refusal)?;
        let binding = cvm_attest::Binding { digest: &binding.0, credential: Some(&state) };
        let claims = cvm_attest::verify(&evidence, &binding, &self.roots, now).map_err(refusal)?;
        let claims = claims.to_json().get("tpm").cloned().unwrap_or_default();
        let trust = claims.get("trust").and_then(Value::as_str).unwrap_or("untrusted-host").to_owned();
        // Genuine, but whoever runs the TPM's host could have made it: never `affirming`.
        Ok(Verified { claims, status: "warning", trust })
    }
}

/// The stock protocol's test evidence: `{"svn", "report_data"}`.
fn verify_sample(evidence: &Value, binding: &Binding) -> Result<Verified, Refusal> {
    if evidence.get("report_data").and_then(Value::as_str) != Some(STANDARD.encode(binding.0).as_str()) {
        return Err(Refusal::new(Reason::WrongNonce, "the sample evidence is bound to another session"));
    }
    let claims = json!({ "svn": evidence.get("svn"), "report_data": evidence.get("report_data") });
    Ok(Verified { claims, status: "contraindicated", trust: "none".into() })
}

fn refusal(error: AttestError) -> Refusal {
    let reason = match &error {
        AttestError::Malformed { .. } => Reason::Malformed,
        AttestError::Kind { .. } => Reason::Unsupported,
        AttestError::UnknownRoot | AttestError::EndorsementCertificate { .. } => Reason::UnknownEk,
        AttestError::AttestationKey { .. }
        | AttestError::EndorsementTemplate { .. }
        | AttestError::EndorsementMismatch
        | AttestError::NotEndorsed { .. }
        | AttestError::Credential
        | AttestError::Substituted { .. } => Reason::AkNotBound,
        AttestError::Nonce { .. } => Reason::WrongNonce,
        AttestError::Selection { .. } => Reason::WrongSelection,
        AttestError::Crypto { .. } => Reason::Internal,
        _ => Reason::EvidenceInvalid,
    };
    Refusal::new(reason, error.to_string())
}
