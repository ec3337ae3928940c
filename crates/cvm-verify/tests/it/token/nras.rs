//! NVIDIA's Remote Attestation Service.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use cvm_base::{Explain, sha256};
use cvm_verify::token::{
    DetachedEat, Expected, KeySet, NrasClaims, NrasPolicy, TokenError, verify_nras,
};
use serde_json::{Value, json};

use super::signer::{NOW, SIGNER, flips, keys, registered, vector, with};

const ISSUER: &str = "https://nras.attestation.nvidia.com";
const ISSUED: u64 = 1_749_601_858;
const NONCE: &str = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb";

fn bundle() -> Value {
    serde_json::from_slice(&vector("nras/hopperClaimsv3_detached_eat.json")).unwrap()
}

fn pem() -> KeySet {
    KeySet::parse(&vector("nras/nras-prod-20250609.recovered.pub.pem")).unwrap()
}

fn hopper(bundle: &Value, nonce: Option<&[u8]>) -> Result<NrasClaims, TokenError> {
    let eat = DetachedEat::parse(bundle.to_string().as_bytes())?;
    verify_nras(
        &eat,
        &pem(),
        &NrasPolicy::new(ISSUER),
        &Expected { nonce, report_data: None },
        ISSUED,
    )
}

#[test]
fn hopper_version_3() {
    let nonce = hex::decode(NONCE).unwrap();
    let claims = hopper(&bundle(), Some(&nonce)).unwrap();
    assert_eq!((claims.version.as_str(), claims.overall_result), ("3.0", true));
    let expected: Value =
        serde_json::from_slice(&vector("nras/hopperClaimsv3_decoded.json")).unwrap();
    assert_eq!(json!(claims.devices), expected);
    assert_eq!(claims.to_json()["nras"]["devices"]["GPU-0"]["hwmodel"], "GH100 A01 GSP BROM");
    assert!(!claims.not_checked.iter().any(|left_out| left_out.check == "nonce"));

    assert!(
        hopper(&bundle(), None)
            .unwrap()
            .not_checked
            .iter()
            .any(|left_out| left_out.check == "nonce")
    );
    for other in [&nonce[..31], &[], &[0; 32]] {
        assert!(matches!(hopper(&bundle(), Some(other)), Err(TokenError::Nonce { .. })));
    }
    let eat = DetachedEat::parse(bundle().to_string().as_bytes()).unwrap();
    let at = |now| verify_nras(&eat, &pem(), &NrasPolicy::new(ISSUER), &Expected::default(), now);
    assert!(at(1_749_605_458 + 119).is_ok());
    assert!(matches!(at(1_749_605_458 + 120), Err(TokenError::Time { .. })));
    assert!(matches!(at(ISSUED - 121), Err(TokenError::Time { .. })));
}

#[test]
fn every_flipped_bit_is_refused() {
    for pointer in ["/0/1", "/1/GPU-0"] {
        let good = bundle();
        for changed in flips(good.pointer(pointer).unwrap().as_str().unwrap(), 29) {
            let mut bundle = good.clone();
            *bundle.pointer_mut(pointer).unwrap() = json!(changed);
            assert!(hopper(&bundle, None).is_err(), "{pointer} {changed}");
        }
    }
}

#[test]
fn attack_parts_of_other_bundles() {
    let good = bundle();
    let (overall, device) = (&good[0], &good[1]["GPU-0"]);
    for bad in [
        json!([overall, {}]),
        json!([overall, {"GPU-1": device}]),
        json!([overall, {"GPU-0": device, "GPU-1": device}]),
        json!([overall, {"GPU-0": overall[1]}]),
        json!([["JWT", device], {"GPU-0": device}]),
        json!([["JWT", overall[1]]]),
        json!([["CWT", overall[1]], {"GPU-0": device}]),
        json!([overall, {"GPU-0": [["JWT", overall[1]], {}]}]),
        json!({"GPU-0": device}),
    ] {
        assert!(hopper(&bad, None).is_err(), "{bad}");
    }
}

/// A bundle of the test's own service.
fn sign(overall: Value, devices: &[(&str, Value)]) -> Value {
    let devices: serde_json::Map<String, Value> = devices
        .iter()
        .map(|(name, claims)| ((*name).into(), json!(SIGNER.sign("ES384", claims))))
        .collect();
    let digest =
        |token: &Value| json!(["DIGEST", ["SHA-256", sha256(token.as_str().unwrap().as_bytes())]]);
    let submods: serde_json::Map<String, Value> =
        devices.iter().map(|(name, token)| (name.clone(), digest(token))).collect();
    let overall = with(&json!({"submods": submods}), overall);
    json!([["JWT", SIGNER.sign("ES384", &overall)], devices])
}

fn overall(version: &str) -> Value {
    let claims =
        json!({"x-nvidia-ver": version, "x-nvidia-overall-att-result": true, "eat_nonce": NONCE});
    with(&registered(ISSUER), claims)
}

fn device_v2(kind: &str) -> Value {
    let mut claims = with(
        &registered(ISSUER),
        json!({"eat_nonce": NONCE, "measres": "comparison-successful", "dbgstat": "disabled",
            "secboot": true}),
    );
    for check in ["parsed", "nonce-match", "signature-verified", "cert-chain-validated"] {
        claims[format!("x-nvidia-{kind}-attestation-report-{check}")] = json!(true);
    }
    claims[format!("x-nvidia-{kind}-arch-check")] = json!(true);
    claims
}

fn own(bundle: &Value, policy: &NrasPolicy) -> Result<NrasClaims, TokenError> {
    let eat = DetachedEat::parse(bundle.to_string().as_bytes())?;
    verify_nras(&eat, &keys(&SIGNER.jwks()), policy, &Expected::default(), NOW)
}

#[test]
fn version_2_with_a_switch_and_each_thing_that_spoils_it() {
    let policy = NrasPolicy { devices: Some(2), ..NrasPolicy::new(ISSUER) };
    let with_gpu =
        |gpu: Value| sign(overall("2.0"), &[("GPU-0", gpu), ("SWITCH-0", device_v2("switch"))]);
    assert_eq!(own(&with_gpu(device_v2("gpu")), &policy).unwrap().devices.len(), 2);
    assert!(
        own(&sign(overall("2.0"), &[("GPU-0", device_v2("gpu"))]), &policy).is_err(),
        "a device too few"
    );

    let device = device_v2("gpu");
    for claim in device.as_object().unwrap().keys() {
        let mut spoiled = device.clone();
        spoiled[claim] = match &device[claim] {
            Value::Bool(_) => json!(false),
            Value::String(_) => json!("another"),
            _ => json!(0),
        };
        // Its token's name, and times in the past.
        let harmless = ["jti", "iat", "nbf"].contains(&claim.as_str());
        assert_eq!(own(&with_gpu(spoiled), &policy).is_ok(), harmless, "{claim}");
    }
    for claim in [
        "measres",
        "dbgstat",
        "secboot",
        "eat_nonce",
        "x-nvidia-gpu-attestation-report-nonce-match",
    ] {
        let mut silent = device.clone();
        silent.as_object_mut().unwrap().remove(claim);
        assert!(own(&with_gpu(silent), &policy).is_err(), "{claim} absent");
    }
    let warned = with(&device, json!({"x-nvidia-attestation-warning": "OCSP says hold"}));
    assert!(matches!(own(&with_gpu(warned.clone()), &policy), Err(TokenError::Refused { .. })));
    assert!(own(&with_gpu(warned), &NrasPolicy { allow_warnings: true, ..policy.clone() }).is_ok());

    for (member, value) in [
        ("x-nvidia-overall-att-result", json!(false)),
        ("x-nvidia-overall-att-result", json!("true")),
        ("x-nvidia-ver", json!("1.0")),
        ("x-nvidia-ver", Value::Null),
        ("eat_nonce", json!("00")),
        ("iss", json!("https://nras.evil")),
        ("submods", json!({"GPU-0": ["DIGEST", ["SHA-1", "00"]], "SWITCH-0": 1})),
        ("exp", Value::Null),
    ] {
        let claims = with(&overall("2.0"), json!({ member: value }));
        let bundle =
            sign(claims, &[("GPU-0", device_v2("gpu")), ("SWITCH-0", device_v2("switch"))]);
        assert!(own(&bundle, &policy).is_err(), "{member}");
    }
}

#[test]
fn version_3_chains() {
    let decoded: Value =
        serde_json::from_slice(&vector("nras/hopperClaimsv3_decoded.json")).unwrap();
    let device = with(&with(&decoded["GPU-0"], registered(ISSUER)), json!({"eat_nonce": NONCE}));
    let policy = NrasPolicy::new(ISSUER);
    let verdict = |device: Value| own(&sign(overall("3.0"), &[("GPU-0", device)]), &policy);
    verdict(device.clone()).unwrap();
    for (pointer, value) in [
        ("/x-nvidia-gpu-driver-rim-cert-chain/x-nvidia-cert-status", json!("expired")),
        ("/x-nvidia-gpu-vbios-rim-cert-chain/x-nvidia-cert-ocsp-status", json!("revoked")),
        ("/x-nvidia-gpu-vbios-rim-cert-chain/x-nvidia-cert-ocsp-status", Value::Null),
        (
            "/x-nvidia-gpu-attestation-report-cert-chain/x-nvidia-cert-revocation-reason",
            json!("keyCompromise"),
        ),
        ("/x-nvidia-gpu-attestation-report-cert-chain", json!(true)),
        ("/x-nvidia-gpu-driver-rim-fetched", json!(false)),
        ("/measres", json!("fail")),
    ] {
        let mut spoiled = device.clone();
        *spoiled.pointer_mut(pointer).unwrap() = value;
        assert!(matches!(verdict(spoiled), Err(TokenError::Refused { .. })), "{pointer}");
    }
}

#[test]
fn attack_the_local_verifiers_own_token() {
    use aws_lc_rs::hmac;
    let hs256 = |secret: &[u8], claims: &Value| {
        let signed = format!(
            "{}.{}",
            B64.encode(r#"{"alg":"HS256","typ":"JWT"}"#),
            B64.encode(claims.to_string())
        );
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
        format!("{signed}.{}", B64.encode(tag))
    };
    for (secret, published) in [(b"secret".as_slice(), true), (b"another", false)] {
        let device = hs256(secret, &device_v2("gpu"));
        let digest = json!(["DIGEST", ["SHA-256", sha256(device.as_bytes())]]);
        let overall = with(&overall("2.0"), json!({"submods": {"GPU-0": digest}}));
        let bundle = json!([["JWT", hs256(secret, &overall)], {"GPU-0": device}]);
        let error = own(&bundle, &NrasPolicy::new(ISSUER)).unwrap_err();
        assert_eq!(error, TokenError::Symmetric { published });
        assert_eq!((error.code(), error.to_string().contains("proves nothing")), ("ATT-359", true));
    }
}
