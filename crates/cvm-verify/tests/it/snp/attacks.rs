//! Chains that lead nowhere, keys of the wrong kind, revocation, and bindings.

use cvm_base::Explain;
use cvm_verify::{
    snp::{SnpError, SnpEvidence, SnpExpected, SnpRoots, VerifiedChain, verify},
    x509::Certificate,
};
use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint,
    KeyIdMethod, RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::{
    NOW, certificates, check, evidence,
    mint::{Line, Signer, Spec, ca, endorse, line, report, sign, vcek, vlek},
    repository, unchecked, vector,
};

const MILAN: [u8; 3] = [0x19, 0x01, 1];

fn milan(line: &Line, spec: &Spec) -> SnpEvidence {
    line.evidence(3, MILAN, spec, |_| {})
}

fn verdict(line: &Line, evidence: &SnpEvidence) -> Result<(), SnpError> {
    verify(evidence, &line.roots(), &[], &Default::default(), NOW).map(|_| ())
}

#[test]
fn certificates_come_in_any_order_and_an_ark_among_them_is_not_trusted() {
    let original = evidence("milan-virtee");
    let authority = certificates(&repository("keys/roots/amd/ask_ark_milan.pem"));
    let (leaf, ask, ark) = (&original.certificates[0], &authority[0], &authority[1]);
    // The same certificate may come with the evidence and from a cache; of two, the report says
    // which is meant.
    let other = &evidence("trustee-vcek").certificates[0];
    for order in [
        [leaf, ask, ark],
        [ark, ask, leaf],
        [ask, leaf, ark],
        [ark, leaf, ask],
        [leaf, leaf, ask],
        [leaf, other, ask],
        [other, leaf, ask],
    ] {
        let evidence =
            SnpEvidence { certificates: order.map(Clone::clone).into(), ..original.clone() };
        check(&evidence, NOW).unwrap();
    }
    let stranger =
        SnpEvidence { certificates: vec![other.clone(), ask.clone()], ..original.clone() };
    assert_eq!(check(&stranger, NOW).unwrap_err().code(), "ATT-306");
    // Without an embedded intermediate the one that travels is used; without an embedded root
    // nothing helps.
    let ark_only = SnpRoots::from_pem(super::mint::pem(&[ark.der()]).as_bytes()).unwrap();
    let travels = SnpEvidence {
        certificates: vec![ark.clone(), ask.clone(), leaf.clone()],
        ..original.clone()
    };
    verify(&travels, &ark_only, &[], &Default::default(), NOW).unwrap();
    let missing = verify(&original, &ark_only, &[], &Default::default(), NOW).unwrap_err();
    assert!(matches!(missing, SnpError::Certificates { .. }), "{missing}");
    let other = line("Milan");
    assert_eq!(
        verify(&travels, &other.roots(), &[], &Default::default(), NOW).unwrap_err().code(),
        "ATT-202"
    );
}

#[test]
fn attack_an_own_root_key_that_travels_with_the_evidence() {
    let own = line("Milan");
    let mut evidence = milan(&own, &vcek("Milan-B0"));
    verdict(&own, &evidence).unwrap();
    evidence
        .certificates
        .extend([&own.ask.0, &own.ark.0].map(|der| Certificate::from_der(der).unwrap()));
    assert_eq!(check(&evidence, NOW).unwrap_err().code(), "ATT-202");
}

#[test]
fn attack_self_signed_looping_and_unauthorised_chains() {
    let milan_line = line("Milan");
    let spec = vcek("Milan-B0");
    let sign_with = |issuer: &Signer, with: &[&[u8]]| {
        let (certificate, key) = endorse(issuer, &spec);
        let report =
            cvm_verify::snp::SnpReport::parse(&sign(report(3, MILAN, &spec), &key)).unwrap();
        let mut certificates = vec![Certificate::from_der(&certificate).unwrap()];
        certificates.extend(with.iter().map(|der| Certificate::from_der(der).unwrap()));
        SnpEvidence { report, certificates }
    };
    // A self-signed "ASK".
    let (self_ask, self_signer) = ca("SEV-Milan", None);
    assert!(verdict(&milan_line, &sign_with(&self_signer, &[&self_ask])).is_err());
    // Two that certify each other.
    let (_, a) = ca("SEV-Milan", None);
    let (loop_b, b) = ca("ARK-Milan", Some(&a));
    let (loop_a, a) = ca("SEV-Milan", Some(&b));
    let refused = verdict(&milan_line, &sign_with(&a, &[&loop_a, &loop_b])).unwrap_err();
    assert_eq!(refused.code(), "ATT-202", "{refused}");
    // Longer than AMD's: a CA below the ASK.
    let (below, signer) = ca("SEV-Milan", Some(&milan_line.ask.1));
    assert!(verdict(&milan_line, &sign_with(&signer, &[&below, &milan_line.ask.0])).is_err());
    // Issued by the ARK itself, and by the ASVK.
    assert!(matches!(
        verdict(&milan_line, &sign_with(&milan_line.ark.1, &[])),
        Err(SnpError::Product { .. })
    ));
    assert!(matches!(
        verdict(&milan_line, &sign_with(&milan_line.asvk.1, &[])),
        Err(SnpError::Product { .. })
    ));
    // A VCEK that issues a VCEK: not a CA.
    let leaf_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "Advanced Micro Devices");
    params.distinguished_name.push(rcgen::DnType::CommonName, "SEV-Milan");
    let no_ca = params.signed_by(&leaf_key, &milan_line.ark.1).unwrap();
    let signer = rcgen::Issuer::new(params, leaf_key);
    assert_eq!(
        verdict(&milan_line, &sign_with(&signer, &[no_ca.der()])).unwrap_err().code(),
        "ATT-202"
    );
}

#[test]
fn attack_the_wrong_kind_of_key() {
    let milan_line = line("Milan");
    // The report names the other kind.
    for (spec, key_info) in [(vcek("Milan-B0"), 1 << 2), (vlek("Milan"), 0)] {
        let evidence = milan_line.evidence(3, MILAN, &spec, |bytes| bytes[0x48] = key_info);
        assert!(matches!(verdict(&milan_line, &evidence), Err(SnpError::KeyKind { .. })));
        // Also with a chain that was verified for the other kind.
        let kind = if key_info == 0 { "VLEK" } else { "VCEK" };
        let other = milan(&milan_line, &spec);
        let chain = VerifiedChain::verify(
            &other.certificates,
            other.report.signing_key,
            &milan_line.roots(),
            &[],
            NOW,
        )
        .unwrap();
        assert_eq!(chain.signing_key().to_string(), kind);
        let refused = chain.check(&evidence.report, &Default::default(), NOW).unwrap_err();
        assert!(matches!(refused, SnpError::KeyKind { .. }), "{refused}");
    }
    // A real report that says VLEK, with another machine's VCEK; and with no certificate at all.
    let azure = vector("constellation-azure/AttestationReportVLEK.bin");
    let evidence = SnpEvidence::parse(&azure, &vector("constellation-azure/vcek.der")).unwrap();
    assert!(matches!(check(&evidence, NOW), Err(SnpError::KeyKind { .. })));
    let none = SnpEvidence { certificates: Vec::new(), ..evidence };
    assert!(matches!(check(&none, NOW), Err(SnpError::Certificates { .. })));
    // A P-256 key, and certificates that mix what belongs to one kind.
    let mixed = [
        Spec { p256: true, ..vcek("Milan-B0") },
        Spec { csp_id: Some("cloud.example"), ..vcek("Milan-B0") },
        Spec { hw_id: None, ..vcek("Milan-B0") },
        Spec { hw_id: Some(vec![1; 63]), ..vcek("Milan-B0") },
        Spec { hw_id: Some(vec![1; 8]), ..vcek("Milan-B0") },
        Spec { hw_id: Some(vec![1; 64]), ..vlek("Milan") },
        Spec { csp_id: Some(""), ..vlek("Milan") },
    ];
    for spec in mixed {
        let with_report_of =
            if spec.subject == "SEV-VLEK" { vlek("Milan") } else { vcek("Milan-B0") };
        let (certificate, key) = endorse(milan_line.issuer(&spec), &spec);
        let bytes = sign(report(3, MILAN, &with_report_of), &key);
        let evidence = SnpEvidence::parse(&bytes, &certificate).unwrap();
        let refused = verdict(&milan_line, &evidence).unwrap_err();
        assert!(matches!(refused, SnpError::Certificates { .. }), "{refused}");
    }
}

#[test]
fn attack_a_certificate_without_one_of_its_versions() {
    let milan_line = line("Milan");
    for without in [&[1], &[2], &[3], &[8]] {
        let spec = Spec { without, ..vcek("Milan-B0") };
        let refused = verdict(&milan_line, &milan(&milan_line, &spec)).unwrap_err();
        assert!(matches!(refused, SnpError::Certificates { .. }), "{refused}");
    }
    let turin = line("Turin");
    let evidence =
        turin.evidence(5, [0x1a, 2, 0], &Spec { without: &[9], ..vcek("Turin") }, |_| {});
    assert!(matches!(verdict(&turin, &evidence), Err(SnpError::Certificates { .. })));
}

#[test]
fn attack_another_subject_and_an_expired_certificate() {
    let milan_line = line("Milan");
    for spec in [
        Spec { subject: "SEV-VCEK2", ..vcek("Milan-B0") },
        Spec { subject: "XSEV-VCEK", ..vcek("Milan-B0") },
    ] {
        assert!(matches!(
            verdict(&milan_line, &milan(&milan_line, &spec)),
            Err(SnpError::Certificates { .. })
        ));
    }
    let expired = milan(&milan_line, &Spec { until: 2025, ..vcek("Milan-B0") });
    let refused = verdict(&milan_line, &expired).unwrap_err();
    assert_eq!(refused.code(), "ATT-202", "{refused}");
}

#[test]
fn a_report_is_bound_to_what_was_asked_for_or_says_that_it_was_not_compared() {
    let evidence = evidence("constellation-azure");
    let roots = SnpRoots::amd().unwrap();
    let data = evidence.report.report_data;
    let expect = |report_data: Option<&[u8; 64]>, host_data: Option<&[u8; 32]>| {
        verify(&evidence, roots, &[], &SnpExpected { report_data, host_data }, NOW)
    };
    let bound = expect(Some(&data), Some(&[0; 32])).unwrap();
    assert_eq!(unchecked(&bound), ["certificate-revocation", "acpi"]);
    assert_eq!(
        unchecked(&expect(None, Some(&[0; 32])).unwrap()),
        ["certificate-revocation", "report-data", "acpi"]
    );
    for bit in 0..512 {
        let mut other = data;
        other[bit / 8] ^= 1 << (bit % 8);
        let refused = expect(Some(&other), None).unwrap_err();
        assert!(matches!(refused, SnpError::Binding { field: "REPORT_DATA", .. }), "{refused}");
    }
    let refused = expect(Some(&data), Some(&[1; 32])).unwrap_err();
    assert_eq!(
        (refused.code(), refused.to_string().starts_with("HOST_DATA is 0000")),
        ("ATT-308", true)
    );
}

fn crl(issuer: &Signer, revoked: &[&[u8]], years: (i32, i32), scope: Option<&str>) -> Vec<u8> {
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(years.0, 1, 1),
        next_update: date_time_ymd(years.1, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: scope.map(|uri| CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint { uris: vec![uri.into()] },
            scope: Some(rcgen::CrlScope::UserCertsOnly),
        }),
        revoked_certs: revoked
            .iter()
            .map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from_slice(serial),
                revocation_time: date_time_ymd(years.0, 1, 1),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(issuer).unwrap().der().to_vec()
}

fn serial(der: &[u8]) -> Vec<u8> {
    use x509_cert::der::Decode as _;
    let certificate = <x509_cert::certificate::CertificateInner>::from_der(der).unwrap();
    certificate.tbs_certificate().serial_number().as_bytes().to_vec()
}

#[test]
fn revocation_lists_of_the_root() {
    let milan_line = line("Milan");
    let evidence = milan(&milan_line, &vcek("Milan-B0"));
    let roots = milan_line.roots();
    let with = |crls: &[Vec<u8>], now| verify(&evidence, &roots, crls, &Default::default(), now);
    let ark = &milan_line.ark.1;
    let empty = crl(ark, &[], (2025, 2026), None);
    assert!(
        !unchecked(&with(std::slice::from_ref(&empty), NOW).unwrap())
            .contains(&"certificate-revocation")
    );

    // Revoked, also in a second list after one that does not revoke it.
    let ask = serial(&milan_line.ask.0);
    let revoking = crl(ark, &[&ask], (2025, 2026), None);
    for lists in [
        vec![revoking.clone()],
        vec![empty.clone(), revoking.clone()],
        vec![revoking, empty.clone()],
    ] {
        let refused = with(&lists, NOW).unwrap_err();
        assert!(refused.to_string().contains("revoked"), "{refused}");
    }
    // Expired, not yet issued, by a false ARK of the same name, unreadable.
    for list in [
        crl(ark, &[], (2024, 2025), None),
        crl(ark, &[], (2026, 2027), None),
        crl(&line("Milan").ark.1, &[], (2025, 2026), None),
        b"no list".to_vec(),
    ] {
        let refused = with(&[list], NOW).unwrap_err();
        assert!(["ATT-202", "ATT-203"].contains(&refused.code()), "{refused}");
    }
    // Another root's list, or one about other certificates, says nothing; the claims say so.
    for list in [
        crl(&line("Genoa").ark.1, &[&ask], (2025, 2026), None),
        crl(ark, &[], (2025, 2026), Some("http://x")),
    ] {
        assert!(unchecked(&with(&[list], NOW).unwrap()).contains(&"certificate-revocation"));
    }
    // A chain outlives no list that it was verified with.
    let chain = VerifiedChain::verify(
        &evidence.certificates,
        evidence.report.signing_key,
        &roots,
        &[empty],
        NOW,
    )
    .unwrap();
    chain.check(&evidence.report, &Default::default(), NOW).unwrap();
    assert!(chain.check(&evidence.report, &Default::default(), 1_800_000_000).is_err()); // 2027
}
