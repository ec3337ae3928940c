//! Evidence of one session of the release protocol.

use cvm_base::{Bytes, sha256};

use super::{CredentialState, Roots, quote, replay};
use crate::{Claims, TpmClaims};
use cvm_evidence::{
    AttestError, Evidence,
    eventlog::{EventLog, PredictedEvent},
    tpm::{Public, parse_quote, parse_signature},
    tpm_nonce,
    wire::TpmEvidence,
};

/// What evidence must be bound to: this session, and no other.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// The protocol's SHA-384 over nonce and TEE public key. Each kind carries what fits; a TPM its
    /// first 32 bytes ([`tpm_nonce`]).
    pub digest: &'a [u8; 48],
    /// What [`challenge`] returned in this session's handshake. `None` refuses every TPM.
    pub credential: Option<&'a CredentialState>,
}

/// Verifies evidence of any kind.
///
/// `now` is in seconds since 1970 UTC, from a clock that the verifier trusts. Claims say what is
/// true, not whether it is acceptable: the caller's policy compares them with a
/// [`cvm_evidence::Reference`] and must name the endorsement root.
///
/// # Errors
/// [`AttestError`], for the first check that fails.
pub fn verify(
    evidence: &Evidence,
    binding: &Binding<'_>,
    roots: &Roots,
    now: u64,
) -> Result<Claims, AttestError> {
    match evidence {
        Evidence::Tpm(evidence) => verify_tpm(evidence, binding, roots, now).map(Claims::Tpm),
    }
}

fn verify_tpm(
    evidence: &TpmEvidence,
    binding: &Binding<'_>,
    roots: &Roots,
    now: u64,
) -> Result<Box<TpmClaims>, AttestError> {
    let missing = |missing| AttestError::NotEndorsed { missing };
    let credential = binding.credential.ok_or(missing("credential challenge in this session"))?;
    let ek_certificate =
        evidence.ek_certificate.as_ref().ok_or(missing("endorsement certificate"))?.as_ref();
    let answer =
        evidence.activated_credential.as_ref().ok_or(missing("activated credential"))?.as_ref();
    let log_bytes = evidence.event_log.as_ref().ok_or(missing("event log"))?.as_ref();

    // The attestation key lives in a TPM that a named root endorsed …
    let ak = Public::parse(credential.ak_public())?;
    ak.check_attestation_key()?;
    if evidence.ak_public.0 != ak.spki() {
        return Err(AttestError::Substituted { member: "attestation key" });
    }
    let ek_certificate_sha256 = sha256(ek_certificate);
    if ek_certificate_sha256 != credential.ek_certificate_sha256() {
        return Err(AttestError::Substituted { member: "endorsement certificate" });
    }
    let ek_root_sha256 = roots.verify_ek(ek_certificate, now)?;
    credential.check(answer)?;

    // … it signed this quote, in this session, over exactly these registers …
    let signature = parse_signature(evidence.tpm_quote.signature.as_ref())?;
    let message = evidence.tpm_quote.message.as_ref();
    quote::check_signature(&ak, message, &signature)?;
    let quote = parse_quote(message)?;
    let nonce = tpm_nonce(binding.digest);
    let hash = ak.check_restricted_signing()?.hash();
    let pcrs = quote::check(&quote, &nonce, &evidence.tpm_quote.pcrs, hash)?;

    // … whose values the log explains.
    let log = EventLog::parse(log_bytes)?;
    let handed_off = replay::check(&log, &pcrs)?;
    Ok(Box::new(TpmClaims {
        pcrs,
        handed_off,
        ek_root_sha256,
        ek_certificate_sha256,
        ak_name: ak.name(),
        firmware_version: quote.firmware_version,
        clock: quote.clock,
        nonce: Bytes(nonce),
        event_log: log.events().iter().map(PredictedEvent::from).collect(),
        event_log_sha256: sha256(log_bytes),
    }))
}
