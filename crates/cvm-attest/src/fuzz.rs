//! The bodies of the fuzz targets, so that ordinary tests run them too. None may panic.

use crate::{
    eventlog::EventLog,
    tpm::{Public, parse_quote, parse_signature},
};

/// Bytes as a quote, as a signature and as a public area.
pub fn tpm_structure(bytes: &[u8]) {
    let _ = parse_quote(bytes).map(|quote| quote.selection.iter().map(ToString::to_string).collect::<Vec<_>>());
    let _ = parse_signature(bytes);
    if let Ok(public) = Public::parse(bytes) {
        let _ = (public.check_attestation_key(), public.check_endorsement_key(), public.name(), public.spki());
    }
}

/// Bytes as an event log.
pub fn event_log(bytes: &[u8]) {
    let Ok(log) = EventLog::parse(bytes) else { return };
    assert!(log.events().len() <= bytes.len() / 48, "an event takes at least 48 bytes");
    assert!(log.replay().len() <= 24);
    let _ = log.events().iter().map(|event| event.describe()).collect::<Vec<_>>();
}

/// Bytes as the handshake's parameters, as a certificate, as the policy's roots.
#[cfg(feature = "verifier")]
pub fn handshake(bytes: &[u8]) {
    if let Ok(params) = serde_json::from_slice(bytes) {
        let _ = crate::challenge(&params);
    }
    let _ = crate::Roots::default().verify_ek(bytes, 0);
    if let Ok(roots) = crate::Roots::from_pem(bytes) {
        let _ = roots.verify_ek(bytes, 0);
    }
}

/// Bytes as a quote, as the documents of collateral, and as collateral.
#[cfg(feature = "verifier")]
pub fn tdx_quote(bytes: &[u8]) {
    use crate::tdx::{Collateral, DcapVerifier, TdxEvidence, fuzz_signed_documents, intel_roots};
    const NOW: u64 = 1_787_894_500;
    let Ok(roots) = intel_roots() else { return };
    if let Ok(evidence) = TdxEvidence::parse(bytes, None) {
        let _ = DcapVerifier::new(roots.clone(), None, NOW).and_then(|v| v.verify(&evidence, None, NOW));
    }
    fuzz_signed_documents(bytes);
    if let Ok(collateral) = Collateral::parse(bytes) {
        let _ = DcapVerifier::new(roots, Some(&collateral), NOW);
    }
}

/// Bytes as a TD's event log.
#[cfg(feature = "verifier")]
pub fn cc_event_log(bytes: &[u8]) {
    let Ok(log) = crate::tdx::CcEventLog::parse(bytes) else { return };
    assert!(log.events().len() <= bytes.len() / 40, "an event takes at least 66 bytes, or a digest of 96 digits");
    let _ = log.replay();
    let _ = log.events().iter().map(crate::tdx::EventClaim::from).collect::<Vec<_>>();
}
