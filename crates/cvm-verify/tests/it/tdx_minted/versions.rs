//! Every version of quote and report, every TCB level, every attribute.

use cvm_base::{Bytes, Explain as _};
use cvm_verify::{
    tdx::{Collateral, DcapVerifier, TcbStatus, TdxClaims, TdxEvidence, TdxPolicy},
    x509::Certificate,
};
use serde_json::json;

use super::{
    NOW,
    documents::{qe_identity, tcb_info},
    mint::{COMPONENTS, Mint, certification, qe_report, sgx_extension, td10, td15},
};

#[test]
fn versions_4_and_5_with_every_td_report_verify() {
    let mint = Mint::new();
    let collateral = mint.good_collateral();
    let extended = [td15([6, 1, 5], [6, 1, 5]), vec![0; 237]].concat();
    for (version, body) in
        [(4, td10([6, 1, 5])), (5, td10([6, 1, 5])), (5, td15([6, 1, 5], [6, 1, 5])), (5, extended)]
    {
        let quote = mint.quote(version, &body);
        assert_eq!(
            mint.agreed(&quote, &collateral),
            Ok(("UpToDate".into(), vec![])),
            "{version} {}",
            body.len()
        );
        let claims = mint.verify(&quote, &collateral).unwrap();
        TdxPolicy::default().check(&claims).unwrap();
        assert_eq!(claims.quote.body_type.is_some(), version == 5);
        assert_eq!(claims.quote.body.tee_tcb_svn2.is_some(), body.len() > 584);
        assert_eq!(claims.platform.sgx_type, "Scalable");
        assert_eq!(claims.platform.is_dynamic_platform, Some(true));
        assert_eq!(claims.platform.is_cached_keys, Some(false));
        let json = serde_json::to_value(&claims).unwrap();
        assert_eq!(serde_json::from_value::<TdxClaims>(json).unwrap(), claims);
    }
    // Type and size of version 5 must fit each other, and the TEE.
    let good = mint.quote(5, &td10([6, 1, 5]));
    for (at, value) in [(48, 1), (48, 3), (48, 5), (50, 0), (4, 0), (0, 6), (0, 4)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(mint.agreed(&bad, &collateral).unwrap_err(), "ATT-310", "byte {at}");
    }
}

#[test]
fn every_bit_of_a_version_5_quote_is_signed() {
    let mint = Mint::new();
    let collateral =
        Collateral::parse(&serde_json::to_vec(&mint.good_collateral()).unwrap()).unwrap();
    let roots = vec![Certificate::from_der(&mint.root.der).unwrap()];
    let verifier = DcapVerifier::new(roots, Some(&collateral), NOW).unwrap();
    let good = mint.quote(5, &td15([6, 1, 5], [6, 1, 5]));
    let verify =
        |quote: &[u8]| verifier.verify(&TdxEvidence::parse(quote, None)?, None, NOW).map(drop);
    assert_eq!(verify(&good), Ok(()));
    for bit in (0..(54 + 648) * 8).step_by(3) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&bad).is_err(), "bit {bit}");
    }
}

/// Platform, module and quoting enclave each have a say; for TD 1.5 also what runs now.
#[test]
fn tcb_levels_are_matched_as_intels_library_does() {
    let verdict = |components: [u8; 16], pce_svn, body: &[u8], qe_svn: u8| {
        let mint = Mint::with_pck(sgx_extension(components, pce_svn, [0, 0]));
        let mut report = qe_report(&mint.ak);
        report[258] = qe_svn;
        let version = if body.len() == 584 { 4 } else { 5 };
        let quote =
            mint.quote_of(version, body, &report, &certification(5, mint.chain().as_bytes()));
        mint.agreed(&quote, &mint.good_collateral())
            .map(|(status, advisories)| (status, advisories.join(" ")))
    };
    let platform = |microcode: u8| {
        let mut components = COMPONENTS;
        components[..2].fill(microcode);
        components
    };
    let is = |status: &str, advisories: &str| Ok((status.to_owned(), advisories.to_owned()));
    let good = td10([6, 1, 5]);
    assert_eq!(verdict(platform(5), 11, &good, 4), is("UpToDate", ""));
    assert_eq!(verdict(platform(200), 99, &td10([9, 1, 9]), 200), is("UpToDate", ""));
    assert_eq!(
        verdict(platform(5), 11, &td10([6, 1, 4]), 4),
        is("SWHardeningNeeded", "INTEL-SA-00002")
    );
    assert_eq!(verdict(platform(4), 11, &good, 4), is("ConfigurationNeeded", "INTEL-SA-00001"));
    assert_eq!(verdict(platform(5), 10, &good, 4), is("OutOfDate", "INTEL-SA-00003"));
    // The module.
    assert_eq!(verdict(platform(5), 11, &td10([5, 1, 5]), 4), is("OutOfDate", "INTEL-SA-00004"));
    assert_eq!(
        verdict(platform(4), 11, &td10([4, 1, 5]), 4),
        is("OutOfDateConfigurationNeeded", "INTEL-SA-00001 INTEL-SA-00004")
    );
    assert_eq!(verdict(platform(5), 11, &td10([3, 3, 5]), 4), is("UpToDate", ""));
    // Version 0 has no identity: components 0 and 1 count.
    assert_eq!(verdict(platform(5), 11, &td10([5, 0, 5]), 4), is("UpToDate", ""));
    for refused in [[4, 0, 5], [2, 1, 5], [1, 1, 5], [2, 3, 5], [6, 2, 5], [6, 1, 0]] {
        assert_eq!(verdict(platform(5), 11, &td10(refused), 4), Err("ATT-316"), "{refused:?}");
    }
    // The quoting enclave.
    assert_eq!(verdict(platform(5), 11, &good, 3), is("OutOfDate", "INTEL-SA-00009"));
    assert_eq!(verdict(platform(5), 11, &good, 1), Err("ATT-316"));
    // The platform is revoked, or below all levels.
    assert_eq!(verdict(platform(1), 11, &good, 4), Err("ATT-316"));
    assert_eq!(verdict(platform(0), 11, &good, 4), Err("ATT-316"));
    // TD 1.5: launched on an old module, which was updated since.
    assert_eq!(
        verdict(platform(5), 11, &td15([5, 1, 5], [6, 1, 5]), 4),
        is("TDRelaunchAdvised", "INTEL-SA-00004")
    );
    assert_eq!(
        verdict(platform(4), 11, &td15([5, 1, 5], [6, 1, 5]), 4),
        is("TDRelaunchAdvisedConfigurationNeeded", "INTEL-SA-00001 INTEL-SA-00004")
    );
    assert_eq!(
        verdict(platform(5), 11, &td15([5, 1, 5], [5, 1, 5]), 4),
        is("OutOfDate", "INTEL-SA-00004")
    );
    assert_eq!(verdict(platform(5), 11, &td15([6, 1, 5], [5, 1, 5]), 4), is("UpToDate", ""));
    assert_eq!(verdict(platform(5), 11, &td15([6, 1, 5], [2, 1, 5]), 4), Err("ATT-316"));
    assert_eq!(verdict(platform(5), 11, &td15([6, 1, 5], [9, 9, 5]), 4), Err("ATT-316"));
}

#[test]
fn attack_the_tdx_module_is_not_intels() {
    let mint = Mint::new();
    let collateral = mint.good_collateral();
    // Signer, attributes (debug).
    for at in [64, 112, 119] {
        let mut body = td10([6, 1, 5]);
        body[at] = 0x80;
        assert_eq!(mint.agreed(&mint.quote(4, &body), &collateral), Err("ATT-316"), "byte {at}");
        // Without collateral, against what every TCB info says.
        let roots = vec![Certificate::from_der(&mint.root.der).unwrap()];
        let verifier = DcapVerifier::new(roots, None, NOW).unwrap();
        let verify = |body: &[u8]| {
            verifier
                .verify(&TdxEvidence::parse(&mint.quote(4, body), None).unwrap(), None, NOW)
                .map(drop)
        };
        assert_eq!(verify(&td10([6, 1, 5])), Ok(()));
        assert_eq!(verify(&body).unwrap_err().code(), "ATT-316");
    }
    // A bit outside the mask.
    let mut info = tcb_info();
    info["tdxModuleIdentities"][0]["attributesMask"] = json!("00FFFFFFFFFFFFFF");
    let mut body = td10([6, 1, 5]);
    body[112] = 1;
    assert_eq!(
        mint.agreed(&mint.quote(4, &body), &mint.collateral(&info, &qe_identity())),
        Err("ATT-316")
    );
}

#[test]
fn attributes_are_claims_and_the_policy_judges_reserved_bits() {
    let mint = Mint::new();
    let collateral = mint.good_collateral();
    for bit in 0..64 {
        let mut body = td10([6, 1, 5]);
        body[120 + bit / 8] ^= 1 << (bit % 8);
        let claims = mint.verify(&mint.quote(4, &body), &collateral).unwrap();
        let reserved = matches!(bit, 1..=3 | 7..=15 | 23..=26 | 32..=61);
        let unknown = reserved.then(|| Bytes((1_u64 << bit).to_le_bytes()));
        assert_eq!(claims.td_attributes.unknown, unknown, "bit {bit}");
        let acceptable = TdxPolicy::default().check(&claims).is_ok();
        // Debug, profiling, service TDs, SEPT_VE_DISABLE, migration.
        assert_eq!(acceptable, !reserved && !matches!(bit, 0 | 4..=6 | 17 | 28 | 29), "bit {bit}");
        let open = TdxPolicy { allow_unknown_features: true, ..TdxPolicy::default() };
        assert_eq!(
            open.check(&claims).is_ok(),
            !matches!(bit, 0 | 4..=6 | 17 | 28 | 29),
            "bit {bit}"
        );
    }
}

#[test]
fn a_status_that_needs_hardened_software_is_not_accepted_by_default() {
    let mint = Mint::new();
    let claims = mint.verify(&mint.quote(4, &td10([6, 1, 4])), &mint.good_collateral()).unwrap();
    assert_eq!(claims.platform.tcb_status, Some(TcbStatus::SWHardeningNeeded));
    assert_eq!(TdxPolicy::default().check(&claims).unwrap_err().code(), "ATT-414");
    let named = TdxPolicy {
        tcb_statuses: [TcbStatus::UpToDate, TcbStatus::SWHardeningNeeded].into(),
        accepted_advisories: Some(["INTEL-SA-00002".into()].into()),
        ..TdxPolicy::default()
    };
    named.check(&claims).unwrap();
    // A policy is a document.
    let text = serde_json::to_string(&named).unwrap();
    assert_eq!(serde_json::from_str::<TdxPolicy>(&text).unwrap(), named);
    assert_eq!(serde_json::from_str::<TdxPolicy>("{}").unwrap(), TdxPolicy::default());
    assert!(serde_json::from_str::<TdxPolicy>(r#"{"allow_debugging": true}"#).is_err());
}
