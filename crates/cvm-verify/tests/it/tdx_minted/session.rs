//! A TD in the release protocol.

use cvm_base::Explain as _;
use cvm_collateral::tee::Vendors;
use cvm_evidence::trustee::report_data;
use cvm_verify::{
    appraise::{EvidenceSet, Terms},
    snp::SnpRoots,
    x509::Certificate,
};
use serde_json::{Value, json};

use super::{
    NOW,
    documents::{qe_identity, tcb_info},
    mint::{Mint, td10},
};

/// A TD's evidence as its attester sends it, for the session with this digest.
fn in_a_session(mint: &Mint, binding: &[u8; 48], change: impl FnOnce(&mut [u8])) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut body = td10([5, 0, 6]);
    body[520..584].copy_from_slice(&report_data(binding));
    change(&mut body);
    json!({ "cc_eventlog": null, "quote": STANDARD.encode(mint.quote(4, &body)) })
}

#[test]
fn a_td_in_the_release_protocol() {
    let mint = Mint::new();
    let vendors = Vendors::new(
        SnpRoots::amd().unwrap().clone(),
        vec![Certificate::from_der(&mint.root.der).unwrap()],
    );
    let binding = [0x42; 48];
    let found =
        vendors.verify("tdx", &in_a_session(&mint, &binding, |_| {}), &binding, NOW).unwrap();
    assert_eq!(found.claims["quote"]["body"]["mr_td"], "11".repeat(48));
    assert_eq!(found.claims["trust"], "tee");
    let left_out: Vec<_> = found.claims["not_checked"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|n| n["check"].as_str())
        .collect();
    assert!(
        found.incomplete && left_out.contains(&"tcb-status"),
        "no collateral was at hand: {left_out:?}"
    );
    assert!(!left_out.contains(&"report-data"));
    // Whoever asks compares RTMR0 with the image's: it covers the host's ACPI tables.
    assert!(!left_out.contains(&"acpi"), "{left_out:?}");

    // attack_a_report_of_another_session
    let stolen = vendors
        .verify("tdx", &in_a_session(&mint, &[0x43; 48], |_| {}), &binding, NOW)
        .unwrap_err();
    assert!(stolen.is_wrong_nonce(), "{stolen}");
    let genuine = Vendors::genuine().unwrap();
    let foreign =
        genuine.verify("tdx", &in_a_session(&mint, &binding, |_| {}), &binding, NOW).unwrap_err();
    assert!(
        !foreign.is_wrong_nonce() && !foreign.is_forbidden() && !foreign.is_malformed(),
        "{foreign}"
    );
    let unknown = vendors.verify("sgx", &json!({}), &binding, NOW).unwrap_err();
    assert_eq!(unknown.code(), "ATT-394");
}

#[test]
fn attack_a_debug_td_and_a_migratable_td() {
    let mint = Mint::new();
    let vendors = Vendors::new(
        SnpRoots::amd().unwrap().clone(),
        vec![Certificate::from_der(&mint.root.der).unwrap()],
    );
    let binding = [0x42; 48];
    // TD attributes, bits 0 and 29.
    for (byte, bit, word) in [(120, 0x01, "debug"), (123, 0x20, "move")] {
        let evidence = in_a_session(&mint, &binding, |body| body[byte] |= bit);
        let refused = vendors.verify("tdx", &evidence, &binding, NOW).unwrap_err();
        assert!(refused.is_forbidden() && refused.to_string().contains(word), "{refused}");
    }
}

/// Of two lists that are valid, both Intel's, the evidence brings the one that still calls its
/// platform good: the one that the verifier has decides.
#[test]
fn attack_evidence_that_brings_an_older_tcb_list() {
    let mint = Mint::new();
    let list = |status: &str| {
        let mut info = tcb_info();
        info["tcbLevels"][1]["tcbStatus"] = json!(status);
        mint.collateral(&info, &qe_identity()).to_string().into_bytes()
    };
    let (older, newer) = (list("UpToDate"), list("OutOfDate"));
    let verdict = |given: Option<&Vec<u8>>| {
        let mut files = EvidenceSet::default();
        files.present("td", "td/quote.bin", mint.quote(4, &td10([5, 0, 6])));
        files.present("td", "td/collateral.json", older.clone());
        given.iter().for_each(|given| files.add_collateral("mine.json", given.to_vec()));
        let of_nvidia = std::fs::read(format!(
            "{}/../../keys/roots/nvidia/verifier_device_root.pem",
            env!("CARGO_MANIFEST_DIR")
        ));
        let roots = [mint.root.pem.as_bytes(), &of_nvidia.unwrap()].concat();
        let appraisal = files.verify(&Terms { roots: Some(roots), now: NOW, ..Terms::default() });
        let (_, claims) =
            appraisal.claims().next().unwrap_or_else(|| panic!("{:?}", appraisal.refusals));
        claims.to_json()["tcb_status"].clone()
    };
    assert_eq!(verdict(None), "UpToDate");
    assert_eq!(verdict(Some(&newer)), "OutOfDate");
}
