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

/// Bytes as a report, as a certificate table, as roots, and as Trustee's form of `snp` evidence.
#[cfg(feature = "verifier")]
pub fn snp_evidence(bytes: &[u8]) {
    use crate::snp::{REPORT_BYTES, SigningKey, SnpEvidence, SnpReport, SnpRoots, VerifiedChain, verify};

    let Ok(roots) = SnpRoots::amd() else { return };
    let check = |evidence: &SnpEvidence| {
        for now in [0, 1_760_000_000] {
            let _ = verify(evidence, roots, &[], &Default::default(), now);
        }
        let _ = VerifiedChain::verify(&evidence.certificates, SigningKey::Vlek, roots, &[bytes.to_vec()], 0);
    };
    let _ = (SnpReport::parse(bytes), SnpRoots::from_pem(bytes));
    // A file of a report and the table behind it, as some tools write.
    if let Some((report, table)) = bytes.split_at_checked(REPORT_BYTES)
        && let Ok(evidence) = SnpEvidence::from_extended(report, table)
    {
        check(&evidence);
    }
    if let Ok(evidence) = serde_json::from_slice(bytes).map(|body| SnpEvidence::from_kbs(&body))
        && let Ok(evidence) = evidence
    {
        check(&evidence);
    }
}

/// Bytes as OVMF with and without a kernel, and as an IGVM file.
#[cfg(feature = "predict")]
pub fn launch(bytes: &[u8]) {
    use crate::predict::snp::{Kernel, LaunchInputs, VcpuType, Vmm, launch, launch_igvm};

    let vcpu_type = VcpuType::from_signature(0x0080_0f12);
    let kernel = Kernel { image: bytes, initrd: b"", command_line: "" };
    for (kernel, vmm) in [(None, Vmm::Qemu), (Some(kernel), Vmm::Ec2)] {
        let inputs = LaunchInputs { firmware: bytes, kernel, vcpus: 2, vcpu_type, guest_features: 1, vmm };
        let _ = launch(&inputs);
    }
    let _ = launch_igvm(bytes);
}
