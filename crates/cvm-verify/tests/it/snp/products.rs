//! Versions and products without real vectors: 3, 4 and 5; Genoa, Siena, Turin; VCEK and VLEK.

use cvm_base::Explain as _;
use cvm_verify::snp::{
    Product, ShownTcb, SigningKey, SnpError, SnpEvidence, SnpPolicy, SnpReport, Stepping, Tcb,
    TcbFloor, verify,
};

use super::{
    NOW,
    mint::{Spec, line, vcek, vlek},
    unchecked,
};

const MILAN: [u8; 3] = [0x19, 0x01, 1];
const GENOA: [u8; 3] = [0x19, 0x11, 1];
const SIENA: [u8; 3] = [0x19, 0xa0, 2];
const TURIN: [u8; 3] = [0x1a, 0x02, 1];
const TURIN_DENSE: [u8; 3] = [0x1a, 0x11, 0];

#[test]
fn every_version_and_product() {
    for (line, cases) in [
        (line("Milan"), vec![("Milan-B1", MILAN, Product::Milan)]),
        (
            line("Genoa"),
            vec![
                ("Genoa-B1", GENOA, Product::Genoa),
                ("Genoa", SIENA, Product::Siena),
                ("Siena-A2", SIENA, Product::Siena),
                ("Bergamo", SIENA, Product::Siena),
            ],
        ),
        (
            line("Turin"),
            vec![("Turin", TURIN, Product::Turin), ("Turin", TURIN_DENSE, Product::Turin)],
        ),
    ] {
        let roots = line.roots();
        for (name, cpuid, product) in cases {
            for version in 3..=5 {
                for spec in [vcek(name), vlek(name)] {
                    let evidence = line.evidence(version, cpuid, &spec, |_| {});
                    let claims = verify(&evidence, &roots, &[], &Default::default(), NOW)
                        .unwrap_or_else(|e| panic!("{name} {version}: {e}"));
                    let [fmc, bootloader, tee, snp, microcode] = spec.tcb;
                    let fmc = (product == Product::Turin).then_some(fmc);
                    assert_eq!(claims.reported_tcb(), Tcb { fmc, bootloader, tee, snp, microcode });
                    assert_eq!((claims.product, claims.report_version), (product, version));
                    let stepping = Stepping::from_cpuid(cpuid[1], cpuid[2]);
                    assert_eq!(
                        claims.stepping,
                        Some(stepping),
                        "{name}: CPUID's word, not the certificate's"
                    );
                    let shown = claims.shown_tcb();
                    assert_eq!(
                        (shown.reported, shown.launch),
                        (claims.reported_tcb(), claims.launch_tcb)
                    );
                    let json_shown: ShownTcb =
                        serde_json::from_value(serde_json::to_value(&claims).unwrap()).unwrap();
                    assert_eq!(json_shown, shown);
                    let kind =
                        if spec.csp_id.is_some() { SigningKey::Vlek } else { SigningKey::Vcek };
                    assert_eq!((claims.signing_key, claims.csp_id.as_deref()), (kind, spec.csp_id));
                    assert_eq!(claims.current_mit_vector.is_some(), version == 5);
                    let json = serde_json::to_value(&claims).unwrap();
                    assert_eq!(json.get("reported_tcb_fmc").is_some(), product == Product::Turin);
                    if version == 5 {
                        assert_eq!(json["launch_mit_vector"], "0000000000000005");
                        assert_eq!(json["current_mit_vector"], "0000000000000007");
                    }
                    SnpPolicy::default().check(&claims).unwrap();
                }
            }
        }
    }
}

#[test]
fn version_2_has_the_certificates_word_only() {
    for (name, product) in
        [("Milan-B0", Product::Milan), ("Genoa-B1", Product::Genoa), ("Siena", Product::Siena)]
    {
        let line = line(product_line(product));
        let claims = verify(
            &line.evidence(2, MILAN, &vcek(name), |_| {}),
            &line.roots(),
            &[],
            &Default::default(),
            NOW,
        );
        let claims = claims.unwrap();
        // AMD's certificates call a B1 `Milan-B0`.
        assert_eq!((claims.product, claims.stepping), (product, None));
    }
}

/// Siena's newest microcode has a lower number than Genoa's oldest.
#[test]
fn attack_sienas_floor_met_by_an_unpatched_genoa() {
    let line = line("Genoa");
    let claims = |spec: &Spec, cpuid| {
        verify(&line.evidence(3, cpuid, spec, |_| {}), &line.roots(), &[], &Default::default(), NOW)
            .unwrap()
    };
    let unpatched = claims(&Spec { tcb: [0, 7, 0, 14, 0x44], ..vcek("Genoa-B1") }, GENOA);
    let patched = claims(&Spec { tcb: [0, 7, 0, 14, 0x19], ..vcek("Siena-A2") }, SIENA);
    let policy = |floors: &[&str]| SnpPolicy {
        min_tcb: TcbFloor::merge(floors.iter().map(|floor| floor.parse().unwrap())).unwrap(),
        ..SnpPolicy::default()
    };
    for floors in [
        &["siena=7.0.14.25"][..],
        &["siena-a2=7.0.14.25"],
        &["siena=7.0.14.25", "genoa-b1=7.0.14.84"],
    ] {
        policy(floors).check(&patched).unwrap();
        policy(floors).check(&unpatched).unwrap_err();
    }
}

fn product_line(product: Product) -> &'static str {
    if product == Product::Milan { "Milan" } else { "Genoa" }
}

#[test]
fn attack_a_product_that_is_not_the_certificates() {
    let milan = line("Milan");
    let refused = |spec: &Spec, version, cpuid| {
        let evidence = milan.evidence(version, cpuid, spec, |_| {});
        verify(&evidence, &milan.roots(), &[], &Default::default(), NOW).unwrap_err()
    };
    // CPUID says another product, or an unknown one; the certificate names another, or an unknown
    // one.
    for (name, cpuid) in [
        ("Milan-B0", GENOA),
        ("Milan-B0", TURIN),
        ("Milan-B0", [0x19, 0x20, 0]),
        ("Milan-B0", [0x1a, 0x50, 0]),
        ("Milan-B0", [0x17, 0x31, 0]),
        ("Genoa-B0", GENOA),
        ("Naples", MILAN),
        ("", MILAN),
    ] {
        let refused = refused(&vcek(name), 3, cpuid);
        assert!(matches!(refused, SnpError::Product { .. }), "{name} {cpuid:x?}: {refused}");
    }
}

#[test]
fn attack_a_root_of_another_line() {
    // An intermediate with Genoa's names under Milan's root key.
    let milan = line("Milan");
    let genoa = line("Genoa");
    let false_ask = super::mint::ca("SEV-Genoa", Some(&milan.ark.1));
    let spec = vcek("Genoa-B1");
    let (certificate, key) = super::mint::endorse(&false_ask.1, &spec);
    let report =
        SnpReport::parse(&super::mint::sign(super::mint::report(3, GENOA, &spec), &key)).unwrap();
    let certificates =
        super::certificates(super::mint::pem(&[&certificate, &false_ask.0]).as_bytes());
    let evidence = SnpEvidence { report, certificates };
    let refused = verify(&evidence, &milan.roots(), &[], &Default::default(), NOW).unwrap_err();
    assert!(matches!(refused, SnpError::Product { .. }), "{refused}");
    assert!(verify(&evidence, &genoa.roots(), &[], &Default::default(), NOW).is_err());
}

#[test]
fn a_masked_chip_id_is_said_and_another_is_refused() {
    let turin = line("Turin");
    let verify_with = |change: &dyn Fn(&mut [u8])| {
        let evidence = turin.evidence(5, TURIN, &vcek("Turin"), change);
        verify(&evidence, &turin.roots(), &[], &Default::default(), NOW)
    };
    let masked = verify_with(&|bytes| bytes[0x1a0..0x1e0].fill(0)).unwrap();
    assert!(unchecked(&masked).contains(&"chip-id"));
    let plain = verify_with(&|_| {}).unwrap();
    assert!(!unchecked(&plain).contains(&"chip-id"));
    for at in [0x1a0, 0x1a7, 0x1a8, 0x1df] {
        let refused = verify_with(&|bytes| bytes[at] ^= 1).unwrap_err();
        assert!(matches!(refused, SnpError::ChipId { .. }), "{at:#x}: {refused}");
    }
    // A VLEK is not a chip's: the id is the firmware's word.
    let cloud = turin.evidence(5, TURIN, &vlek("Turin"), |bytes| bytes[0x1a0] = 1);
    let claims = verify(&cloud, &turin.roots(), &[], &Default::default(), NOW).unwrap();
    assert_eq!(claims.chip_id.0[0], 1);
}

#[test]
fn attack_a_tcb_that_the_key_was_not_made_for() {
    for (name, cpuid, places) in [
        (
            "Turin",
            TURIN,
            vec![("fmc", 0), ("bootloader", 1), ("tee", 2), ("snp", 3), ("microcode", 7)],
        ),
        ("Genoa-B1", GENOA, vec![("bootloader", 0), ("tee", 1), ("snp", 6), ("microcode", 7)]),
    ] {
        let line = line(if name == "Turin" { "Turin" } else { "Genoa" });
        for (component, at) in places {
            for change in [1i8, -1] {
                let evidence = line.evidence(4, cpuid, &vcek(name), |bytes| {
                    bytes[0x180 + at] = bytes[0x180 + at].wrapping_add_signed(change);
                });
                let refused =
                    verify(&evidence, &line.roots(), &[], &Default::default(), NOW).unwrap_err();
                let SnpError::Tcb { component: found, .. } = &refused else { panic!("{refused}") };
                assert_eq!(found.to_string(), component, "{name}: {refused}");
            }
        }
        for at in [4, 5] {
            let evidence = line.evidence(4, cpuid, &vcek(name), |bytes| bytes[0x180 + at] = 1);
            let claims = verify(&evidence, &line.roots(), &[], &Default::default(), NOW).unwrap();
            assert_eq!(claims.unknown, [format!("REPORTED_TCB byte {at}")]);
        }
    }
}

/// A Turin report with PLATFORM_INFO 0x65 was refused as malformed: the chip had signed it, and its
/// chain was good.
#[test]
fn a_turin_report_whose_platform_info_has_a_new_bit() {
    let turin = line("Turin");
    let evidence = turin.evidence(5, TURIN, &vcek("Turin"), |bytes| bytes[0x40] = 0x65);
    let claims = verify(&evidence, &turin.roots(), &[], &Default::default(), NOW).unwrap();
    assert_eq!(claims.unknown, ["PLATFORM_INFO bit 6"]);
    assert!(claims.platform_alias_check_complete && claims.platform_ecc_enabled);
    SnpPolicy::default().check(&claims).unwrap();
    let strict = SnpPolicy { allow_unknown_fields: false, ..SnpPolicy::default() };
    assert!(strict.check(&claims).unwrap_err().to_string().contains("PLATFORM_INFO bit 6"));
}

/// What a launch asked for and nobody here knows may be a door for the host: read, named, and the
/// policy's to accept.
#[test]
fn unknown_bits_of_the_guest_policy_are_the_policys_to_judge() {
    let genoa = line("Genoa");
    for (bit, name) in
        [(17, "guest policy bit 17"), (26, "guest policy bit 26"), (63, "guest policy bit 63")]
    {
        let evidence = genoa
            .evidence(3, GENOA, &vcek("Genoa-B1"), |bytes| bytes[8 + bit / 8] ^= 1 << (bit % 8));
        let claims = verify(&evidence, &genoa.roots(), &[], &Default::default(), NOW).unwrap();
        assert_eq!(claims.unknown, [name]);
        let refused = SnpPolicy::default().check(&claims).unwrap_err();
        assert!(refused.code() == "ATT-309" && refused.to_string().contains(name), "{refused}");
        let open = SnpPolicy { allow_unknown_policy_bits: true, ..SnpPolicy::default() };
        open.check(&claims).unwrap();
    }
}
