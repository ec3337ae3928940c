//! Intel Trust Authority. No token with its key is public: the layouts are its documentation's, the
//! key is ours.

use cvm_verify::token::{Expected, ItaClaims, ItaPolicy, TokenError, verify_ita};
use serde_json::{Value, json};

use super::signer::{NOW, SIGNER, keys, registered, token, with};

fn tdx() -> Value {
    json!({
        "attester_type": "TDX", "attester_tcb_status": "UpToDate", "attester_advisory_ids": [],
        "dbgstat": "disabled",
        "attester_held_data": "AQID", "tdx_is_debuggable": false, "tdx_td_attributes_debug": false,
        "tdx_mrtd": "0c".repeat(48), "tdx_rtmr0": "00".repeat(48),
        "tdx_report_data": "31".repeat(64),
    })
}

/// The nonce as the service writes it: base64 of base64.
fn common() -> Value {
    let service = json!({
        "ver": "2.0.0", "policy_ids_matched": [{"id": "p1", "version": "v1", "hash": "x"}],
        "policy_ids_unmatched": null, "verifier_nonce": {"val": "Ym05dVkyVT0=", "iat": "",
        "signature": ""},
    });
    with(&registered("ita"), service)
}

fn v1() -> Value {
    with(&common(), tdx())
}

fn v2() -> Value {
    let gpu =
        json!({"measres": "comparison-successful", "dbgstat": "disabled", "hwmodel": "GH100"});
    with(&common(), json!({"tdx": tdx(), "nvgpu": gpu}))
}

fn verdict(claims: &Value, policy: &ItaPolicy) -> Result<ItaClaims, TokenError> {
    let expected = Expected { nonce: Some(b"nonce"), report_data: None };
    verify_ita(&token(&SIGNER.sign("PS384", claims)), &keys(&SIGNER.jwks()), policy, &expected, NOW)
}

#[test]
fn both_claim_versions_say_the_same() {
    let policy = ItaPolicy { required_policies: vec!["p1".into()], ..ItaPolicy::new("ita") };
    for claims in [v1(), v2()] {
        let ita = verdict(&claims, &policy).unwrap();
        assert_eq!(ita.attester_type, "tdx");
        assert_eq!(ita.measurement, Some("0c".repeat(48)));
        assert_eq!(ita.report_data, Some("31".repeat(64)));
        assert_eq!(ita.tcb_status.as_deref(), Some("UpToDate"));
        assert_eq!(ita.held_data.as_deref(), Some("AQID"));
        assert_eq!(ita.policies_matched, ["p1"]);
        assert_eq!(
            ita.not_checked.iter().map(|n| n.check.as_str()).collect::<Vec<_>>(),
            ["audience"]
        );
        assert_eq!(ita.to_json()["ita"]["tee"]["tdx_rtmr0"], "00".repeat(48));
    }
    // SEV-SNP has no status of Intel's.
    let snp = json!({"sevsnp": {"sevsnp_is_debuggable": false,
        "sevsnp_launchmeasurement": "70".repeat(48)}});
    let snp = verdict(&with(&common(), snp), &policy).unwrap();
    assert_eq!(snp.attester_type, "sevsnp");
    assert!(
        snp.not_checked.iter().any(|left_out| left_out.check == "tcb-status"),
        "{:?}",
        snp.not_checked
    );
}

#[test]
fn each_thing_that_spoils_it() {
    let policy = ItaPolicy { required_policies: vec!["p1".into()], ..ItaPolicy::new("ita") };
    for (pointer, value) in [
        ("/tdx/tdx_is_debuggable", json!(true)),
        ("/tdx/tdx_td_attributes_debug", json!(true)),
        ("/tdx/dbgstat", json!("enabled")),
        ("/tdx/attester_tcb_status", json!("OutOfDate")),
        ("/tdx/attester_tcb_status", Value::Null),
        ("/tdx/attester_advisory_ids", json!(["INTEL-SA-00837"])),
        ("/tdx/attester_advisory_ids", json!([1])),
        // The token is genuine, and the tenant's own policy said no.
        ("/policy_ids_unmatched", json!([{"id": "p2"}])),
        ("/policy_ids_matched", json!([])),
        ("/nvgpu/measres", json!("comparison-fail")),
        ("/nvgpu/measres", Value::Null),
        ("/nvgpu/dbgstat", json!("enabled")),
        ("/verifier_nonce/val", json!("Ym05dVkyVQ==")),
        ("/verifier_nonce", Value::Null),
        ("/tdx", Value::Null),
        ("/tdx", json!([])),
        ("/iss", json!("Intel Trust Authority")),
    ] {
        let mut claims = v2();
        *claims.pointer_mut(pointer).unwrap() = value.clone();
        assert!(verdict(&claims, &policy).is_err(), "{pointer} {value}");
    }
    assert!(
        verdict(&with(&v2(), json!({"sgx": {"sgx_is_debuggable": false}})), &policy).is_err(),
        "two TEEs"
    );
    assert!(
        ItaPolicy::new("ita").types.contains(&"sgx".to_owned()),
        "as Microsoft's tokens of SGX"
    );
    let open = ItaPolicy {
        tcb_statuses: vec!["OutOfDate".into()],
        accepted_advisories: vec!["INTEL-SA-00837".into()],
        ..policy
    };
    let old =
        json!({"attester_tcb_status": "OutOfDate", "attester_advisory_ids": ["INTEL-SA-00837"]});
    assert!(verdict(&with(&v1(), old), &open).is_ok());
}
