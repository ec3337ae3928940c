//! NVIDIA's two policy files, and their verdicts on claims with and without OCSP.

use std::{fs, path::PathBuf};

use cvm_verify::gpu::{ClaimSet, GpuClaims, GpuError, ResultPolicy};
use serde_json::{Map, Value, json};

use super::{IN_2024, complete, read, rims};

fn policy(version: &str) -> ResultPolicy {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../keys/policies");
    ResultPolicy::parse(
        &fs::read(folder.join(format!("nvidia-result-policy-{version}.json"))).unwrap(),
    )
    .unwrap()
}

/// Claims as they are once OCSP has been asked about every certificate.
fn with_ocsp() -> GpuClaims {
    let mut claims = complete(&rims(), IN_2024).unwrap();
    let chains = [
        Some(&mut claims.report.chain),
        claims.driver_rim.chain.as_mut(),
        claims.vbios_rim.chain.as_mut(),
    ];
    for chain in chains.into_iter().flatten() {
        chain.ocsp_status = "good".into();
        (chain.ocsp_nonce_matches, chain.ocsp_response_valid) = (true, true);
    }
    let legacy = &mut claims.legacy;
    (legacy.x_nv_gpu_ocsp_cert_chain_verified, legacy.x_nv_gpu_ocsp_signature_verified) =
        (true, true);
    (legacy.x_nv_gpu_cert_ocsp_nonce_match, legacy.x_nv_gpu_cert_check_complete) = (true, true);
    claims.facts.not_checked.clear();
    claims
}

#[test]
fn both_policies_pass_what_is_complete() {
    for version in ["1.0", "4.0"] {
        let policy = policy(version);
        assert_eq!(policy.version(), version);
        policy.evaluate(&[with_ocsp()]).unwrap();
        policy.evaluate(&[with_ocsp(), with_ocsp()]).unwrap();
    }
}

#[test]
fn neither_policy_passes_without_ocsp_and_both_say_so() {
    let claims = complete(&rims(), IN_2024).unwrap();
    let broken = policy("1.0").evaluate(std::slice::from_ref(&claims)).unwrap_err();
    let rules: Vec<&str> = broken.iter().map(|broken| broken.rule.as_str()).collect();
    assert_eq!(
        rules,
        [
            "x-nv-gpu-cert-check-complete",
            "x-nv-gpu-cert-ocsp-nonce-match",
            "x-nv-gpu-ocsp-cert-chain-verified",
            "x-nv-gpu-ocsp-signature-verified",
        ]
    );
    for broken in broken {
        let line = broken.to_string();
        assert!(
            line.starts_with("GPU-0: x-nv-gpu-") && line.contains("(not checked: ocsp: "),
            "{line}"
        );
    }
    let broken = policy("4.0").evaluate(&[claims]).unwrap_err();
    let rules: Vec<String> =
        broken.iter().map(|broken| format!("{} {}", broken.device, broken.rule)).collect();
    assert_eq!(
        rules,
        [
            "overall x-nvidia-overall-att-result",
            "GPU-0 x-nvidia-gpu-attestation-report-cert-chain/x-nvidia-cert-ocsp-status",
            "GPU-0 x-nvidia-gpu-driver-rim-cert-chain/x-nvidia-cert-ocsp-status",
            "GPU-0 x-nvidia-gpu-vbios-rim-cert-chain/x-nvidia-cert-ocsp-status",
        ]
    );
    assert!(
        broken
            .iter()
            .all(|broken| broken.reason.as_deref().is_some_and(|reason| reason.contains("ocsp")))
    );
}

/// Every rule of both files counts: with the one claim false, or absent, the verdict changes.
#[test]
fn attack_each_claim_alone_fails_its_policy() {
    let good = set(&[with_ocsp()]);
    for version in ["1.0", "4.0"] {
        let policy = policy(version);
        policy.evaluate_set(&good).unwrap();
        let file: Value = serde_json::from_slice(
            &fs::read(
                PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                    .join(format!("../../keys/policies/nvidia-result-policy-{version}.json")),
            )
            .unwrap(),
        )
        .unwrap();
        let rules = &file["authorization-rules"];
        let device = if version == "1.0" { rules } else { &rules["detached-claims"] };
        let mut tried = 0;
        for rule in device.as_object().unwrap().keys() {
            for value in [
                Some(json!(false)),
                Some(json!("true")),
                Some(Value::Null),
                Some(json!({})),
                Some(json!([])),
                None,
            ] {
                let mut claims = good.clone();
                match value {
                    Some(value) => claims.devices[0].1.insert(rule.clone(), value),
                    None => claims.devices[0].1.remove(rule),
                };
                let broken = policy.evaluate_set(&claims).unwrap_err();
                assert!(
                    broken.iter().all(|broken| broken.rule.starts_with(rule.as_str())),
                    "{rule}"
                );
                tried += 1;
            }
        }
        assert_eq!(tried, 6 * if version == "1.0" { 28 } else { 20 });
        for rule in rules["overall-claims"].as_object().into_iter().flat_map(|rules| rules.keys()) {
            let mut claims = good.clone();
            claims.overall.remove(rule);
            assert!(policy.evaluate_set(&claims).is_err(), "{rule}");
        }
        let mut second = good.clone();
        let mut bad = second.devices[0].clone();
        bad.1.insert("measres".into(), json!("fail"));
        bad.1.insert("x-nv-gpu-measurements-match".into(), json!(false));
        second.devices.push(("GPU-1".into(), bad.1));
        assert_eq!(policy.evaluate_set(&second).unwrap_err()[0].device, "GPU-1");
        assert!(policy.evaluate(&[]).is_err(), "no device at all");
    }
}

/// The verdict of NVIDIA's own service, decoded: its names are the ones that policy 4.0 reads.
#[test]
fn claims_of_nvidias_service_pass_policy_4_0() {
    let decoded: Value =
        serde_json::from_slice(&read("../nras/hopperClaimsv3_decoded.json")).unwrap();
    let devices = decoded.as_object().unwrap().iter();
    let overall = json!({"x-nvidia-overall-att-result": true, "x-nvidia-ver": "3.0"});
    let set = ClaimSet {
        overall: overall.as_object().unwrap().clone(),
        devices: devices
            .map(|(name, claims)| (name.clone(), claims.as_object().unwrap().clone()))
            .collect(),
    };
    policy("4.0").evaluate_set(&set).unwrap();
    assert!(policy("1.0").evaluate_set(&set).is_err(), "another vocabulary");
}

#[test]
fn rules_are_compared_as_python_compares() {
    let evaluate = |rule: Value, claim: Value| {
        let policy = json!({"version": "4.0", "authorization-rules":
            {"type": "JWT", "overall-claims": {}, "detached-claims": {"c": rule}}});
        let claims = json!({"c": claim}).as_object().unwrap().clone();
        let set = ClaimSet { overall: Map::new(), devices: vec![("GPU-0".into(), claims)] };
        ResultPolicy::parse(policy.to_string().as_bytes()).unwrap().evaluate_set(&set).is_ok()
    };
    for (rule, claim, verdict) in [
        (json!(true), json!(true), true),
        (json!(true), json!(1), true),
        (json!(1.0), json!(1), true),
        (json!(true), json!("true"), false),
        (json!(0), json!(false), true),
        (json!(null), json!(null), true),
        (json!(null), json!(false), false),
        (json!("a"), json!("A"), false),
        (json!(u64::MAX), json!(u64::MAX - 1), false),
        // Objects: the rule's members only; within lists: all of them.
        (json!({"a": 1}), json!({"a": 1, "b": 2}), true),
        (json!({"a": {"b": 1}}), json!({"a": {"b": 1, "c": 0}}), true),
        (json!({"a": 1}), json!({"b": 2}), false),
        (json!({}), json!({"b": 2}), true),
        (json!({}), json!(true), false),
        (json!([1, {"a": 1}]), json!([true, {"a": 1}]), true),
        (json!([{"a": 1}]), json!([{"a": 1, "b": 2}]), false),
        (json!([1, 2]), json!([2, 1]), false),
    ] {
        assert_eq!(evaluate(rule.clone(), claim.clone()), verdict, "{rule} {claim}");
    }
}

#[test]
fn older_vocabularies_of_nvidias_sdk() {
    let local_3_0 = json!({"version": "3.0", "authorization-rules": {
        "type": "JWT",
        "overall-claims": {"iss": "LOCAL_GPU_VERIFIER", "x-nvidia-overall-att-result": true,
        "x-nvidia-ver": "2.0"},
        "detached-claims": {
            "measres": "success",
            "x-nvidia-gpu-attestation-report-cert-chain-validated": true,
            "x-nvidia-gpu-driver-rim-cert-validated": true,
            "x-nvidia-gpu-vbios-rim-cert-validated": true,
            "x-nvidia-gpu-vbios-index-no-conflict": true,
        },
    }});
    let policy = ResultPolicy::parse(local_3_0.to_string().as_bytes()).unwrap();
    policy.evaluate(&[with_ocsp()]).unwrap();
    assert!(policy.evaluate(&[complete(&rims(), IN_2024).unwrap()]).is_err());
    // SDK 1.1 renamed the claim.
    let renamed = json!({"version": "1.0",
        "authorization-rules": {"x-nv-gpu-vbios-index-no-conflict": true}});
    ResultPolicy::parse(renamed.to_string().as_bytes()).unwrap().evaluate(&[with_ocsp()]).unwrap();
}

#[test]
fn what_is_no_policy() {
    let unknown = json!({"version": "1.0", "authorization-rules": {"x-nv-gpu-available": true,
        "x-nv-gpu-fine": true}});
    let error = ResultPolicy::parse(unknown.to_string().as_bytes()).unwrap_err();
    assert_eq!(
        error,
        GpuError::UnknownRule { version: "1.0".into(), rule: "x-nv-gpu-fine".into() }
    );
    let rules = |rules: Value| json!({"version": "4.0", "authorization-rules": rules}).to_string();
    let good = json!({"type": "JWT", "overall-claims": {}, "detached-claims": {"a": 1}});
    ResultPolicy::parse(rules(good).as_bytes()).unwrap();
    for bad in [
        rules(json!({"type": "JWT", "overall-claims": {}})),
        rules(json!({"overall-claims": {}, "detached-claims": {"a": 1}})),
        rules(json!({"type": "JWT", "overall-claims": {}, "detached-claims": {}})),
        rules(json!({"type": "JWT", "overall-claims": [], "detached-claims": {"a": 1}})),
        rules(json!({"type": "JWT", "overall-claims": {}, "detached-claims": {"a": 1},
                "detached-claim": {}})),
        json!({"version": "1.0", "authorization-rules": {}}).to_string(),
        json!({"version": "5.0", "authorization-rules": {}}).to_string(),
        json!({"version": "1.1", "authorization-rules": {"x-nv-gpu-available": true}}).to_string(),
        json!({"version": 1.0, "authorization-rules": {}}).to_string(),
        json!({"authorization-rules": {}}).to_string(),
        json!({"version": "1.0", "authorization-rules": {"x-nv-gpu-available": true}, "more": 1})
            .to_string(),
        "[".repeat(100_000),
        format!(
            "{{\"version\":\"1.0\",\"authorization-rules\":{{\"x-nv-gpu-available\":{}1{}}}}}",
            "[".repeat(5000),
            "]".repeat(5000)
        ),
        "{}".into(),
        String::new(),
    ] {
        let error = ResultPolicy::parse(bad.as_bytes()).unwrap_err();
        assert!(matches!(error, GpuError::ResultPolicy { .. }), "{error}");
    }
    let jwt =
        json!({"type": "CWT", "overall-claims": {}, "detached-claims": {"measres": "success"}});
    assert!(ResultPolicy::parse(rules(jwt).as_bytes()).unwrap().evaluate(&[with_ocsp()]).is_err());
}

/// Our claims as a token's content.
fn set(claims: &[GpuClaims]) -> ClaimSet {
    ClaimSet::of_gpus(claims, "3.0")
}
