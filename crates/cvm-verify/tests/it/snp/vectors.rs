//! Real reports and certificates.

use cvm_base::Explain;
use cvm_verify::snp::{
    Product, SigningKey, SnpClaims, SnpError, SnpEvidence, SnpPolicy, SnpReport, SnpRoots,
    VerifiedChain,
};

use super::{NOW, certificates, check, evidence, repository, unchecked, vector};

#[test]
fn every_valid_vector_is_accepted() {
    for (folder, version, kind, vmpl, firmware) in [
        ("milan-virtee", 2, SigningKey::Vcek, 0, "1.52.4"),
        ("trustee-vcek", 2, SigningKey::Vcek, 0, "1.52.4"),
        ("constellation-azure", 2, SigningKey::Vcek, 0, "1.51.1"),
        ("trustee-vlek", 3, SigningKey::Vlek, 1, "1.55.29"),
    ] {
        let claims = check(&evidence(folder), NOW).unwrap_or_else(|e| panic!("{folder}: {e}"));
        assert_eq!(
            (claims.product, claims.report_version, claims.signing_key),
            (Product::Milan, version, kind)
        );
        assert_eq!(
            (claims.vmpl, claims.current_version.to_string().as_str()),
            (vmpl, firmware),
            "{folder}"
        );
        assert_eq!(
            unchecked(&claims),
            ["certificate-revocation", "report-data", "host-data", "acpi"],
            "{folder}"
        );
        SnpPolicy::default().check(&claims).unwrap();
    }
}

#[test]
fn claims_have_trustees_names_and_encodings() {
    let claims = check(&evidence("milan-virtee"), NOW).unwrap();
    let json = serde_json::to_value(&claims).unwrap();
    for (name, value) in [
        ("policy_abi_major", 0.into()),
        ("policy_abi_minor", 0.into()),
        ("policy_smt_allowed", true.into()),
        ("policy_migrate_ma", false.into()),
        ("policy_debug_allowed", false.into()),
        ("policy_single_socket", false.into()),
        ("reported_tcb_bootloader", 3.into()),
        ("reported_tcb_tee", 0.into()),
        ("reported_tcb_snp", 8.into()),
        ("reported_tcb_microcode", 0x73.into()),
        ("platform_smt_enabled", true.into()),
        ("platform_tsme_enabled", false.into()),
        ("init_data", serde_json::Value::from("00".repeat(32))),
        ("product", "Milan".into()),
        ("product_name", "Milan-B0".into()),
        ("signing_key", "VCEK".into()),
        ("policy", "0000000000030000".into()),
    ] {
        assert_eq!(json[name], value, "{name}");
    }
    for (name, at, bytes) in
        [("measurement", 0x90, 48), ("report_data", 0x50, 64), ("chip_id", 0x1a0, 64)]
    {
        assert_eq!(
            json[name],
            hex::encode(&vector("milan-virtee/report.bin")[at..at + bytes]),
            "{name}"
        );
    }
    assert_eq!(serde_json::from_value::<SnpClaims>(json).unwrap(), claims);
    let vlek = check(&evidence("trustee-vlek"), NOW).unwrap();
    assert_eq!(vlek.csp_id.as_deref(), Some("CN=cc-us-east-2.amazonaws.com"));
    assert!(
        vlek.platform_alias_check_complete
            && vlek.platform_ecc_enabled
            && vlek.platform_tsme_enabled
    );
}

#[test]
fn debug_is_a_claim_that_the_default_policy_refuses() {
    let claims = check(&evidence("google-vcek"), NOW).unwrap();
    assert!(claims.policy_debug_allowed);
    let refused = SnpPolicy::default().check(&claims).unwrap_err();
    assert!(matches!(refused, SnpError::Policy { check: "policy_debug_allowed", .. }), "{refused}");
    SnpPolicy { allow_debug: true, ..SnpPolicy::default() }.check(&claims).unwrap();
}

#[test]
fn attack_the_genuine_vcek_of_another_chip() {
    // Trustee changed the extensions of these two (one hwID as bytes, one as an OCTET STRING) and
    // could not sign them again: they are read, and then lead nowhere.
    for folder in ["trustee-vcek-invalid-legacy", "trustee-vcek-invalid-new"] {
        let refused = check(&evidence(folder), NOW).unwrap_err();
        assert_eq!(refused.code(), "ATT-202", "{folder}: {refused}");
    }
    // The same TCB, another chip.
    let mut swapped = evidence("trustee-vcek");
    swapped.certificates = evidence("milan-virtee").certificates;
    let refused = check(&swapped, NOW).unwrap_err();
    assert!(matches!(refused, SnpError::ChipId { .. }), "{refused}");
    assert_eq!(refused.code(), "ATT-306");
}

#[test]
fn a_turin_chain_is_valid_and_vouches_for_no_milan() {
    let certificates = certificates(&vector("turin-virtee-vcek-only/vcek.der"));
    let chain =
        VerifiedChain::verify(&certificates, SigningKey::Vcek, SnpRoots::amd().unwrap(), &[], NOW)
            .unwrap();
    let milan = evidence("milan-virtee").report;
    assert!(chain.check(&milan, &Default::default(), NOW).is_err());
    let milan = evidence("trustee-vlek");
    let mixed = SnpEvidence { certificates, ..milan };
    assert!(matches!(check(&mixed, NOW), Err(SnpError::KeyKind { .. })));
}

/// Zen 4c with a certificate that says Genoa, in Trustee's form, chain included.
#[test]
fn trustees_own_evidence_of_a_siena() {
    let body = repository("tests/vectors/snp-trustee-e2e/evidence.json");
    let mut body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let claims = check(&SnpEvidence::from_kbs(&body).unwrap(), NOW).unwrap();
    assert_eq!(
        (claims.product, claims.product_name.as_str(), claims.report_version),
        (Product::Siena, "Genoa", 3)
    );
    let refusing = SnpPolicy { refused_products: [Product::Siena].into(), ..SnpPolicy::default() };
    assert!(matches!(refusing.check(&claims), Err(SnpError::Policy { check: "product", .. })));

    body["attestation_report"]["measurement"][0] = 0.into();
    assert!(matches!(
        check(&SnpEvidence::from_kbs(&body).unwrap(), NOW),
        Err(SnpError::Signature { .. })
    ));
    body["attestation_report"]["measurement"] = [0; 47].as_slice().into();
    assert!(matches!(SnpEvidence::from_kbs(&body), Err(SnpError::Malformed { .. })));
    body["attestation_report"] = 3.into();
    assert!(matches!(SnpEvidence::from_kbs(&body), Err(SnpError::Malformed { .. })));
}

#[test]
fn dates_are_those_of_the_question_also_with_a_cached_chain() {
    let vlek = evidence("trustee-vlek");
    let roots = SnpRoots::amd().unwrap();
    let chain =
        VerifiedChain::verify(&vlek.certificates, SigningKey::Vlek, roots, &[], NOW).unwrap();
    let (from, until) = vlek.certificates[0].validity();
    assert_eq!((from, until), (1_733_868_861, 1_765_404_861)); // 2024-12-10 to 2025-12-10
    for (now, valid) in
        [(from - 1, false), (from, true), (until, true), (until + 1, false), (u64::MAX, false)]
    {
        assert_eq!(check(&vlek, now).is_ok(), valid, "{now}");
        let cached = chain.check(&vlek.report, &Default::default(), now);
        assert_eq!(cached.is_ok(), valid, "{now}");
        if let Err(refused) = cached {
            assert_eq!(refused.code(), "ATT-202");
        }
    }
}

#[test]
fn attack_every_single_bit_of_the_signed_part() {
    let roots = SnpRoots::amd().unwrap();
    for (folder, key) in [
        ("milan-virtee", SigningKey::Vcek),
        ("google-vcek", SigningKey::Vcek),
        ("trustee-vcek", SigningKey::Vcek),
        ("trustee-vlek", SigningKey::Vlek),
    ] {
        let original = vector(&format!("{folder}/report.bin"));
        let evidence = evidence(folder);
        let chain = VerifiedChain::verify(&evidence.certificates, key, roots, &[], NOW).unwrap();
        chain.check(&SnpReport::parse(&original).unwrap(), &Default::default(), NOW).unwrap();
        // Of the signature too, and of what follows it.
        for bit in 0..1184 * 8 {
            let mut bytes = original.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let refused = SnpReport::parse(&bytes)
                .and_then(|report| chain.check(&report, &Default::default(), NOW));
            assert!(refused.is_err(), "{folder} bit {bit}");
        }
    }
}

#[test]
fn attack_the_certificate_changed_by_a_bit() {
    let der = vector("milan-virtee/vcek.der");
    let report = vector("milan-virtee/report.bin");
    for bit in (0..der.len() * 8).step_by(if cfg!(debug_assertions) { 37 } else { 1 }) {
        let mut der = der.clone();
        der[bit / 8] ^= 1 << (bit % 8);
        let refused = SnpEvidence::parse(&report, &der).and_then(|evidence| check(&evidence, NOW));
        assert!(refused.is_err(), "bit {bit}");
    }
}
