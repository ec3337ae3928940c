//! the verifiers as the protocol's verifier.

use base64::{Engine, engine::general_purpose::STANDARD};
use cvm_base::{Bytes, Bytes32, sha256};
use cvm_collateral::tee::{self, Submodule, TeeClaims, TeeError, Vendors};
use cvm_evidence::{AttestError, Evidence, Reference, wire::HandshakeParams};
use cvm_layout::{
    manifest::{Manifest, Stage},
    names::Name,
};
use cvm_release::{binding::Binding, messages::Tee};
use cvm_release_server::{
    Chip, EnrolledImage, EvidenceVerifier, Fault, Prepared, Reason, ReleaseRefusal, Verified,
    VerifiedDevice,
};
use cvm_verify::{
    Claims, CredentialState, Phase, Roots,
    ak_certificate::{self, AkStatement},
    gpu::GpuError,
    measured,
};
use serde_json::{Value, json};

/// What the CPU's evidence says, in a token's claims.
const CPU: &str = "/submods/cpu0/ear.veraison.annotated-evidence";
/// What names the machine in a kind's claims: AMD's chip, Intel's (PPID), a TPM's endorsement
/// certificate.
const CHIPS: [&str; 3] = ["chip_id", "platform_provider_id", "ek_certificate_sha256"];
/// The trust of a TPM whose claims name none.
const UNTRUSTED_HOST: &str = "untrusted-host";

/// Checks evidence of TPMs and TEEs, and sample evidence where a test's policy folder says so.
pub struct Verifier {
    /// Who may endorse a TPM.
    pub roots: Roots,
    /// Who makes TEEs, and what they published.
    pub vendors: Vendors,
    /// Whether `sample` evidence, which anybody can make, takes part in the protocol.
    pub allow_sample: bool,
}

impl EvidenceVerifier for Verifier {
    fn prepare(&self, tee: Tee, extra_params: &Value) -> Result<Prepared, ReleaseRefusal> {
        match tee {
            Tee::Tpm => prepare_tpm(extra_params),
            Tee::Snp | Tee::Tdx | Tee::AzSnpVtpm | Tee::AzTdxVtpm => Ok(Prepared::default()),
            // Stock clients send no evidence ahead. Whether sample evidence counts is told only
            // once it is shown, so that the protocol can be tried with a stock client.
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
    ) -> Result<Verified, ReleaseRefusal> {
        match tee {
            Tee::Tpm => self.verify_tpm(evidence, binding, kept, now),
            Tee::Snp | Tee::Tdx | Tee::AzSnpVtpm | Tee::AzTdxVtpm => {
                self.verify_tee(tee, evidence, binding, now)
            }
            Tee::Sample if self.allow_sample => verify_sample(evidence, binding),
            other => Err(unsupported(other)),
        }
    }

    fn devices(
        &self,
        additional: &str,
        binding: &Binding,
        now: u64,
    ) -> Result<Vec<VerifiedDevice>, ReleaseRefusal> {
        let found =
            self.vendors.verify_devices(additional, &binding.0, now).map_err(tee_refusal)?;
        let device = |Submodule { name, kind, claims: TeeClaims { claims, incomplete } }| {
            VerifiedDevice { name, kind, claims, status: status(incomplete) }
        };
        Ok(found.into_iter().map(device).collect())
    }

    fn compare(
        &self,
        claims: &Value,
        image: &EnrolledImage,
        stage: Stage,
    ) -> Result<(), ReleaseRefusal> {
        self.compare_cpu(claims, image, stage)?;
        match stage {
            Stage::Boot => Ok(()),
            Stage::Running => {
                tee::check_gpus(claims.get("submods").unwrap_or(&Value::Null)).map_err(gpu_refusal)
            }
        }
    }

    fn reference(&self, image: &EnrolledImage, stage: Stage) -> Result<Value, Fault> {
        let fault = |e: serde_json::Error| Fault::new("reading the reference values", e);
        match stage {
            Stage::Boot => Ok(image.reference.clone()),
            Stage::Running => {
                let reference: Reference =
                    serde_json::from_value(image.reference.clone()).map_err(fault)?;
                serde_json::to_value(reference.after_handoff()).map_err(fault)
            }
        }
    }

    /// SEV-SNP measures nothing at run time, so its claims cannot show the handoff. REPORT_ID is
    /// drawn by the firmware for each launch and is the guest's until it ends.
    fn guest(&self, claims: &Value, stage: Stage) -> Option<Bytes32> {
        let id = report_id(claims.pointer(CPU)?).ok()??;
        Some(match stage {
            Stage::Boot => id,
            Stage::Running => sha256(&[b"flare-cvm/v1/running/", &id.0[..]].concat()),
        })
    }

    fn shows(&self, claims: &Value, image: &EnrolledImage) -> bool {
        let Some(evidence) = claims.pointer(CPU) else { return false };
        let Ok(reference) = serde_json::from_value::<Reference>(image.reference.clone()) else {
            return false;
        };
        let phase = match measured::phase(evidence, &reference) {
            Some((phase, _)) => phase,
            None => {
                Claims::from_json(evidence).map_or(Phase::Other, |claims| claims.phase(&reference))
            }
        };
        phase != Phase::Other
    }

    fn chips(&self, claims: &Value) -> Vec<Chip> {
        let kinds = claims
            .pointer(CPU)
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|kinds| kinds.values());
        kinds
            .flat_map(|kind| CHIPS.iter().filter_map(|name| kind.get(name)?.as_str()?.parse().ok()))
            .collect()
    }
}

impl Verifier {
    /// Whether the CPU shows this image in the stage's phase.
    fn compare_cpu(
        &self,
        claims: &Value,
        image: &EnrolledImage,
        stage: Stage,
    ) -> Result<(), ReleaseRefusal> {
        let evidence = claims.pointer(CPU).unwrap_or(&Value::Null);
        if self.allow_sample && evidence.get("sample").is_some() {
            // It shows no phase and names no guest, so that a release could be had any number of
            // times.
            return match stage {
                Stage::Boot => Ok(()),
                Stage::Running => Err(ReleaseRefusal::new(
                    Reason::Unsupported,
                    "sample evidence shows no running system",
                )),
            };
        }
        let fault =
            |e: String| ReleaseRefusal::from(Fault::new("comparing with the reference values", e));
        let reference: Reference =
            serde_json::from_value(image.reference.clone()).map_err(|e| fault(e.to_string()))?;
        if let Some((phase, problem)) = measured::phase(evidence, &reference) {
            // Evidence of SEV-SNP does not show the handoff, so that what is released later is
            // released in either phase.
            let phase = match (report_id(evidence)?, stage, phase) {
                (Some(_), Stage::Running, Phase::Boot) => Phase::AfterHandoff,
                _ => phase,
            };
            return in_phase(stage, phase, || {
                ReleaseRefusal::new(Reason::WrongMeasurement, problem)
            });
        }
        let claims = Claims::from_json(evidence).map_err(|e| fault(e.to_string()))?;
        in_phase(stage, claims.phase(&reference), || {
            let found: Vec<String> =
                claims.mismatches(&reference).iter().map(ToString::to_string).collect();
            ReleaseRefusal::new(Reason::WrongPcr, found.join("; "))
        })
    }
}

fn in_phase(
    stage: Stage,
    phase: Phase,
    differs: impl FnOnce() -> ReleaseRefusal,
) -> Result<(), ReleaseRefusal> {
    match (stage, phase) {
        (Stage::Boot, Phase::Boot) | (Stage::Running, Phase::AfterHandoff) => Ok(()),
        (Stage::Boot, Phase::AfterHandoff | Phase::JobsOpened) => Err(ReleaseRefusal::new(
            Reason::AfterHandoff,
            "the CVM has handed off: it is past the phase of secrets",
        )),
        (Stage::Running, Phase::Boot) => Err(ReleaseRefusal::new(
            Reason::BeforeHandoff,
            "the CVM still boots: this half is for its running system",
        )),
        (Stage::Running, Phase::JobsOpened) => {
            let detail = "the running system has opened its job store, as its PCR 15 or RTMR3 says";
            Err(ReleaseRefusal::new(Reason::AfterJobs, detail))
        }
        (_, Phase::Other) => Err(differs()),
    }
}

/// How SEV-SNP's firmware names the launch, in claims of that kind. Without it such a guest could
/// have any number of releases.
fn report_id(evidence: &Value) -> Result<Option<Bytes32>, ReleaseRefusal> {
    let Some(snp) = evidence.get("snp") else { return Ok(None) };
    let id = snp.get("report_id").and_then(Value::as_str).and_then(|id| id.parse().ok());
    id.map(Some).ok_or_else(|| {
        ReleaseRefusal::new(Reason::WrongMeasurement, "the SNP report names no launch (REPORT_ID)")
    })
}

/// Why the devices of a session are not those that an image requires.
fn gpu_refusal(error: TeeError) -> ReleaseRefusal {
    let reason = match &error {
        TeeError::Gpu(GpuError::Topology { .. }) => Reason::NoGpu,
        TeeError::Gpu(_) => Reason::GpuNotAccepted,
        _ => Reason::Internal,
    };
    ReleaseRefusal::new(reason, error.to_string())
}

fn status(incomplete: bool) -> &'static str {
    if incomplete { "warning" } else { "affirming" }
}

/// What `party` can state of the attestation key in a token's claims; `None` where the evidence has
/// none.
pub fn attestation_key(
    party: &Name,
    manifest: &Manifest,
    claims: &Value,
    now: u64,
) -> Result<Option<AkStatement>, Fault> {
    let evidence = claims.pointer(CPU).unwrap_or(&Value::Null);
    let Some(Claims::Tpm(tpm)) = Claims::from_json(evidence).ok() else { return Ok(None) };
    let of_another_hash =
        |_| Fault::new("certifying an attestation key", "its name is not SHA-256's");
    Ok(Some(AkStatement {
        version: ak_certificate::VERSION,
        party: party.clone(),
        transcript: manifest.split_key.transcript,
        image_id: manifest.image_id,
        ak_name: Bytes(tpm.ak_name.try_into().map_err(of_another_hash)?),
        ek_root_sha256: Some(tpm.ek_root_sha256),
        trust: evidence
            .pointer("/tpm/trust")
            .and_then(Value::as_str)
            .unwrap_or(UNTRUSTED_HOST)
            .to_owned(),
        issued_at: now,
    }))
}

fn unsupported(tee: Tee) -> ReleaseRefusal {
    ReleaseRefusal::new(
        Reason::Unsupported,
        format!("evidence of kind {} is not accepted here", tee.name()),
    )
}

fn prepare_tpm(extra_params: &Value) -> Result<Prepared, ReleaseRefusal> {
    let text = extra_params.as_str().unwrap_or_default();
    let params: HandshakeParams = serde_json::from_str(text).map_err(|e| {
        ReleaseRefusal::new(
            Reason::Malformed,
            format!("extra-params do not carry a TPM's keys: {e}"),
        )
    })?;
    let (challenge, state) = cvm_verify::challenge(&params).map_err(refusal)?;
    let fault = |e: serde_json::Error| ReleaseRefusal::from(Fault::new("writing a challenge", e));
    Ok(Prepared {
        extra_params: serde_json::to_string(&challenge).map_err(fault)?,
        kept: serde_json::to_vec(&state).map_err(fault)?,
    })
}

impl Verifier {
    fn verify_tpm(
        &self,
        evidence: &Value,
        binding: &Binding,
        kept: &[u8],
        now: u64,
    ) -> Result<Verified, ReleaseRefusal> {
        let state: CredentialState = serde_json::from_slice(kept)
            .map_err(|e| ReleaseRefusal::from(Fault::new("reading a challenge", e)))?;
        let evidence = Evidence::from_json(Tee::Tpm.name(), evidence).map_err(refusal)?;
        let binding = cvm_verify::Binding { digest: &binding.0, credential: Some(&state) };
        let claims = cvm_verify::verify(&evidence, &binding, &self.roots, now).map_err(refusal)?;
        let claims = claims.to_json().get("tpm").cloned().unwrap_or_default();
        let trust =
            claims.get("trust").and_then(Value::as_str).unwrap_or(UNTRUSTED_HOST).to_owned();
        // Genuine, but whoever runs the TPM's host could have made it: never `affirming`.
        Ok(Verified { claims, status: "warning", trust })
    }
}

impl Verifier {
    fn verify_tee(
        &self,
        tee: Tee,
        evidence: &Value,
        binding: &Binding,
        now: u64,
    ) -> Result<Verified, ReleaseRefusal> {
        let TeeClaims { claims, incomplete } =
            self.vendors.verify(tee.name(), evidence, &binding.0, now).map_err(tee_refusal)?;
        Ok(Verified { claims, status: status(incomplete), trust: "tee".into() })
    }
}

/// The stock protocol's test evidence: `{"svn", "report_data"}`.
fn verify_sample(evidence: &Value, binding: &Binding) -> Result<Verified, ReleaseRefusal> {
    if evidence.get("report_data").and_then(Value::as_str)
        != Some(STANDARD.encode(binding.0).as_str())
    {
        return Err(ReleaseRefusal::new(
            Reason::WrongNonce,
            "the sample evidence is bound to another session",
        ));
    }
    let claims = json!({ "svn": evidence.get("svn"), "report_data": evidence.get("report_data") });
    Ok(Verified { claims, status: "contraindicated", trust: "none".into() })
}

fn tee_refusal(error: TeeError) -> ReleaseRefusal {
    let reason = match &error {
        TeeError::Kind { .. } => Reason::Unsupported,
        error if error.is_wrong_nonce() => Reason::WrongNonce,
        error if error.is_forbidden() => Reason::ForbiddenGuest,
        error if error.is_malformed() => Reason::Malformed,
        _ => Reason::EvidenceInvalid,
    };
    ReleaseRefusal::new(reason, error.to_string())
}

fn refusal(error: AttestError) -> ReleaseRefusal {
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
    ReleaseRefusal::new(reason, error.to_string())
}
