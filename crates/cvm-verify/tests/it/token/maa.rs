//! Microsoft Azure Attestation.

use cvm_verify::{
    token::{Expected, KeySet, MaaClaims, MaaPolicy, Registered, Token, TokenError, verify_maa},
    x509::Certificate,
};
use serde_json::{Value, json};

use super::signer::{NOW, SIGNER, flips, keys, registered, token, vector, with};

const ISSUER: &str = "https://pylarryoattestationaad.wus.attest.azure.net";
/// Its `iat` and `exp`.
const ISSUED: u64 = 1_625_170_389;
const EXPIRES: u64 = 1_625_199_189;

fn maa_1() -> (Token, KeySet, MaaPolicy) {
    let policy = MaaPolicy { types: vec!["sgx".into()], ..MaaPolicy::new(ISSUER) };
    let keys = KeySet::parse(&vector("maa/maa-1-sgx.jwks.json")).unwrap();
    (Token::parse(&vector("maa/maa-1-sgx.jwt")).unwrap(), keys, policy)
}

#[test]
fn maa_1_is_valid_for_its_eight_hours() {
    let (token, keys, mut policy) = maa_1();
    let verify =
        |policy: &MaaPolicy, now| verify_maa(&token, &keys, policy, &Expected::default(), now);
    let claims = verify(&policy, 1_625_170_300 + 3600).unwrap();
    assert_eq!(claims.attestation_type, "sgx");
    assert_eq!(
        claims.measurement.as_deref(),
        Some("b779202618becb636768e5d902f28d524222735fafb539ea9ba07c3fc171a1c2")
    );
    assert!(!claims.debuggable && !claims.through_vtpm);
    // The enclave's held data are bound by its report data: a key.
    assert_eq!(claims.runtime_keys[0]["crv"], "P-256");
    assert_eq!(claims.policy_hash.as_deref(), Some("z0FRjKS0ssQTNur1V6BV8WIrh9M3fzgTo0EfHRvapWU"));
    let left_out: Vec<&str> = claims.not_checked.iter().map(|n| n.check.as_str()).collect();
    assert_eq!(left_out, ["audience", "nonce", "attestation-policy", "tcb-status"]);
    assert_eq!(claims.to_json()["maa"]["issuer"], ISSUER);

    // The default leeway covers the difference between Azure's clock and the one that noted the
    // time of issue.
    for now in [1_625_170_300, ISSUED, EXPIRES - 1, EXPIRES + 119] {
        assert!(verify(&policy, now).is_ok(), "{now}");
    }
    for now in [0, ISSUED - 121, EXPIRES + 120, 1_800_000_000, u64::MAX] {
        assert!(matches!(verify(&policy, now), Err(TokenError::Time { .. })), "{now}");
    }
    policy.rules.leeway = 0;
    for (now, good) in [(ISSUED - 1, false), (ISSUED, true), (EXPIRES - 1, true), (EXPIRES, false)]
    {
        assert_eq!(verify(&policy, now).is_ok(), good, "{now}");
    }
}

#[test]
fn maa_1_is_bound_to_what_is_expected() {
    let (token, keys, policy) = maa_1();
    let report_data =
        hex::decode("ed11a9eb97dfc17053a32a6992e71d04f7ec996e45519ab710936afb48f9041d").unwrap();
    let verify = |expected: Expected<'_>| verify_maa(&token, &keys, &policy, &expected, ISSUED);
    let bound = verify(Expected { report_data: Some(&report_data), nonce: None }).unwrap();
    assert!(!bound.not_checked.iter().any(|left_out| left_out.check == "nonce"));
    // A beginning of it only, nothing, and another.
    for other in [&report_data[..31], &[], &[0; 32]] {
        let error = verify(Expected { report_data: Some(other), nonce: None }).unwrap_err();
        assert!(matches!(error, TokenError::Nonce { .. }), "{error}");
    }
    // It carries no nonce at all.
    assert!(matches!(
        verify(Expected { nonce: Some(b"n"), report_data: None }),
        Err(TokenError::Nonce { .. })
    ));
}

#[test]
fn maa_1_under_certificates() {
    let (token, keys, policy) = maa_1();
    let jwks: Value = serde_json::from_slice(&vector("maa/maa-1-sgx.jwks.json")).unwrap();
    let der = |key: usize| {
        let base64 = jwks["keys"][key]["x5c"].as_array().unwrap().last().unwrap().as_str().unwrap();
        let pem = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
        Certificate::read_all(pem.as_bytes()).unwrap()
    };
    let verify = |keys: &KeySet| verify_maa(&token, keys, &policy, &Expected::default(), ISSUED);
    // The other keys' root did not certify this key; and no root certifies nothing.
    for roots in [der(1), Vec::new()] {
        let error = verify(&keys.clone().with_roots(roots)).unwrap_err();
        assert!(matches!(error, TokenError::Unverifiable { .. }), "{error}");
    }
}

#[test]
fn every_flipped_bit_of_maa_1_is_refused() {
    let (_, keys, policy) = maa_1();
    let text = String::from_utf8(vector("maa/maa-1-sgx.jwt")).unwrap();
    for changed in flips(text.trim(), 23) {
        let verdict = Token::parse(changed.as_bytes())
            .and_then(|token| verify_maa(&token, &keys, &policy, &Expected::default(), ISSUED));
        assert!(verdict.is_err(), "{changed}");
    }
}

#[test]
fn an_azure_vm_without_its_key_is_read_and_not_believed() {
    let token = Token::parse(&vector("maa/azurevm-token-nokey.jwt")).unwrap();
    let keys = KeySet::parse(&vector("maa/maa-1-sgx.jwks.json")).unwrap();
    let policy = MaaPolicy::new("https://sharedweu.weu.attest.azure.net");
    let error =
        verify_maa(&token, &keys, &policy, &Expected::default(), 1_680_180_000).unwrap_err();
    assert!(matches!(error, TokenError::Unverifiable { .. }), "{error}");
    assert!(error.to_string().contains("dRKh+hBcWUfQimSl3Iv6ZhStW3TSOt0ThwiTgUUqZAo="), "{error}");

    let read = |claims: &Value| {
        let registered = Registered {
            issuer: "nobody's word".into(),
            audience: Vec::new(),
            token_id: None,
            issued_at: 0,
            not_before: None,
            expires_at: 1,
        };
        MaaClaims::read(registered, claims.as_object().unwrap()).unwrap()
    };
    let sample: Value = serde_json::from_slice(&vector("maa/azurevm-sample-payload.json")).unwrap();
    for claims in [Value::Object(token.unverified_claims().unwrap()), sample] {
        let maa = read(&claims);
        assert_eq!((maa.attestation_type.as_str(), maa.through_vtpm), ("sevsnpvm", true));
        assert_eq!(maa.compliance_status.as_deref(), Some("azure-compliant-cvm"));
        assert_eq!((maa.debuggable, maa.secure_boot), (false, Some(true)));
        assert_eq!(maa.measurement.unwrap().len(), 96);
        assert_eq!(maa.report_data.unwrap().len(), 128);
        assert_eq!(maa.runtime_keys[0]["kid"], "HCLAkPub");
        assert!(
            maa.vm.contains_key("x-ms-azurevm-vmid") && !maa.vm.contains_key("x-ms-isolation-tee")
        );
    }
}

/// The sample's claims, signed by a key that the test has.
fn azure_vm() -> Value {
    let sample: Value = serde_json::from_slice(&vector("maa/azurevm-sample-payload.json")).unwrap();
    let nonce = json!({"x-ms-runtime": {"client-payload": {"nonce": "QURFMDEwMQ=="}}});
    with(&with(&sample, registered("maa")), nonce)
}

fn verdict(claims: &Value, policy: &MaaPolicy) -> Result<MaaClaims, TokenError> {
    let expected = Expected { nonce: Some(b"ADE0101"), report_data: None };
    let token = token(&SIGNER.sign("RS256", claims));
    verify_maa(&token, &keys(&SIGNER.jwks()), policy, &expected, NOW)
}

#[test]
fn a_confidential_vm_and_each_thing_that_spoils_it() {
    let good = azure_vm();
    let policy = MaaPolicy::new("maa");
    verdict(&good, &policy).unwrap();
    let tee = "/x-ms-isolation-tee";
    for (pointer, value) in [
        (format!("{tee}/x-ms-sevsnpvm-is-debuggable"), json!(true)),
        (format!("{tee}/x-ms-compliance-status"), json!("none")),
        (format!("{tee}/x-ms-attestation-type"), json!("sgx")),
        (format!("{tee}/x-ms-attestation-type"), json!("azurevm")),
        ("/secureboot".into(), json!(false)),
        ("/x-ms-azurevm-kerneldebug-enabled".into(), json!(true)),
        ("/x-ms-azurevm-testsigning-enabled".into(), json!(true)),
        ("/x-ms-azurevm-debuggersdisabled".into(), json!(false)),
        ("/x-ms-azurevm-bootdebug-enabled".into(), json!("false")),
        ("/x-ms-attestation-type".into(), json!("sevsnpvm")),
        ("/x-ms-runtime/client-payload/nonce".into(), json!("QURFMDEwMg==")),
        ("/x-ms-isolation-tee".into(), Value::Null),
        ("/iss".into(), json!("maa.evil")),
    ] {
        let mut claims = good.clone();
        *claims.pointer_mut(&pointer).unwrap() = value;
        assert!(verdict(&claims, &policy).is_err(), "{pointer}");
    }
    // What nobody says is not good.
    let mut silent = good.clone();
    silent["x-ms-isolation-tee"].as_object_mut().unwrap().remove("x-ms-sevsnpvm-is-debuggable");
    assert!(matches!(verdict(&silent, &policy), Err(TokenError::Claims { .. })));
    // Azure's policy, if ours names it.
    let named = |hash: &str| MaaPolicy { policy_hash: Some(hash.into()), ..policy.clone() };
    assert!(verdict(&good, &named("wm9mHlvTU82e8UqoOy1Yj1FBRSNkfe99-69IYDq9eWs")).is_ok());
    assert!(matches!(verdict(&good, &named("another")), Err(TokenError::Refused { .. })));
    // Two nonces, one of another session.
    assert!(verdict(&with(&good, json!({"nonce": "ADE0101"})), &policy).is_ok());
    assert!(verdict(&with(&good, json!({"nonce": "ADE0102"})), &policy).is_err());
}

#[test]
fn a_tdx_vm_and_what_a_policy_may_allow() {
    let tdx = json!({
        "x-ms-attestation-type": "tdxvm", "x-ms-compliance-status": "azure-compliant-cvm",
        "dbgstat": "disabled",
        "attester_tcb_status": "UpToDate", "tdx_td_attributes_debug": false,
        "tdx_mrtd": "aa".repeat(48),
        "tdx_report_data": "bb".repeat(64), "nonce": "ADE0101",
    });
    let good = with(&registered("maa"), tdx);
    let policy = MaaPolicy::new("maa");
    assert_eq!(verdict(&good, &policy).unwrap().tcb_status.as_deref(), Some("UpToDate"));
    for (spoiled, allowing) in [
        (
            json!({"tdx_td_attributes_debug": true}),
            MaaPolicy { allow_debug: true, ..policy.clone() },
        ),
        (json!({"dbgstat": "enabled"}), MaaPolicy { allow_debug: true, ..policy.clone() }),
        (
            json!({"attester_tcb_status": "OutOfDate"}),
            MaaPolicy { tcb_statuses: vec!["OutOfDate".into()], ..policy.clone() },
        ),
        (
            json!({"x-ms-compliance-status": "none"}),
            MaaPolicy { compliance: None, ..policy.clone() },
        ),
    ] {
        let claims = with(&good, spoiled);
        let error = verdict(&claims, &policy).unwrap_err();
        assert!(matches!(error, TokenError::Refused { .. }), "{error}");
        assert!(verdict(&claims, &allowing).is_ok());
    }
}
