//! Our own verifier's results.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use cvm_verify::token::{
    EarKey, EarToken, Expected, KeySet, PROFILE, PROFILE_TRUSTEE, Registered, Rules, Submodule,
    Tier, Token, TokenError, TrustVector, VerifierId,
};
use serde_json::json;

use super::signer::{NOW, SIGNER, flips, keys, registered, with};

fn key() -> EarKey {
    EarKey::from_pkcs8_pem(pem(&SIGNER.p256_pkcs8, "PRIVATE KEY").as_bytes()).unwrap()
}

fn pem(der: &[u8], label: &str) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn ear() -> EarToken {
    let vector =
        TrustVector { hardware: 2, executables: 3, configuration: 2, ..Default::default() };
    let cpu = Submodule {
        status: Tier::Affirming,
        vector: Some(vector),
        annotated_evidence: json!({"snp": {"measurement": "ab"}}),
        appraisal_policy_id: Some("sha256:00".into()),
    };
    EarToken {
        profile: PROFILE.into(),
        verifier: VerifierId { developer: "flare-cvm".into(), build: "flare-cvm 0.1.0".into() },
        registered: Registered {
            issuer: "us".into(),
            audience: vec!["them".into()],
            token_id: Some("7".into()),
            issued_at: NOW,
            not_before: None,
            expires_at: NOW + 300,
        },
        nonce: Some(vec![1, 2, 3]),
        submods: BTreeMap::from([("cpu0".into(), cpu)]),
    }
}

fn rules() -> Rules {
    Rules { audience: Some("them".into()), leeway: 0, ..Rules::new("us") }
}

fn verify(text: &str, nonce: Option<&[u8]>, now: u64) -> Result<EarToken, TokenError> {
    let keys = KeySet::parse(key().jwks().to_string().as_bytes()).unwrap();
    EarToken::verify(
        &Token::parse(text.as_bytes())?,
        &keys,
        &rules(),
        &Expected { nonce, report_data: None },
        now,
    )
}

#[test]
fn a_result_goes_there_and_back() {
    let text = ear().sign(&key()).unwrap();
    assert_eq!(verify(&text, Some(&[1, 2, 3]), NOW).unwrap(), ear());
    for other in [[1, 2, 4].as_slice(), &[]] {
        assert!(matches!(verify(&text, Some(other), NOW), Err(TokenError::Nonce { .. })));
    }
    assert!(matches!(verify(&text, None, NOW + 300), Err(TokenError::Time { .. })));
    let claims = Token::parse(text.as_bytes()).unwrap().unverified_claims().unwrap();
    let cpu = &claims["submods"]["cpu0"];
    assert_eq!(
        (&cpu["ear.status"], &cpu["ear.trustworthiness-vector"]["file-system"]),
        (&json!("affirming"), &json!(0))
    );
    // NVFLARE's published policy looks here.
    assert_eq!(cpu["ear.veraison.annotated-evidence"]["snp"]["measurement"], "ab");
    assert_eq!(claims["eat_nonce"], "AQID");
    for changed in flips(&text, 7) {
        assert!(verify(&changed, None, NOW).is_err(), "{changed}");
    }
}

#[test]
fn another_implementation_believes_it() {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, jwk::JwkSet};
    let text = ear().sign(&key()).unwrap();
    let set: JwkSet = serde_json::from_value(key().jwks()).unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.validate_exp = false;
    validation.set_issuer(&["us"]);
    validation.set_audience(&["them"]);
    let decoding = DecodingKey::from_jwk(set.find(key().kid()).unwrap()).unwrap();
    let read = decode::<serde_json::Value>(&text, &decoding, &validation).unwrap();
    assert_eq!(read.claims, ear().payload());
}

#[test]
fn the_key_holders_token_is_read_as_well() {
    let claims = json!({
        "eat_profile": PROFILE_TRUSTEE,
        "ear.verifier-id": {"developer": "flare-cvm", "build": "cvm-keyholder 0.1.0"},
        "aud": "them",
        "submods": {"cpu0": {
            "ear.status": "affirming", "ear.appraisal-policy-id": "default",
            "ear.veraison.annotated-evidence": {"tpm": {}},
        }},
        "flare-cvm": {"tee": "tpm", "trust": "untrusted-host"},
    });
    let text = SIGNER.sign("ES256", &with(&registered("us"), claims));
    let token = Token::parse(text.as_bytes()).unwrap();
    let ear = EarToken::verify(&token, &keys(&SIGNER.jwks()), &rules(), &Expected::default(), NOW)
        .unwrap();
    assert_eq!((ear.submods["cpu0"].status, ear.submods["cpu0"].vector), (Tier::Affirming, None));
}

#[test]
fn a_status_is_no_better_than_its_vector() {
    for (value, tier) in [
        (0, Tier::None),
        (1, Tier::None),
        (-1, Tier::None),
        (2, Tier::Affirming),
        (31, Tier::Affirming),
        (-2, Tier::Affirming),
        (-32, Tier::Affirming),
        (32, Tier::Warning),
        (95, Tier::Warning),
        (-33, Tier::Warning),
        (96, Tier::Contraindicated),
        (127, Tier::Contraindicated),
        (-97, Tier::Contraindicated),
        (-128, Tier::Contraindicated),
    ] {
        assert_eq!(Tier::of(value), tier, "{value}");
        let mut ear = ear();
        let cpu = ear.submods.get_mut("cpu0").unwrap();
        cpu.vector.as_mut().unwrap().hardware = value;
        let good = matches!(tier, Tier::None | Tier::Affirming);
        assert_eq!(ear.sign(&key()).is_ok(), good, "{value}");
        // Nor does a signature help.
        let text = SIGNER.raw(
            "ES256",
            &json!({"alg": "ES256", "kid": key().kid()}).to_string(),
            &ear.payload().to_string(),
        );
        assert_eq!(verify(&text, None, NOW).is_ok(), good, "{value}");
    }
    assert_eq!(Tier::appraised(true, false), Tier::Affirming);
    assert_eq!(Tier::appraised(true, true), Tier::Warning);
    assert_eq!(Tier::appraised(false, false), Tier::Contraindicated);
    let empty = EarToken { submods: BTreeMap::new(), ..ear() };
    assert!(matches!(empty.sign(&key()), Err(TokenError::Claims { .. })));
}

#[test]
fn keys_that_are_no_signing_keys() {
    let good = pem(&SIGNER.p256_pkcs8, "PRIVATE KEY");
    let damaged = &SIGNER.p256_pkcs8[..SIGNER.p256_pkcs8.len() - 1];
    for bad in [
        "",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY----------END PRIVATE KEY-----",
        &good.repeat(2),
        &good.replace("PRIVATE", "PUBLIC"),
        &good.replace("PRIVATE", "ENCRYPTED PRIVATE"),
        &pem(damaged, "PRIVATE KEY"),
        &pem(&[0x30; 5000], "PRIVATE KEY"),
        &good.replacen('\n', "\n!", 1),
    ] {
        let error = EarKey::from_pkcs8_pem(bad.as_bytes()).unwrap_err();
        assert!(matches!(error, TokenError::Keys { .. }), "{bad}");
    }
    assert_eq!(key().kid().len(), 64);
}

/// RFC 7517 §5: what is not understood is passed over. One odd key took the whole set down.
#[test]
fn an_odd_key_beside_the_good_one_is_passed_over() {
    const ISSUED: u64 = 1795984716;
    let case = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/cases/jwks-odd-key");
        std::fs::read(format!("{folder}/{name}")).unwrap()
    };
    let verdict = |set: &[u8]| {
        let token = Token::parse(&case("verdict.jwt"))?;
        EarToken::verify(
            &token,
            &KeySet::parse(set)?,
            &Rules::new("flare-cvm"),
            &Expected::default(),
            ISSUED,
        )
    };
    for name in ["good", "odd-ec-without-y", "odd-kid-number", "odd-rsa-padded-base64"] {
        verdict(&case(&format!("{name}.jwks"))).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let good: serde_json::Value = serde_json::from_slice(&case("good.jwks")).unwrap();
    let good = &good["keys"][0];
    for odd in [
        json!(null),
        json!([1]),
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "okp", "x": "AAAA"}),
        json!({"kty": 7, "kid": "number"}),
        json!({"kid": "nothing"}),
        with(good, json!({"kid": "short", "x": "AAAA"})),
        with(good, json!({"kid": "alg", "alg": 7})),
        with(good, json!({"kid": "use", "use": 7})),
        with(good, json!({"kid": "x5c", "x5c": "text"})),
        // The same name as the good one's: it still is not a key.
        with(good, json!({"y": null})),
    ] {
        for keys in [json!([good, odd]), json!([odd, good])] {
            let set = json!({ "keys": keys }).to_string();
            verdict(set.as_bytes()).unwrap_or_else(|e| panic!("{odd}: {e}"));
        }
    }
    // The kid rules stay: two keys of one name are nobody's.
    let twice = json!({"keys": [good, good]}).to_string();
    assert!(verdict(twice.as_bytes()).unwrap_err().to_string().contains("two keys"));
}
