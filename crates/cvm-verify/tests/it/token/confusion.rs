//! JWTs as they were forged before: the algorithm, the key, the header.

use aws_lc_rs::{hmac, signature::KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use cvm_verify::{
    token::{Expected, ItaPolicy, KeySet, Token, TokenError, verify_ita},
    x509::Certificate,
};
use serde_json::{Value, json};

use super::signer::{NOW, SIGNER, Signer, keys, registered, with};

fn claims() -> Value {
    with(&registered("ita"), json!({"tdx_is_debuggable": false, "attester_tcb_status": "UpToDate"}))
}

fn verdict(text: &str, keys: &KeySet) -> Result<(), TokenError> {
    verify_ita(
        &Token::parse(text.as_bytes())?,
        keys,
        &ItaPolicy::new("ita"),
        &Expected::default(),
        NOW,
    )
    .map(drop)
}

/// The claims, signed as `alg` under this header.
fn under(alg: &str, header: Value) -> Result<(), TokenError> {
    verdict(&SIGNER.raw(alg, &header.to_string(), &claims().to_string()), &keys(&SIGNER.jwks()))
}

#[test]
fn all_six_algorithms() {
    for alg in ["RS256", "RS384", "PS256", "PS384", "ES256", "ES384"] {
        verdict(&SIGNER.sign(alg, &claims()), &keys(&SIGNER.jwks())).unwrap();
    }
    // Made by another implementation.
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    header.kid = Some("p256".into());
    let key = jsonwebtoken::EncodingKey::from_ec_der(&SIGNER.p256_pkcs8);
    verdict(&jsonwebtoken::encode(&header, &claims(), &key).unwrap(), &keys(&SIGNER.jwks()))
        .unwrap();
}

#[test]
fn attack_no_signature() {
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let unsigned = format!(
            "{}.{}.",
            B64.encode(json!({"alg": alg, "kid": "rsa"}).to_string()),
            B64.encode(claims().to_string())
        );
        let error = verdict(&unsigned, &keys(&SIGNER.jwks())).unwrap_err();
        assert!(matches!(error, TokenError::Algorithm { .. }), "{alg}: {error}");
    }
    for alg in ["RS256", "ES256"] {
        let good = SIGNER.sign(alg, &claims());
        let stripped = &good[..=good.rfind('.').unwrap()];
        assert!(matches!(
            verdict(stripped, &keys(&SIGNER.jwks())),
            Err(TokenError::Signature { .. })
        ));
    }
    // CVE-2022-21449: r = s = 0.
    let good = SIGNER.sign("ES256", &claims());
    let zeros = format!("{}{}", &good[..=good.rfind('.').unwrap()], B64.encode([0; 64]));
    assert!(verdict(&zeros, &keys(&SIGNER.jwks())).is_err());
}

#[test]
fn attack_an_hmac_with_the_public_key_as_its_secret() {
    let rsa = SIGNER.rsa.public_key().as_ref().to_vec();
    let jwks = SIGNER.jwks().to_string().into_bytes();
    for secret in [rsa.as_slice(), SIGNER.p256.public_key().as_ref(), &jwks, b""] {
        for kid in ["rsa", "p256"] {
            let header = json!({"alg": "HS256", "kid": kid, "typ": "JWT"}).to_string();
            let signed = format!("{}.{}", B64.encode(header), B64.encode(claims().to_string()));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
            let error = verdict(&format!("{signed}.{}", B64.encode(tag)), &keys(&SIGNER.jwks()))
                .unwrap_err();
            assert_eq!(error, TokenError::Symmetric { published: false });
        }
    }
    // A symmetric key in a key set is nobody's public key.
    let oct = json!({"kty": "oct", "kid": "rsa", "k": "c2VjcmV0"});
    let alone = KeySet::parse(json!({"keys": [oct]}).to_string().as_bytes()).unwrap_err();
    assert!(alone.to_string().contains("oct"), "{alone}");
    let set = keys(&json!({"keys": [oct, SIGNER.jwks()["keys"][0]]}));
    let error = verdict(&SIGNER.sign("RS256", &claims()), &set).unwrap_err();
    assert!(matches!(error, TokenError::Unverifiable { .. }), "{error}");
}

#[test]
fn attack_another_algorithm_than_the_keys() {
    // The header's alg decides nothing: neither its own signature nor another key's.
    for (signed, said, kid) in [
        ("RS256", "PS256", "rsa"),
        ("PS256", "RS256", "rsa"),
        ("RS256", "RS384", "rsa"),
        ("PS384", "PS256", "rsa"),
        ("ES256", "ES384", "p256"),
        ("ES256", "ES384", "p384"),
        ("ES384", "ES256", "p384"),
        ("ES256", "RS256", "rsa"),
        ("RS256", "ES256", "p256"),
        ("RS256", "RS256", "p256"),
        ("ES256", "ES256", "rsa"),
        ("ES256", "ES256K", "p256"),
        ("RS256", "RS512", "rsa"),
        ("ES256", "EdDSA", "p256"),
        ("RS256", "rs256", "rsa"),
        ("RS256", "RSA-OAEP", "rsa"),
    ] {
        let error = under(signed, json!({"alg": said, "kid": kid})).unwrap_err();
        let typed = matches!(
            error,
            TokenError::Algorithm { .. }
                | TokenError::Unverifiable { .. }
                | TokenError::Signature { .. }
        );
        assert!(typed, "{said} {kid}: {error}");
    }
    // A key that says what it is for is for nothing else.
    let mut jwks = SIGNER.jwks();
    jwks["keys"][2]["alg"] = json!("PS384");
    assert!(verdict(&SIGNER.sign("PS384", &claims()), &keys(&jwks)).is_ok());
    for alg in ["PS256", "RS256"] {
        assert!(matches!(
            verdict(&SIGNER.sign(alg, &claims()), &keys(&jwks)),
            Err(TokenError::Unverifiable { .. })
        ));
    }
    for (member, value) in
        [("use", json!("enc")), ("key_ops", json!(["encrypt"])), ("key_ops", json!("verify"))]
    {
        let mut jwks = SIGNER.jwks();
        jwks["keys"][2][member] = value;
        assert!(verdict(&SIGNER.sign("RS256", &claims()), &keys(&jwks)).is_err(), "{member}");
    }
}

#[test]
fn attack_a_key_that_the_token_brings_itself() {
    let attacker = Signer::generate();
    let jwk = attacker.jwks()["keys"][2].clone();
    let certificate = rcgen::generate_simple_self_signed(["ita".to_owned()]).unwrap().cert;
    for (member, value) in [
        ("jwk", jwk),
        ("jku", json!("https://attacker.example/jwks.json")),
        ("x5u", json!("https://attacker.example/chain.pem")),
        ("x5c", json!([base64::engine::general_purpose::STANDARD.encode(certificate.der())])),
        ("x5t", json!("AAAA")),
    ] {
        for kid in ["rsa", "attacker"] {
            let header = json!({"alg": "RS256", "kid": kid, member: value}).to_string();
            let forged = attacker.raw("RS256", &header, &claims().to_string());
            let error = verdict(&forged, &keys(&SIGNER.jwks())).unwrap_err();
            let typed =
                matches!(error, TokenError::Signature { .. } | TokenError::Unverifiable { .. });
            assert!(typed, "{member} {kid}: {error}");
        }
        // Azure writes jku into every token: it is not believed, and does no harm.
        under("RS256", json!({"alg": "RS256", "kid": "rsa", member: value})).unwrap();
    }
}

#[test]
fn attack_headers_that_change_the_meaning() {
    for (member, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("enc", json!("A256GCM")),
        ("cty", json!("JWT")),
        ("typ", json!("at+jwt")),
        ("typ", json!("JWE")),
        ("typ", json!(1)),
        ("alg", json!(["RS256"])),
        ("alg", json!(null)),
        ("kid", json!(7)),
    ] {
        let header = with(&json!({"alg": "RS256", "kid": "rsa"}), json!({ member: value.clone() }));
        let error = under("RS256", header).unwrap_err();
        assert!(matches!(error, TokenError::Header { .. }), "{member} {value}: {error}");
    }
    let twice = [
        r#"{"alg":"none","alg":"RS256","kid":"rsa"}"#,
        r#"{"alg":"RS256","kid":"rsa","\u0061lg":"none"}"#,
        r#"{"alg":"RS256","kid":"rsa","kid":"rsa"}"#,
    ];
    for header in twice {
        let token = SIGNER.raw("RS256", header, &claims().to_string());
        assert!(
            matches!(verdict(&token, &keys(&SIGNER.jwks())), Err(TokenError::Malformed { .. })),
            "{header}"
        );
    }
}

#[test]
fn attack_a_key_name_that_is_missing_unknown_or_given_twice() {
    for header in [
        json!({"alg": "RS256"}),
        json!({"alg": "RS256", "kid": ""}),
        json!({"alg": "RS256", "kid": "RSA"}),
    ] {
        assert!(matches!(under("RS256", header), Err(TokenError::Unverifiable { .. })));
    }
    let good = SIGNER.sign("RS256", &claims());
    let mut jwks = SIGNER.jwks();
    let second = with(&Signer::generate().jwks()["keys"][2], json!({"kid": "rsa"}));
    jwks["keys"].as_array_mut().unwrap().push(second);
    let error = verdict(&good, &keys(&jwks)).unwrap_err();
    assert!(error.to_string().contains("two keys"), "{error}");
    // Even where both are the same key, or only one is of the right type.
    let p256 = with(&SIGNER.jwks()["keys"][0], json!({"kid": "rsa"}));
    jwks["keys"][3] = p256;
    assert!(verdict(&good, &keys(&jwks)).is_err());
    // A key without a name is nobody's.
    jwks = SIGNER.jwks();
    jwks["keys"][2].as_object_mut().unwrap().remove("kid");
    assert!(verdict(&good, &keys(&jwks)).is_err());
    KeySet::parse(br#"{"keys": []}"#).unwrap_err();
}

#[test]
fn a_key_set_under_a_root() {
    let authority = |name: &str| {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (rcgen::Issuer::new(params, key), Certificate::from_der(certificate.der()).unwrap())
    };
    let ((issuer, root), (_, other)) = (authority("root"), authority("other"));
    let subject = rcgen::KeyPair::try_from(SIGNER.p256_pkcs8.as_slice()).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["ita".into()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2025, 12, 1);
    let leaf = params.signed_by(&subject, &issuer).unwrap();
    let mut jwks = SIGNER.jwks();
    jwks["keys"][0]["x5c"] = json!([base64::engine::general_purpose::STANDARD.encode(leaf.der())]);
    let under = |roots: &[&Certificate], now| {
        let set = keys(&jwks).with_roots(roots.iter().map(|root| (*root).clone()).collect());
        let claims = with(&claims(), json!({"exp": now + 100}));
        let token = Token::parse(SIGNER.sign("ES256", &claims).as_bytes()).unwrap();
        verify_ita(&token, &set, &ItaPolicy::new("ita"), &Expected::default(), now)
    };
    assert!(under(&[&other, &root], NOW).is_ok());
    for (roots, now) in [(vec![&other], NOW), (vec![], NOW), (vec![&root], NOW + 60 * 86_400)] {
        assert!(matches!(under(&roots, now), Err(TokenError::Unverifiable { .. })), "{now}");
    }
    // A key without a certificate is under no root.
    let set = keys(&jwks).with_roots(vec![root.clone()]);
    assert!(matches!(
        verdict(&SIGNER.sign("RS256", &claims()), &set),
        Err(TokenError::Unverifiable { .. })
    ));
}
