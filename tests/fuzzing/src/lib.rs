//! The bodies of the fuzz targets, so that ordinary tests run them too. None may panic.
//!
//! `fuzz/` and this crate's own tests link this crate; no product may. A body is here if it needs
//! more than one call of a public function; targets that do not call their crates themselves.

mod agent;

pub use agent::{agent_config, agent_request, agent_token, snp_report_file};
use cvm_evidence::{
    eventlog::{EventLog, Log, LoggedEvent, Registers},
    tpm::{Public, parse_quote, parse_signature},
};

/// Bytes as a quote, as a signature and as a public area.
pub fn tpm_structure(bytes: &[u8]) {
    let _ = parse_quote(bytes)
        .map(|quote| quote.selection.iter().map(ToString::to_string).collect::<Vec<_>>());
    let _ = parse_signature(bytes);
    if let Ok(public) = Public::parse(bytes) {
        let _ = (
            public.check_attestation_key(),
            public.check_endorsement_key(),
            public.name(),
            public.spki(),
        );
    }
}

/// Bytes as an AK certificate, and as the statement in one that is signed.
pub fn ak_certificate(bytes: &[u8]) {
    use cvm_verify::ak_certificate::AkCertificate;
    if let Ok(certificate) = AkCertificate::parse(bytes) {
        assert_eq!(AkCertificate::parse(&certificate.to_bytes()).as_ref(), Ok(&certificate));
        let _ = certificate.claimed();
    }
    let _ = cvm_verify::ak_certificate::AkStatement::parse(bytes);
}

/// Bytes as an event log, of a TPM and of a TD.
pub fn event_log(bytes: &[u8]) {
    for registers in [Registers::Pcrs, Registers::ConfidentialComputing] {
        let Ok(log) = Log::parse(bytes, registers) else { continue };
        assert!(log.records().len() <= bytes.len() / 16, "an event takes at least 16 bytes");
        let _ = log.records().iter().map(|record| record.texts().len()).sum::<usize>();
        for bank in log.banks() {
            let replayed = log.replay(*bank).unwrap_or_default();
            assert!(replayed.len() <= 24);
            let _ = replayed
                .iter()
                .map(|(register, value)| log.explain(*register, value))
                .collect::<Vec<_>>();
            let _ = log
                .records()
                .iter()
                .map(|record| LoggedEvent::new(record, *bank).name())
                .collect::<Vec<_>>();
        }
    }
    let Ok(log) = EventLog::parse(bytes) else { return };
    assert!(log.events().len() <= bytes.len() / 48, "an event takes at least 48 bytes");
    assert!(log.replay().len() <= 24);
    let _ = log.events().iter().map(|event| event.describe()).collect::<Vec<_>>();
}

/// Bytes as the handshake's parameters, as a certificate, as the policy's roots.
pub fn handshake(bytes: &[u8]) {
    if let Ok(params) = serde_json::from_slice(bytes) {
        let _ = cvm_verify::challenge(&params);
    }
    let _ = cvm_verify::Roots::default().verify_ek(bytes, 0);
    if let Ok(roots) = cvm_verify::Roots::from_pem(bytes) {
        let _ = roots.verify_ek(bytes, 0);
    }
}

/// Bytes as a file of any form, and as evidence.
pub fn file(bytes: &[u8]) {
    use cvm_verify::{
        appraise::{EvidenceSet, Terms},
        files::unpack,
    };

    let Ok(found) = unpack(bytes) else { return };
    let size: usize = found.pieces.iter().map(|piece| piece.bytes.len()).sum();
    // A PCR value grows to its hex, a key to its name; nothing multiplies.
    assert!(size <= 16 * bytes.len() + 4096, "{size} bytes out of {}", bytes.len());
    let mut set = EvidenceSet::default();
    let _ = set.add("", "file", bytes.to_vec());
    let _ = set.verify(&Terms { now: 1_760_000_000, ..Terms::default() });
}

/// Bytes as a report, as a certificate table, as roots, and as Trustee's form of `snp` evidence.
pub fn snp_evidence(bytes: &[u8]) {
    use cvm_verify::snp::{
        REPORT_BYTES, SigningKey, SnpEvidence, SnpReport, SnpRoots, VerifiedChain, verify,
    };

    let Ok(roots) = SnpRoots::amd() else { return };
    let check = |evidence: &SnpEvidence| {
        for now in [0, 1_760_000_000] {
            let _ = verify(evidence, roots, &[], &Default::default(), now);
        }
        let _ = VerifiedChain::verify(
            &evidence.certificates,
            SigningKey::Vlek,
            roots,
            &[bytes.to_vec()],
            0,
        );
    };
    let _ = (SnpReport::parse(bytes), SnpRoots::from_pem(bytes));
    // A file of a report and then its table, as some tools write it.
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

/// Bytes as evidence of every TEE in the release protocol, as claims, and as a report for a stock
/// verifier.
pub fn tee_evidence(bytes: &[u8]) {
    use cvm_collateral::tee::{KINDS, Vendors};
    use cvm_evidence::{Reference, trustee::SnpBody};
    use cvm_verify::measured::phase;

    if let Ok(body) = SnpBody::new(bytes, vec![]) {
        assert_eq!(body.report().map(|report| report.len()), Ok(bytes.len()));
    }
    let _ = cvm_verify::x509::read_crls(bytes);
    let (Ok(vendors), Ok(body)) =
        (Vendors::genuine(), serde_json::from_slice::<serde_json::Value>(bytes))
    else {
        return;
    };
    for kind in KINDS {
        assert!(
            vendors.verify(kind, &body, &[0; 48], 1_760_000_000).is_err(),
            "nobody's evidence answers zeros"
        );
    }
    if let Ok(text) = str::from_utf8(bytes) {
        assert!(
            vendors.verify_devices(text, &[0; 48], 1_760_000_000).is_err(),
            "no device's evidence answers zeros"
        );
    }
    let _ = cvm_collateral::tee::check_gpus(&body);
    let Ok(reference) = Reference::parse(bytes) else {
        let tpm = cvm_evidence::reference::TpmReference::from_events(vec![], &[]);
        let none = cvm_evidence::reference::Platforms::default();
        let zeros = cvm_base::Bytes([0; 32]);
        let reference = Reference::new(cvm_base::Bytes([0; 16]), zeros, tpm, none);
        assert!(
            phase(&body, &reference).is_none_or(|(phase, _)| phase == cvm_verify::Phase::Other)
        );
        return;
    };
    let _ = phase(&body, &reference);
}

/// Bytes as OVMF with and without a kernel, and as an IGVM file.
pub fn launch(bytes: &[u8]) {
    use cvm_predict::snp::{Kernel, LaunchInputs, VcpuType, Vmm, launch, launch_igvm};

    let Some(vcpu_type) = VcpuType::from_model("EPYC") else { return };
    let kernel = Kernel { image: bytes, initrd: b"", command_line: "" };
    for (kernel, vmm) in [(None, Vmm::Qemu), (Some(kernel), Vmm::Ec2)] {
        let inputs =
            LaunchInputs { firmware: bytes, kernel, vcpus: 2, vcpu_type, guest_features: 1, vmm };
        let _ = launch(&inputs);
    }
    let _ = launch_igvm(bytes);
}

/// Bytes as an attestation key, as PCR values, and as message and signature of a quote.
pub fn tpm_quote(bytes: &[u8]) {
    use cvm_verify::quote::{
        AttestationKey, PcrValues, QuoteClaims, QuoteEvidence, TpmPolicy, verify,
    };
    let _ = PcrValues::parse(bytes);
    if let Ok(json) = serde_json::from_slice(bytes) {
        let _ = QuoteClaims::from_json(&json);
    }
    let ak = AttestationKey::parse(bytes);
    if let Ok(ak) = &ak {
        assert!(!ak.spki().is_empty());
    }
    // Any key will do as the fallback: nothing verifies under it.
    let Ok(ak) = ak.or_else(|_| AttestationKey::rsassa_sha256(&[0xff; 256], 65_537)) else {
        return;
    };
    let (message, signature) = bytes.split_at(bytes.len() / 2);
    for (message, signature) in [(message, signature), (bytes, &[0x55; 256])] {
        if let Ok(evidence) = QuoteEvidence::parse(message, signature, ak.clone()) {
            let _ = verify(&evidence, None, None, &TpmPolicy::default(), 0);
        }
    }
}

/// Bytes as an HCL report, and as Trustee's Azure evidence of both kinds.
pub fn azure_evidence(bytes: &[u8]) {
    use cvm_verify::azure::{AzureEvidence, HardwareKind, HclReport};
    let _ = HclReport::parse(bytes);
    let Ok(json) = serde_json::from_slice(bytes) else { return };
    for kind in [HardwareKind::Snp, HardwareKind::Tdx] {
        if let Ok(evidence) = AzureEvidence::from_json(kind, &json) {
            let _ = evidence.check_binding(b"challenge", &Default::default());
        }
    }
}

/// Bytes as a quote, as the documents of collateral, and as collateral.
pub fn tdx_quote(bytes: &[u8]) {
    use cvm_verify::tdx::{
        Collateral, DcapVerifier, TdxEvidence, fuzz_signed_documents, intel_roots,
    };
    const NOW: u64 = 1_787_894_500;
    let Ok(roots) = intel_roots() else { return };
    if let Ok(evidence) = TdxEvidence::parse(bytes, None) {
        let _ = DcapVerifier::new(roots.clone(), None, NOW)
            .and_then(|v| v.verify(&evidence, None, NOW));
    }
    fuzz_signed_documents(bytes);
    if let Ok(collateral) = Collateral::parse(bytes) {
        let _ = DcapVerifier::new(roots, Some(&collateral), NOW);
    }
}

/// Bytes as a TD's event log.
pub fn cc_event_log(bytes: &[u8]) {
    let Ok(log) = cvm_verify::tdx::CcEventLog::parse(bytes) else { return };
    assert!(
        log.events().len() <= bytes.len() / 40,
        "an event takes at least 66 bytes, or a digest of 96 digits"
    );
    let _ = log.replay();
    let _ = log.events().iter().map(cvm_verify::tdx::EventClaim::from).collect::<Vec<_>>();
}

/// Bytes as a GPU's report and as a set of GPU evidence.
pub fn gpu_evidence(bytes: &[u8]) {
    use cvm_verify::gpu::{Collateral, DeviceEvidence, Report, Roots, verify};

    if let Ok(report) = Report::parse(bytes) {
        let (message, signature) = report.signed_parts();
        assert_eq!(message.len() + signature.len(), bytes.len());
    }
    if let Ok(set) = DeviceEvidence::parse_set(bytes) {
        let roots = Roots::nvidia().expect("embedded");
        for device in set {
            let _ = (
                device.rim_ids(),
                verify(&device, &roots, Collateral::default(), None, 1_800_000_000),
            );
        }
    }
}

/// Bytes as a reference manifest.
pub fn gpu_rim(bytes: &[u8]) {
    if let Ok(rim) = cvm_verify::gpu::Rim::parse(bytes, None) {
        let roots = cvm_verify::gpu::Roots::nvidia().expect("embedded");
        let _ = (rim.check(&roots, 1_717_200_000), rim.golden_values());
    }
}

/// Bytes as an OCSP response and as a result policy.
pub fn gpu_collateral(bytes: &[u8]) {
    let _ = cvm_verify::gpu::OcspResponse::parse(bytes, None);
    if let Ok(policy) = cvm_verify::gpu::ResultPolicy::parse(bytes) {
        let _ = (policy.evaluate(&[]), policy.evaluate_switches(&[]));
    }
}

/// Bytes as a token, as a key set, as NRAS' bundle, as a signing key; a token's claims in each
/// vendor's layout.
pub fn token(bytes: &[u8]) {
    use cvm_verify::token::{
        DetachedEat, EarKey, EarToken, Expected, ItaClaims, ItaPolicy, KeySet, MaaClaims,
        MaaPolicy, NrasPolicy, Registered, Rules, Token, verify_ita, verify_maa, verify_nras,
    };
    let none = Expected::default();
    let empty = KeySet::parse(br#"{"keys":[]}"#);
    let keys = KeySet::parse(bytes).or(empty);
    let _ = EarKey::from_pkcs8_pem(bytes);
    let (Ok(keys), bundle, token) = (keys, DetachedEat::parse(bytes), Token::parse(bytes)) else {
        return;
    };
    if let Ok(bundle) = bundle {
        assert!(
            verify_nras(&bundle, &keys, &NrasPolicy::new("i"), &none, 0).is_err(),
            "signed by nobody"
        );
    }
    let Ok(token) = token else { return };
    assert!(verify_maa(&token, &keys, &MaaPolicy::new("i"), &none, 0).is_err(), "signed by nobody");
    assert!(verify_ita(&token, &keys, &ItaPolicy::new("i"), &none, 0).is_err(), "signed by nobody");
    assert!(
        EarToken::verify(&token, &keys, &Rules::new("i"), &none, 0).is_err(),
        "signed by nobody"
    );
    if let Ok(claims) = token.unverified_claims() {
        let registered = Registered {
            issuer: String::new(),
            audience: Vec::new(),
            token_id: None,
            issued_at: 0,
            not_before: None,
            expires_at: 1,
        };
        let _ = MaaClaims::read(registered.clone(), &claims).map(|maa| maa.to_json());
        let _ = ItaClaims::read(registered, &claims).map(|ita| ita.to_json());
    }
}

/// Bytes as a set of reference values, and the policies written from it.
pub fn reference_set(bytes: &[u8]) {
    let Ok(set) = cvm_evidence::ReferenceSet::parse(bytes) else { return };
    assert_eq!(cvm_evidence::ReferenceSet::parse(&set.to_bytes()).as_ref(), Ok(&set));
    let _ = cvm_policy::new_policies(&set);
}

/// Bytes as everything that is collateral or asks for it, and as a cache's index.
pub fn collateral(bytes: &[u8]) {
    use cvm_collateral::{Cache, Key, content, wanted};
    if let Ok((key, stored)) = content::identify(bytes) {
        assert_eq!(Key::parse(key.kind(), &key.name()), Ok(key.clone()));
        assert!(content::check(&key, &stored).is_ok());
    }
    let _ = content::check(&Key::Rim("NV_GPU_DRIVER_GH100_545.00".into()), bytes);
    let _ = wanted::by_quote(bytes);
    let _ = wanted::by_snp_report(bytes, None);
    let _ = Cache::unpack(bytes, &[]);
}

/// Bytes as what devices and hosts answer.
pub fn collected(bytes: &[u8]) {
    if let Ok(certificates) = cvm_evidence::certificate_table::parse_certificate_table(bytes) {
        assert!(certificates.len() <= 16);
    }
    let mut stream = Service(bytes);
    let _ = cvm_collect::quote_over(&mut stream, &[0; 1024]);
}

/// A host that takes everything and sends these bytes.
struct Service<'a>(&'a [u8]);

impl std::io::Read for Service<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(to)
    }
}

impl std::io::Write for Service<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
