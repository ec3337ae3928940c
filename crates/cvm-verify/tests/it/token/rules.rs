//! Issuer, audience, clock; malformed tokens.

use cvm_base::Explain;
use cvm_verify::token::{
    DetachedEat, Expected, ItaPolicy, KeySet, MAX_DETACHED_BYTES, MAX_KEY_SET_BYTES,
    MAX_TOKEN_BYTES, Rules, Token, TokenError, verify_ita,
};
use serde_json::{Value, json};

use super::signer::{NOW, SIGNER, keys, registered, token, vector, with};

fn verdict(rules: &Rules, claims: &Value, now: u64) -> Result<(), TokenError> {
    let policy = ItaPolicy { rules: rules.clone(), ..ItaPolicy::new("ita") };
    let tee = json!({"tdx_is_debuggable": false, "attester_tcb_status": "UpToDate"});
    let token = token(&SIGNER.sign("ES256", &with(claims, tee)));
    verify_ita(&token, &keys(&SIGNER.jwks()), &policy, &Expected::default(), now).map(drop)
}

#[test]
fn the_clock_and_its_leeway() {
    let claims = with(&registered("ita"), json!({"nbf": NOW + 10, "exp": NOW + 100}));
    for (leeway, now, good) in [
        (0, NOW + 9, false),
        (0, NOW + 10, true),
        (0, NOW + 99, true),
        (0, NOW + 100, false),
        (30, NOW - 21, false),
        (30, NOW - 20, true),
        (30, NOW + 129, true),
        (30, NOW + 130, false),
        (600, NOW - 590, true),
        (601, NOW + 50, false),
        (u64::MAX, NOW + 50, false),
    ] {
        let rules = Rules { leeway, ..Rules::new("ita") };
        let found = verdict(&rules, &claims, now);
        assert_eq!(found.is_ok(), good, "leeway {leeway}, now {now}: {found:?}");
    }
    let rules = Rules { leeway: 0, max_age: Some(60), ..Rules::new("ita") };
    assert!(verdict(&rules, &claims, NOW + 60).is_ok());
    assert!(matches!(verdict(&rules, &claims, NOW + 61), Err(TokenError::Time { .. })));
    let rules = Rules::new("ita");
    for bad in [
        json!({"exp": null}),
        json!({"exp": (NOW + 100).to_string()}),
        json!({"exp": 1.0e18}),
        json!({"exp": -1}),
        json!({"iat": null}),
        json!({"exp": NOW, "iat": NOW}),
        json!({"nbf": "never"}),
    ] {
        assert!(verdict(&rules, &with(&claims, bad.clone()), NOW + 50).is_err(), "{bad}");
    }
    // A token for ever is bounded by the policy, not by arithmetic.
    assert!(verdict(&rules, &with(&claims, json!({"exp": u64::MAX})), NOW + 50).is_ok());
}

#[test]
fn issuer_and_audience_are_the_policys() {
    let claims = registered("ita");
    let to = |audience: Option<&str>| Rules {
        audience: audience.map(str::to_owned),
        ..Rules::new("ita")
    };
    for (rules, aud, good) in [
        (to(None), json!(null), false),
        (to(Some("us")), json!("us"), true),
        (to(Some("us")), json!(["them", "us"]), true),
        (to(Some("us")), json!("them"), false),
        (to(Some("us")), json!([]), false),
        (to(Some("us")), json!(["us", 1]), false),
        (to(None), json!("us"), false),
    ] {
        let found = verdict(&rules, &with(&claims, json!({ "aud": aud.clone() })), NOW);
        assert_eq!(found.is_ok(), good, "{:?} {aud}: {found:?}", rules.audience);
    }
    assert!(verdict(&to(None), &claims, NOW).is_ok());
    assert!(verdict(&to(Some("us")), &claims, NOW).is_err());
    for issuer in ["", "ITA", "ita/", "ita ", "https://ita"] {
        assert!(matches!(
            verdict(&Rules::new(issuer), &claims, NOW),
            Err(TokenError::Party { claim: "iss", .. })
        ));
    }
    assert!(
        verdict(&Rules::new(""), &with(&claims, json!({"iss": ""})), NOW).is_err(),
        "nobody is not an issuer"
    );
}

#[test]
fn malformed_tokens_of_every_kind() {
    let good = SIGNER.sign("ES256", &registered("ita"));
    let (header, rest) = good.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let parts = [header, payload, signature];
    for bad in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        format!("{header}.{payload}"),
        format!("{good}.{signature}"),
        format!("{header}..{signature}"),
        format!("{header}={}", &good[header.len()..]),
        good.replace('.', " ."),
        format!("{} {}", &good[..20], &good[20..]),
        good.replacen('.', "\u{2024}", 1),
        // JSON serialization (RFC 7515 §7.2), and an encrypted token (RFC 7516).
        json!({"protected": header, "payload": payload, "signature": signature}).to_string(),
        format!("{header}.{payload}.{signature}.{payload}.{signature}"),
    ] {
        let verdict = Token::parse(bad.as_bytes()).and_then(|token| {
            verify_ita(
                &token,
                &keys(&SIGNER.jwks()),
                &ItaPolicy::new("ita"),
                &Expected::default(),
                NOW,
            )
        });
        assert!(
            matches!(verdict, Err(TokenError::Malformed { .. } | TokenError::Signature { .. })),
            "{bad}: {verdict:?}"
        );
    }
    assert_eq!(parts.len(), 3);
    assert!(Token::parse(&[0xff; 100]).is_err());
    assert!(Token::parse(format!("\n{good}\r\n").as_bytes()).is_ok(), "files end in a newline");
    // Payloads that are signed and still no claims.
    for payload in ["", "[]", "1", "{\"a\":1}{}", "{\"exp\":1,\"exp\":2}", &"[".repeat(50_000)] {
        let token = token(&SIGNER.raw("ES256", r#"{"alg":"ES256","kid":"p256"}"#, payload));
        let error = verify_ita(
            &token,
            &keys(&SIGNER.jwks()),
            &ItaPolicy::new("ita"),
            &Expected::default(),
            NOW,
        );
        assert!(matches!(error, Err(TokenError::Malformed { .. })), "{payload:.20}");
    }
}

#[test]
fn attack_a_gigabyte() {
    // Refused by its length: nothing of it is decoded, let alone copied.
    let huge = vec![b'A'; 1 << 30];
    let errors = [
        Token::parse(&huge).unwrap_err(),
        KeySet::parse(&huge).unwrap_err(),
        DetachedEat::parse(&huge).unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("1073741824 bytes"), "{error}");
        assert!(matches!(error.code(), "ATT-350" | "ATT-352"));
    }
    for bound in [MAX_TOKEN_BYTES, MAX_KEY_SET_BYTES, MAX_DETACHED_BYTES] {
        assert!(Token::parse(&huge[..bound]).is_err());
        assert!(KeySet::parse(&huge[..bound]).is_err());
        assert!(DetachedEat::parse(&huge[..bound]).is_err());
    }
}

#[test]
fn key_sets_that_cannot_be_used() {
    let good = SIGNER.jwks()["keys"][0].clone();
    let der = "-----BEGIN PUBLIC \
        KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC \
        KEY-----\n";
    let nvidia = String::from_utf8(vector("nras/nras-prod-20250609.recovered.pub.pem")).unwrap();
    for bad in [
        "",
        "{}",
        "[]",
        r#"{"keys":{}}"#,
        r#"{"keys":[1]}"#,
        r#"{"keys":[]}"#,
        der,
        &nvidia.repeat(2),
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        &json!({"keys": vec![good.clone(); 65]}).to_string(),
        &json!({"keys": [with(&good, json!({"x": "AAAA"}))]}).to_string(),
        &json!({"keys": [with(&good, json!({"x": "===="}))]}).to_string(),
        &json!({"keys": [with(&good, json!({"crv": "P-384"}))]}).to_string(),
        &json!({"keys": [with(&good, json!({"kty": 1}))]}).to_string(),
        &json!({"keys": [with(&good, json!({"x5c": ["AAAA"]}))]}).to_string(),
        &json!({"keys": [{"kty": "RSA", "kid": "r", "n": "AQAB"}]}).to_string(),
    ] {
        let error = KeySet::parse(bad.as_bytes()).unwrap_err();
        assert!(
            matches!(error, TokenError::Keys { .. } | TokenError::Malformed { .. }),
            "{bad}: {error}"
        );
    }
    // Another key's certificate would let a root vouch for a key that it never saw.
    let azure: Value = serde_json::from_slice(&vector("maa/maa-1-sgx.jwks.json")).unwrap();
    let mixed = with(&SIGNER.jwks()["keys"][2], json!({"x5c": azure["keys"][0]["x5c"]}));
    assert!(KeySet::parse(json!({"keys": [mixed]}).to_string().as_bytes()).is_err());
}
