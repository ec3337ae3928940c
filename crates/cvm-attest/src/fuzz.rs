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

/// Bytes as a GPU's report and as a set of GPU evidence.
#[cfg(feature = "verifier")]
pub fn gpu_evidence(bytes: &[u8]) {
    use crate::gpu::{Collateral, DeviceEvidence, Report, Roots, verify};

    if let Ok(report) = Report::parse(bytes) {
        let (message, signature) = report.signed_parts();
        assert_eq!(message.len() + signature.len(), bytes.len());
    }
    if let Ok(set) = DeviceEvidence::parse_set(bytes) {
        let roots = Roots::nvidia().expect("embedded");
        for device in set {
            let _ = (device.rim_ids(), verify(&device, &roots, Collateral::default(), None, 1_800_000_000));
        }
    }
}

/// Bytes as a reference manifest.
#[cfg(feature = "verifier")]
pub fn gpu_rim(bytes: &[u8]) {
    if let Ok(rim) = crate::gpu::Rim::parse(bytes, None) {
        let roots = crate::gpu::Roots::nvidia().expect("embedded");
        let _ = (rim.check(&roots, 1_717_200_000), rim.golden_values());
    }
}

/// Bytes as an OCSP response and as a result policy.
#[cfg(feature = "verifier")]
pub fn gpu_collateral(bytes: &[u8]) {
    let _ = crate::gpu::OcspResponse::parse(bytes, None);
    if let Ok(policy) = crate::gpu::ResultPolicy::parse(bytes) {
        let _ = (policy.evaluate(&[]), policy.evaluate_switches(&[]));
    }
}
