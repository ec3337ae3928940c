//! Another enclave, certificates and documents that are not what they should be.

use cvm_base::Explain as _;
use cvm_verify::{
    tdx::{DcapVerifier, TdxEvidence},
    x509::Certificate,
};
use serde_json::{Value, json};

use super::{
    NOW,
    documents::{qe_identity, tcb_info},
    mint::{Authority, COMPONENTS, Mint, certification, qe_report, sgx_extension, td10},
};

#[test]
fn attack_quoting_enclave_of_somebody_else() {
    let mint = Mint::new();
    let collateral = mint.good_collateral();
    let chain = certification(5, mint.chain().as_bytes());
    let body = td10([6, 1, 5]);
    // Signer, product, MISCSELECT, flags, debug: a genuine platform runs anybody's enclave.
    for (at, value) in [(128, 0), (256, 1), (16, 1), (48, 0x15 ^ 0x10), (48, 0x13), (55, 1)] {
        let mut report = qe_report(&mint.ak);
        report[at] = value;
        let verdict = mint.agreed(&mint.quote_of(4, &body, &report, &chain), &collateral);
        assert_eq!(verdict, Err("ATT-315"), "byte {at}");
        let roots = vec![Certificate::from_der(&mint.root.der).unwrap()];
        let quote = TdxEvidence::parse(&mint.quote_of(4, &body, &report, &chain), None).unwrap();
        let verdict = DcapVerifier::new(roots, None, NOW).unwrap().verify(&quote, None, NOW);
        assert_eq!(verdict.unwrap_err().code(), "ATT-315", "byte {at}, without collateral");
    }
    // A QE identity that does not mask debug still allows none.
    let mut lax = qe_identity();
    lax["attributesMask"] = json!("00000000000000000000000000000000");
    let mut report = qe_report(&mint.ak);
    report[48] = 0x13;
    let collateral_lax = mint.collateral(&tcb_info(), &lax);
    assert_eq!(
        mint.agreed(&mint.quote_of(4, &body, &report, &chain), &collateral_lax),
        Err("ATT-315")
    );

    // The enclave vouched for another key, or for other authentication data.
    let mut report = qe_report(&mint.ak);
    report[320] ^= 1;
    assert_eq!(mint.agreed(&mint.quote_of(4, &body, &report, &chain), &collateral), Err("ATT-314"));
    // Another platform's key signed the enclave's report; another key the quote.
    let other = Mint {
        pck: Authority::new("Intel SGX PCK Certificate", 5, false, Some(&mint.ca), None),
        ..Mint::new()
    };
    let quote = other.quote_of(4, &body, &qe_report(&other.ak), &chain);
    assert_eq!(mint.agreed(&quote, &collateral), Err("ATT-313"));
}

#[test]
fn attack_certificates_that_are_not_what_they_should_be() {
    let mint = Mint::new();
    let body = td10([6, 1, 5]);
    let quote = mint.quote(4, &body);
    let collateral = mint.good_collateral();
    assert!(mint.agreed(&quote, &collateral).is_ok());
    // Somebody else's root, intermediates and all.
    let other = Mint::new();
    assert_eq!(mint.agreed(&other.quote(4, &body), &collateral), Err("ATT-311"));
    assert_eq!(mint.agreed(&quote, &other.good_collateral()), Err("ATT-312"));
    // Chains: without the root, in another order, one certificate too many, the CA alone.
    let [pck, ca, root] = [&mint.pck.pem, &mint.ca.pem, &mint.root.pem];
    for parts in [
        vec![pck, ca],
        vec![ca, pck, root],
        vec![root, ca, pck],
        vec![pck, root, ca],
        vec![pck, ca, root, root],
        vec![ca],
    ] {
        let chain: String = parts.into_iter().map(String::as_str).collect();
        let quote =
            mint.quote_of(4, &body, &qe_report(&mint.ak), &certification(5, chain.as_bytes()));
        assert!(matches!(
            mint.verify(&quote, &collateral).unwrap_err().code(),
            "ATT-311" | "ATT-312"
        ));
    }
    // The TCB signer as a platform's certificate, and a platform's as TCB signer.
    let forged = Mint {
        pck: Authority::new(
            "Intel SGX TCB Signing",
            4,
            false,
            Some(&mint.ca),
            Some(sgx_extension(COMPONENTS, 11, [0, 0])),
        ),
        ..Mint::new()
    };
    let chain = [&*forged.pck.pem, ca, root].concat();
    let quote_of =
        forged.quote_of(4, &body, &qe_report(&forged.ak), &certification(5, chain.as_bytes()));
    assert_eq!(mint.verify(&quote_of, &collateral).unwrap_err().code(), "ATT-311");
    let mut forged = collateral.clone();
    forged["tcb_info_issuer_chain"] = json!([pck.as_str(), ca, root].concat());
    forged["tcb_info_signature"] =
        json!(hex::encode(mint.pck.sign(forged["tcb_info"].as_str().unwrap().as_bytes())));
    assert_eq!(mint.agreed(&quote, &forged), Err("ATT-312"));
    // A CA of ours below the root's CA, which signs TCB info.
    let rogue = Authority::new("Intel SGX TCB Signing", 6, false, Some(&mint.ca), None);
    forged["tcb_info_issuer_chain"] = json!([rogue.pem.as_str(), ca, root].concat());
    forged["tcb_info_signature"] =
        json!(hex::encode(rogue.sign(forged["tcb_info"].as_str().unwrap().as_bytes())));
    assert_eq!(mint.agreed(&quote, &forged), Err("ATT-312"));
    // PCK certificates without the SGX extension, or of another PCE (which dcap-qvl does not
    // compare).
    let bare = Mint {
        pck: Authority::new("Intel SGX PCK Certificate", 4, false, Some(&mint.ca), None),
        ..Mint::new()
    };
    let chain = [&*bare.pck.pem, ca, root].concat();
    let quote_of =
        bare.quote_of(4, &body, &qe_report(&bare.ak), &certification(5, chain.as_bytes()));
    assert_eq!(mint.agreed(&quote_of, &collateral), Err("ATT-311"));
    let other_pce = Mint::with_pck(sgx_extension(COMPONENTS, 11, [1, 0]));
    let refused =
        other_pce.verify(&other_pce.quote(4, &body), &other_pce.good_collateral()).unwrap_err();
    assert_eq!(refused.code(), "ATT-413");
}

#[test]
fn attack_revoked_platform_ca_signer_and_root() {
    let mint = Mint::new();
    let quote = mint.quote(4, &td10([6, 1, 5]));
    let mut collateral = mint.good_collateral();
    assert!(mint.agreed(&quote, &collateral).is_ok());
    collateral["pck_crl"] = json!(mint.ca.crl(&[4]));
    assert_eq!(mint.agreed(&quote, &collateral), Err("ATT-312"));
    let mut collateral = mint.good_collateral();
    for (serial, code) in [(2, "ATT-312"), (3, "ATT-312"), (1, "ATT-411")] {
        collateral["root_ca_crl"] = json!(mint.root.crl(&[serial]));
        assert_eq!(mint.agreed(&quote, &collateral), Err(code), "serial {serial}");
    }
    // A list that somebody else signed.
    let other = Mint::new();
    let mut collateral = mint.good_collateral();
    collateral["pck_crl"] = json!(other.ca.crl(&[]));
    assert_eq!(mint.agreed(&quote, &collateral), Err("ATT-312"));
}

#[test]
fn attack_documents_that_expired_or_are_of_the_future() {
    let mint = Mint::new();
    let quote = mint.quote(4, &td10([6, 1, 5]));
    for (member, value) in [
        ("issueDate", "2025-06-15T15:06:41Z"),
        ("nextUpdate", "2025-06-15T15:06:39Z"),
        ("nextUpdate", "yesterday"),
    ] {
        let expected = if value == "yesterday" { "ATT-411" } else { "ATT-412" };
        let mut info = tcb_info();
        info[member] = json!(value);
        assert_eq!(mint.agreed(&quote, &mint.collateral(&info, &qe_identity())), Err(expected));
        let mut identity = qe_identity();
        identity[member] = json!(value);
        assert_eq!(mint.agreed(&quote, &mint.collateral(&tcb_info(), &identity)), Err(expected));
    }
    let mut collateral = mint.good_collateral();
    for (member, authority) in [("root_ca_crl", &mint.root), ("pck_crl", &mint.ca)] {
        collateral[member] = json!(authority.crl_of(&[], (5, 1), (6, 1)));
        assert_eq!(mint.agreed(&quote, &collateral), Err("ATT-412"), "{member}");
        // A list of the future, which dcap-qvl believes.
        collateral[member] = json!(authority.crl_of(&[], (6, 20), (7, 1)));
        assert_eq!(mint.verify(&quote, &collateral).unwrap_err().code(), "ATT-412", "{member}");
        assert!(mint.second_opinion(&quote, &collateral).is_ok());
        collateral[member] = json!(authority.crl(&[]));
    }
    // NOW itself, the first and the last second: 2025-06-15T15:06:40Z.
    let mut info = tcb_info();
    info["issueDate"] = json!("2025-06-15T15:06:40Z");
    info["nextUpdate"] = json!("2025-06-15T15:06:40Z");
    assert!(mint.agreed(&quote, &mint.collateral(&info, &qe_identity())).is_ok());
}

#[test]
fn attack_documents_of_another_kind() {
    let mint = Mint::new();
    let quote = mint.quote(4, &td10([6, 1, 5]));
    let with = |pointer: &str, value: Value| {
        let mut info = tcb_info();
        *info.pointer_mut(pointer).unwrap() = value;
        mint.agreed(&quote, &mint.collateral(&info, &qe_identity()))
    };
    assert_eq!(with("/id", json!("SGX")), Err("ATT-413"));
    assert_eq!(with("/id", json!("QE")), Err("ATT-411"));
    assert_eq!(with("/version", json!(2)), Err("ATT-411"));
    assert_eq!(with("/fmspc", json!("90C06F000001")), Err("ATT-413"));
    assert_eq!(with("/tdxModule", Value::Null), Err("ATT-411"));
    assert_eq!(with("/tcbLevels", json!([])), Err("ATT-316"));
    // A level that no platform reaches first (dcap-qvl reads on).
    let mut info = tcb_info();
    info["tcbLevels"][1]["tcb"]["tdxtcbcomponents"] = json!([]);
    assert_eq!(
        mint.verify(&quote, &mint.collateral(&info, &qe_identity())).unwrap_err().code(),
        "ATT-411"
    );
    assert_eq!(with("/tcbLevels/1/tcbStatus", json!("Fine")), Err("ATT-411"));
    assert_eq!(with("/tcbLevels/1/tcbStatus", json!("TDRelaunchAdvised")), Err("ATT-411"));
    assert_eq!(
        with("/tdxModuleIdentities/0/tcbLevels/0/tcbStatus", json!("SWHardeningNeeded")),
        Err("ATT-411")
    );
    for (member, value) in
        [("id", json!("QE")), ("id", json!("QVE")), ("version", json!(1)), ("tcbLevels", json!([]))]
    {
        let mut identity = qe_identity();
        identity[member] = value;
        assert!(mint.agreed(&quote, &mint.collateral(&tcb_info(), &identity)).is_err(), "{member}");
    }
}

/// Platforms without a registered chain send an encrypted PPID: the chain comes with the
/// collateral.
#[test]
fn an_encrypted_ppid_needs_the_collaterals_chain() {
    let mint = Mint::new();
    let body = td10([6, 1, 5]);
    let mut collateral = mint.good_collateral();
    let quote = mint.quote_of(4, &body, &qe_report(&mint.ak), &certification(3, &[0; 404]));
    assert_eq!(mint.agreed(&quote, &collateral), Err("ATT-311"));
    collateral["pck_certificate_chain"] = json!(mint.chain());
    assert!(mint.agreed(&quote, &collateral).is_ok());
    // Another platform's chain does not fit the signature.
    let other = Authority::new(
        "Intel SGX PCK Certificate",
        5,
        false,
        Some(&mint.ca),
        Some(sgx_extension(COMPONENTS, 11, [0, 0])),
    );
    collateral["pck_certificate_chain"] =
        json!([other.pem, mint.ca.pem.clone(), mint.root.pem.clone()].concat());
    assert_eq!(mint.agreed(&quote, &collateral), Err("ATT-313"));
    // Certification data that says something else.
    for kind in [0, 1, 4, 6, 7] {
        let quote = mint.quote_of(
            4,
            &body,
            &qe_report(&mint.ak),
            &certification(kind, mint.chain().as_bytes()),
        );
        assert_eq!(mint.agreed(&quote, &mint.good_collateral()), Err("ATT-310"), "{kind}");
    }
}
