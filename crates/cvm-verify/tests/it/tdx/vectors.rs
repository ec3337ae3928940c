//! The vectors' verdicts and claims.

use cvm_base::Explain as _;
use cvm_verify::{
    tdx::{DcapVerifier, INTEL_ROOT_PEM, Quote, TdxClaims, TdxEvidence, TdxPolicy, intel_roots},
    x509::Certificate,
};
use serde_json::{Value, json};

use super::{CONFAI, NEAR, PHALA, SGX, collateral_json, evidence, ours, quote, theirs, verifier};

/// Every row of PROVENANCE.md, and whether status and advisories are those stated.
#[test]
fn verdicts_of_provenance() {
    type Expected = Result<(&'static str, &'static [&'static str]), &'static str>;
    let rows: [(&str, &str, u64, Expected); 9] = [
        ("phala-tdx_quote", "phala-tdx_quote", PHALA, Ok(("UpToDate", &[]))),
        ("phala-tdx_quote", "phala-tdx_quote", 1_756_376_163, Err("ATT-412")),
        ("phala-tdx_quote", "phala-tdx_quote", 1_746_873_147, Err("ATT-412")),
        (
            "phala-tdx_quote",
            "near-mpc-nopck",
            NEAR,
            Ok((
                "OutOfDate",
                &["INTEL-SA-01192", "INTEL-SA-01245", "INTEL-SA-01312", "INTEL-SA-01313"],
            )),
        ),
        ("near-mpc", "near-mpc", NEAR, Ok(("UpToDate", &[]))),
        ("near-mpc", "near-mpc-nopck", NEAR, Ok(("UpToDate", &[]))),
        ("near-mpc", "phala-tdx_quote", PHALA, Err("ATT-312")),
        ("trustee-tdx_quote_4", "confai-50806f000000-2026-03", CONFAI, Err("ATT-415")),
        (
            "phala-sgx_quote",
            "phala-sgx_quote",
            SGX,
            Ok(("ConfigurationAndSWHardeningNeeded", &["INTEL-SA-00289", "INTEL-SA-00615"])),
        ),
    ];
    for (name, with, now, expected) in rows {
        let bytes = quote(name);
        let found = verifier(with, now).and_then(|verifier| ours(&verifier, &bytes, now));
        let oracle = theirs(&serde_json::from_slice(&collateral_json(with)).unwrap(), &bytes, now);
        match (expected, found) {
            (Ok((status, advisories)), Ok(mut found)) => {
                found.1.sort();
                assert_eq!(
                    (&*found.0, &found.1[..]),
                    (status, &advisories.map_strings()[..]),
                    "{name} {with}"
                );
                let mut oracle = oracle.unwrap();
                oracle.1.sort();
                assert_eq!(found, oracle, "{name} {with}");
            }
            (Err(code), Err(error)) => {
                assert_eq!(error.code(), code, "{name} {with}: {error}");
                assert_eq!(oracle, None, "{name} {with}");
            }
            (expected, found) => panic!("{name} {with}: expected {expected:?}, found {found:?}"),
        }
    }
}

trait MapStrings {
    fn map_strings(&self) -> Vec<String>;
}

impl MapStrings for [&str] {
    fn map_strings(&self) -> Vec<String> {
        self.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn the_root_is_intels() {
    let embedded = &intel_roots().unwrap()[0];
    assert!(embedded.subject().contains("Intel SGX Root CA"));
    for name in ["near-mpc", "phala-tdx_quote", "phala-sgx_quote", "confai-50806f000000-2026-03"] {
        let document: Value = serde_json::from_slice(&collateral_json(name)).unwrap();
        let chain =
            Certificate::read_all(document["tcb_info_issuer_chain"].as_str().unwrap().as_bytes())
                .unwrap();
        assert_eq!(chain.last().unwrap(), embedded);
    }
    assert!(INTEL_ROOT_PEM.starts_with(b"-----BEGIN CERTIFICATE-----"));
}

#[test]
fn claims_are_laid_out_like_trustees() {
    let evidence =
        TdxEvidence::parse(&quote("near-mpc"), Some(&evidence("ccel/near-mpc/tcb_info.json")))
            .unwrap();
    let claims = verifier("near-mpc", NEAR).unwrap().verify(&evidence, None, NEAR).unwrap();
    TdxPolicy::default().check(&claims).unwrap();
    let value = serde_json::to_value(&claims).unwrap();
    for (pointer, expected) in [
        ("/quote/header/version", json!("0400")),
        ("/quote/header/tee_type", json!("81000000")),
        ("/quote/header/vendor_id", json!("939a7233f79c4ca9940a0db3957f0607")),
        ("/quote/body/tcb_svn", json!("0b010400000000000000000000000000")),
        ("/quote/body/xfam", json!("e702060000000000")),
        ("/td_attributes/debug", json!(false)),
        ("/td_attributes/septve_disable", json!(true)),
        ("/tcb_status", json!("UpToDate")),
        ("/advisory_ids", json!([])),
        ("/collateral_expiration_status", json!("0")),
        ("/tcb_date", json!("2025-08-13T00:00:00Z")),
        ("/earliest_issue_date", json!("2018-05-21T10:45:10Z")),
        ("/fmspc", json!("b0c06f000000")),
        ("/sgx_type", json!("Scalable")),
        ("/tcb_eval_num", json!(19)),
        ("/uefi_event_logs/0/index", json!(1)),
        ("/uefi_event_logs/11/type_name", json!("EV_EFI_BOOT_SERVICES_APPLICATION")),
        ("/uefi_event_logs/11/details/device_paths/0", json!("File(kernel)")),
        ("/uefi_event_logs/11/digests/0/alg", json!("SHA-384")),
        ("/uefi_event_logs/16/details/string", json!("LOADED_IMAGE::LoadOptions")),
        ("/not_checked/0/check", json!("report-data")),
    ] {
        assert_eq!(value.pointer(pointer), Some(&expected), "{pointer}");
    }
    assert_eq!(value["quote"]["body"]["mr_td"].as_str().unwrap().len(), 96);
    assert_eq!(value["init_data"], value["quote"]["body"]["mr_config_id"]);
    assert_eq!(serde_json::from_value::<TdxClaims>(value).unwrap(), claims);
    // What dcap-qvl computes from the same collateral.
    let key = claims.platform.root_key_id.unwrap().to_string();
    assert!(
        key.starts_with("46e403bd34f05a3f2817ab9badcaacc7ffc98e0f261008cd30dae936cace18d5"),
        "{key}"
    );
}

#[test]
fn sgx_claims_are_laid_out_like_trustees() {
    let quote = Quote::parse(&quote("phala-sgx_quote")).unwrap();
    let claims = verifier("phala-sgx_quote", SGX).unwrap().verify_sgx(&quote, None, SGX).unwrap();
    let value = serde_json::to_value(&claims).unwrap();
    assert_eq!(value["header"]["version"], "0300");
    assert_eq!(value["body"]["mr_enclave"].as_str().unwrap().len(), 64);
    assert_eq!(value["tcb_status"], "ConfigurationAndSWHardeningNeeded");
    // A TD's verifier takes no enclave, and the other way round.
    let error = verifier("phala-sgx_quote", SGX)
        .unwrap()
        .verify(&TdxEvidence::parse(&self::quote("phala-sgx_quote"), None).unwrap(), None, SGX)
        .unwrap_err();
    assert_eq!(error.code(), "ATT-310");
}

#[test]
fn what_was_not_checked_is_said() {
    let bytes = evidence("azure/tdx-trustee-evidence-v0/td_quote.bin");
    let evidence = TdxEvidence::parse(&bytes, None).unwrap();
    let verifier = DcapVerifier::new(intel_roots().unwrap(), None, NEAR).unwrap();
    let claims = verifier.verify(&evidence, None, NEAR).unwrap();
    let checks: Vec<_> = claims.not_checked.iter().map(|check| &*check.check).collect();
    assert_eq!(
        checks,
        ["report-data", "certificate-revocation", "tcb-status", "qe-identity", "event-log", "acpi"]
    );
    assert_eq!(claims.platform.tcb_status, None);
    assert_eq!(claims.platform.fmspc.to_string(), "00806f050000");
    // Azure's paravisor runs without SEPT_VE_DISABLE.
    let strict = TdxPolicy::default();
    assert!(strict.check(&claims).unwrap_err().to_string().contains("SEPT_VE_DISABLE"));
    let azure = TdxPolicy { require_septve_disable: false, ..strict };
    assert!(azure.check(&claims).unwrap_err().to_string().contains("no collateral"));
    TdxPolicy { allow_unknown_tcb: true, ..azure }.check(&claims).unwrap();
    // REPORT_DATA starts with the runtime JSON's digest.
    let expected = claims.report_data.0;
    let claims = verifier.verify(&evidence, Some(&expected), NEAR).unwrap();
    assert!(claims.not_checked.iter().all(|check| check.check != "report-data"));
}
