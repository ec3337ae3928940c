//! The verdict as a signed token, and such a token as evidence.

use cvm_verify::{
    appraise::Appraisal,
    token::{EarKey, Registered, VerifierId},
};
use serde_json::json;

use super::{NOW, appraise, claims, code, set, token_terms};

pub const NONCE: &str = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb";

pub fn key() -> EarKey {
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    EarKey::from_pkcs8_pem(pem.as_bytes()).unwrap()
}

pub fn token(verdict: &Appraisal, key: &EarKey) -> Vec<u8> {
    let verifier = VerifierId { developer: "flare-cvm".into(), build: "test".into() };
    let registered = Registered {
        issuer: "flare-cvm".into(),
        audience: vec![],
        token_id: None,
        issued_at: NOW,
        not_before: None,
        expires_at: NOW + 3600,
    };
    verdict
        .to_ear(verifier, registered, Some(hex::decode(NONCE).unwrap()))
        .sign(key)
        .unwrap()
        .into_bytes()
}

fn snp(folder: &str) -> Appraisal {
    appraise(&[&format!("snp/{folder}/report.bin"), &format!("snp/{folder}/vcek.der")], None, NOW)
}

#[test]
fn a_signed_verdict_is_verified_by_those_who_have_its_key() {
    let (key, verdict) = (key(), snp("milan-virtee"));
    let token = token(&verdict, &key);
    let jwks = key.jwks().to_string().into_bytes();
    let judged = |keys: &[&[u8]], issuer: &str, nonce: &str, now| {
        set(std::slice::from_ref(&token)).verify(&token_terms(keys, issuer, Some(nonce), now))
    };
    let read = judged(&[&jwks], "flare-cvm", NONCE, NOW + 60);
    assert!(read.accepted(), "{:?}", read.refusals);
    let ear = claims(&read, "ear");
    let cpu = &ear["submods"]["cpu0"];
    // Checks were left out: no nonce, no revocation list.
    assert_eq!(cpu["ear.status"], "warning");
    assert_eq!(cpu["ear.veraison.annotated-evidence"]["snp"], claims(&verdict, "snp"));

    assert_eq!(code(&judged(&[&jwks], "somebody else", NONCE, NOW)), ["ATT-354"]);
    assert_eq!(
        code(&judged(&[&jwks], "flare-cvm", &"00".repeat(32), NOW)),
        ["ATT-356"],
        "another nonce"
    );
    assert_eq!(code(&judged(&[&jwks], "flare-cvm", NONCE, NOW + 4000)), ["ATT-355"], "expired");
    assert_eq!(code(&judged(&[], "flare-cvm", NONCE, NOW)), ["ATT-360"], "no key");
    let other = self::key().jwks().to_string().into_bytes();
    assert_eq!(code(&judged(&[&other], "flare-cvm", NONCE, NOW)), ["ATT-352"], "another's key");
    // Of several issuers' key sets, the one that fits is used.
    assert!(judged(&[&other, &jwks], "flare-cvm", NONCE, NOW).accepted());
}

#[test]
fn attack_a_refused_machines_verdict() {
    let key = key();
    let jwks = key.jwks().to_string().into_bytes();
    let terms = token_terms(&[&jwks], "flare-cvm", Some(NONCE), NOW);
    // A debuggable guest: genuine, and refused.
    let token = token(&snp("google-vcek"), &key);
    let read = set(std::slice::from_ref(&token)).verify(&terms);
    assert_eq!(code(&read), ["ATT-396"]);
    assert_eq!(claims(&read, "ear")["submods"]["cpu0"]["ear.status"], "contraindicated");
    // The same with its verdict turned.
    let text = String::from_utf8(token).unwrap();
    let [header, payload, signature] = text.split('.').collect::<Vec<_>>()[..] else { panic!() };
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
    let mut claims: serde_json::Value =
        serde_json::from_slice(&B64.decode(payload).unwrap()).unwrap();
    claims["submods"]["cpu0"]["ear.status"] = json!("affirming");
    let forged = format!("{header}.{}.{signature}", B64.encode(claims.to_string()));
    assert_eq!(code(&set(&[forged.into_bytes()]).verify(&terms)), ["ATT-353"]);
}

/// What one policy refuses of the whole, no attester of it passes.
#[test]
fn a_refusal_of_all_contraindicates_each() {
    let mut verdict = snp("milan-virtee");
    let refusal = cvm_verify::appraise::Refusal::policy("boot.rego", "ATT-364", "no", "see it");
    verdict.refusals.push(refusal);
    let key = key();
    let jwks = key.jwks().to_string().into_bytes();
    let read =
        set(&[token(&verdict, &key)]).verify(&token_terms(&[&jwks], "flare-cvm", Some(NONCE), NOW));
    // cpu0, and what was refused of all.
    assert_eq!(code(&read), ["ATT-396", "ATT-396"]);
    let refused =
        &claims(&read, "ear")["submods"]["refused0"]["ear.veraison.annotated-evidence"]["refused"];
    assert_eq!((&refused["of"], &refused["code"]), (&json!("boot.rego"), &json!("ATT-364")));
}
