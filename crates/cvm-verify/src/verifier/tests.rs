//! Attacks on a recorded session, and real quotes.

use std::{fs, path::PathBuf};

use serde::de::DeserializeOwned;

use cvm_base::{Bytes, Bytes32};

use super::*;
use crate::{Claims, Phase, TpmClaims};
use cvm_evidence::{
    AttestError, Evidence, Reference,
    tpm::{HashAlg, Public, Signature, attributes, parse_quote, parse_signature},
    wire::{Base64, HandshakeParams, TpmEvidence},
};

const DIGEST: [u8; 48] = [0x5a; 48];

fn vector(name: &str) -> Vec<u8> {
    fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(name))
        .unwrap()
}

fn json<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&vector(name)).unwrap()
}

/// A session with a real swtpm into which a real boot was measured.
struct Session {
    evidence: TpmEvidence,
    state: CredentialState,
    roots: Roots,
    now: u64,
}

fn session() -> Session {
    Session {
        evidence: json("session-swtpm/evidence.json"),
        state: json("session-swtpm/state.json"),
        roots: Roots::from_pem(&vector("session-swtpm/roots.pem")).unwrap(),
        now: json("session-swtpm/now"),
    }
}

impl Session {
    fn verify(&self) -> Result<TpmClaims, AttestError> {
        let binding = Binding { digest: &DIGEST, credential: Some(&self.state) };
        let evidence = Evidence::Tpm(Box::new(self.evidence.clone()));
        verify(&evidence, &binding, &self.roots, self.now).map(|Claims::Tpm(claims)| *claims)
    }
}

fn handshake() -> HandshakeParams {
    json("session-swtpm/handshake.json")
}

/// The TPMT_PUBLIC with some attribute bits flipped.
fn with_attributes(public: &Base64, flip: u32) -> Base64 {
    let mut bytes = public.0.clone();
    for (byte, bits) in bytes[4..8].iter_mut().zip(flip.to_be_bytes()) {
        *byte ^= bits;
    }
    Base64(bytes)
}

#[test]
fn the_recorded_session_verifies() {
    let claims = session().verify().unwrap();
    let reference = Reference::parse(&vector("session-swtpm/reference.json")).unwrap();
    let claims = Claims::Tpm(Box::new(claims));
    assert_eq!(claims.phase(&reference), Phase::Boot);
    // They travel in the key holder's token.
    assert_eq!(Claims::from_json(&claims.to_json()).unwrap(), claims);
    let mut short = claims.to_json();
    short["tpm"]["pcrs"].as_object_mut().unwrap().remove("7");
    assert!(Claims::from_json(&short).is_err());
}

#[test]
fn a_quote_replayed_into_another_session_is_refused() {
    let s = session();
    let mut digest = DIGEST;
    digest[31] ^= 1;
    let binding = Binding { digest: &digest, credential: Some(&s.state) };
    let evidence = Evidence::Tpm(Box::new(s.evidence));
    assert!(matches!(verify(&evidence, &binding, &s.roots, s.now), Err(AttestError::Nonce { .. })));
}

#[test]
fn evidence_without_a_handshake_or_its_answer_is_refused() {
    let s = session();
    let binding = Binding { digest: &DIGEST, credential: None };
    let evidence = Evidence::Tpm(Box::new(s.evidence.clone()));
    assert!(matches!(
        verify(&evidence, &binding, &s.roots, s.now),
        Err(AttestError::NotEndorsed { .. })
    ));
    for strip in [
        |e: &mut TpmEvidence| e.ek_certificate = None,
        |e: &mut TpmEvidence| e.activated_credential = None,
        |e: &mut TpmEvidence| e.event_log = None,
    ] {
        let mut s = session();
        strip(&mut s.evidence);
        assert!(matches!(s.verify(), Err(AttestError::NotEndorsed { .. })));
    }
}

#[test]
fn an_answer_from_another_session_or_a_guess_is_refused() {
    for answer in [vec![], vec![0; 32], vec![0; 64]] {
        let mut s = session();
        s.evidence.activated_credential = Some(Base64(answer));
        assert_eq!(s.verify().unwrap_err(), AttestError::Credential);
    }
    // Another handshake of the same TPM has another secret.
    let mut s = session();
    s.state = challenge(&handshake()).unwrap().1;
    assert_eq!(s.verify().unwrap_err(), AttestError::Credential);
}

#[test]
fn a_key_or_certificate_swapped_behind_the_handshake_is_refused() {
    let mut s = session();
    s.evidence.ak_public.0[40] ^= 1;
    assert!(matches!(s.verify(), Err(AttestError::Substituted { member: "attestation key" })));
    let mut s = session();
    s.evidence.ek_certificate.as_mut().unwrap().0[100] ^= 1;
    assert!(matches!(
        s.verify(),
        Err(AttestError::Substituted { member: "endorsement certificate" })
    ));
}

#[test]
fn a_tpm_that_no_named_root_endorses_is_refused() {
    let mut s = session();
    let other = rcgen::CertificateParams::new(vec![]).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    s.roots = Roots::from_pem(other.self_signed(&key).unwrap().pem().as_bytes()).unwrap();
    assert_eq!(s.verify().unwrap_err(), AttestError::UnknownRoot);
    // The issuer alone is not a root: it only links.
    let pem = String::from_utf8(vector("session-swtpm/roots.pem")).unwrap();
    let issuer = &pem[pem.rfind("-----BEGIN").unwrap()..];
    assert!(matches!(Roots::from_pem(issuer.as_bytes()), Err(AttestError::Roots { .. })));
}

#[test]
fn a_certificate_before_its_time_is_refused() {
    let mut s = session();
    s.now = 1_600_000_000;
    assert!(matches!(s.verify(), Err(AttestError::EndorsementCertificate { .. })));
}

/// Every bit of everything that the quote or the credential protects; nothing may pass changed.
#[test]
fn no_flipped_bit_in_a_quote_passes() {
    let s = session();
    let fields: [fn(&mut TpmEvidence) -> &mut Vec<u8>; 5] = [
        |e| &mut e.ak_public.0,
        |e| &mut e.tpm_quote.signature.0,
        |e| &mut e.tpm_quote.message.0,
        |e| &mut e.ek_certificate.as_mut().unwrap().0,
        |e| &mut e.activated_credential.as_mut().unwrap().0,
    ];
    for (index, field) in fields.into_iter().enumerate() {
        for bit in 0..field(&mut session().evidence).len() * 8 {
            let mut changed = Session { evidence: s.evidence.clone(), ..session_like(&s) };
            field(&mut changed.evidence)[bit / 8] ^= 1 << (bit % 8);
            assert!(changed.verify().is_err(), "field {index}, bit {bit}");
        }
    }
    for bit in 0..16 * 256 {
        let mut changed = Session { evidence: s.evidence.clone(), ..session_like(&s) };
        changed.evidence.tpm_quote.pcrs[bit / 256].0[bit % 256 / 8] ^= 1 << (bit % 8);
        assert_eq!(changed.verify().unwrap_err(), AttestError::PcrDigest, "bit {bit}");
    }
}

fn session_like(s: &Session) -> Session {
    let state = serde_json::from_str(&serde_json::to_string(&s.state).unwrap()).unwrap();
    Session { evidence: s.evidence.clone(), state, roots: s.roots.clone(), now: s.now }
}

/// The log is not signed: a change must be refused, or be in something that no measurement protects
/// and that no claim repeats.
#[test]
fn a_flipped_bit_in_the_event_log_is_refused_or_says_nothing() {
    let s = session();
    let honest = s.verify().unwrap();
    let registers = |claims: &TpmClaims| {
        claims.event_log.iter().map(|event| (event.pcr, event.digest)).collect::<Vec<_>>()
    };
    let length = s.evidence.event_log.as_ref().unwrap().0.len();
    let mut accepted = 0;
    for byte in 0..length {
        let mut changed = session_like(&s);
        changed.evidence.event_log.as_mut().unwrap().0[byte] ^= 1 << (byte % 8);
        let Ok(claims) = changed.verify() else { continue };
        accepted += 1;
        assert_eq!(claims.pcrs, honest.pcrs);
        // Only an unreplayed register's events (9 and 12 here) may read otherwise.
        let replayed = |claims: &TpmClaims| {
            registers(claims)
                .into_iter()
                .filter(|(pcr, _)| *pcr < 8 || *pcr == 11)
                .collect::<Vec<_>>()
        };
        assert_eq!(replayed(&claims), replayed(&honest), "byte {byte}");
    }
    assert!(accepted < length, "every change was accepted");
}

#[test]
fn a_log_that_leaves_out_a_measurement_is_refused() {
    let mut s = session();
    let log = s.evidence.event_log.as_mut().unwrap();
    let end = log.0.len() - 8;
    log.0.truncate(end);
    assert!(s.verify().is_err());
    let mut s = session();
    // The header alone: every register would start at zero.
    s.evidence.event_log.as_mut().unwrap().0.truncate(32 + 33);
    assert!(matches!(s.verify(), Err(AttestError::Replay { pcr: 0, .. })));
}

#[test]
fn a_key_that_could_sign_anything_is_refused() {
    use attributes::{DECRYPT, FIXED_PARENT, FIXED_TPM, RESTRICTED, SENSITIVE_DATA_ORIGIN, SIGN};
    for flip in [DECRYPT, FIXED_PARENT, FIXED_TPM, RESTRICTED, SENSITIVE_DATA_ORIGIN, SIGN] {
        let mut params = handshake();
        params.ak_public = with_attributes(&params.ak_public, flip);
        assert!(matches!(challenge(&params), Err(AttestError::AttestationKey { .. })), "{flip:#x}");
    }
    // A null scheme would let the caller choose one.
    let real = Public::parse(&handshake().ak_public.0).unwrap();
    real.check_attestation_key().unwrap();
}

#[test]
fn an_endorsement_key_off_template_is_refused() {
    let mut params = handshake();
    params.ek_public = with_attributes(&params.ek_public, attributes::SIGN);
    assert!(matches!(challenge(&params), Err(AttestError::EndorsementTemplate { .. })));
    let mut params = handshake();
    params.ek_public.0[20] ^= 1; // its policy
    assert!(matches!(challenge(&params), Err(AttestError::EndorsementTemplate { .. })));
    let mut params = handshake();
    params.ek_public = params.ak_public.clone();
    assert!(matches!(challenge(&params), Err(AttestError::EndorsementTemplate { .. })));
}

#[test]
fn an_endorsement_key_that_its_certificate_does_not_certify_is_refused() {
    let mut params = handshake();
    *params.ek_public.0.last_mut().unwrap() ^= 2;
    assert_eq!(challenge(&params).unwrap_err(), AttestError::EndorsementMismatch);
}

/// Google's vTPM: an RSA key, all 24 registers, a nonce of two bytes.
#[test]
fn a_real_rsa_quote_verifies_and_its_wider_selection_is_refused() {
    let ak = Public::parse(&vector("gce-cos-85-nonce9009/ak.tpmt_public")).unwrap();
    ak.check_attestation_key().unwrap();
    let message = vector("gce-cos-85-nonce9009/quote-sha256.msg");
    let signature = parse_signature(&vector("gce-cos-85-nonce9009/quote-sha256.sig")).unwrap();
    quote::check_signature(&ak, &message, &signature).unwrap();
    let parsed = parse_quote(&message).unwrap();
    assert_eq!(parsed.nonce, [0x90, 0x09]);
    let values: serde_json::Map<String, serde_json::Value> =
        json("gce-cos-85-nonce9009/pcrs-sha256.json");
    let pcrs: Vec<Bytes32> =
        (0..24).map(|pcr| values[&pcr.to_string()].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(cvm_evidence::tpm::pcr_digest(&pcrs).0, parsed.pcr_digest[..]);
    assert!(matches!(
        quote::check(&parsed, &[0x90, 0x09], &pcrs, HashAlg::Sha256),
        Err(AttestError::Selection { .. })
    ));
    assert!(matches!(
        quote::check(&parsed, &[0x90, 0x0a], &pcrs, HashAlg::Sha256),
        Err(AttestError::Nonce { .. })
    ));

    for bit in 0..message.len() * 8 {
        let mut changed = message.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            quote::check_signature(&ak, &changed, &signature),
            Err(AttestError::QuoteSignature)
        );
    }
    // The right signature under another scheme's name.
    let Signature::RsaSsa(hash, bytes) = signature else { panic!("an RSASSA signature") };
    for other in [Signature::RsaPss(hash, bytes.clone()), Signature::RsaSsa(0x0004, bytes)] {
        assert_eq!(quote::check_signature(&ak, &message, &other), Err(AttestError::QuoteSignature));
    }
}

/// A TPM makes the digest over the SHA-256 bank with its key's SHA-384.
#[test]
fn a_p384_keys_quote_is_accepted() {
    let read =
        |form: &str| vector(&format!("own-swtpm-quotes/ecdsa-p384-sha384-bank-sha256.{form}"));
    let ak = Public::parse(&read("ak.tpm2b")[2..]).unwrap();
    ak.check_attestation_key().unwrap();
    let (message, signature) = (read("msg"), parse_signature(&read("sig")).unwrap());
    quote::check_signature(&ak, &message, &signature).unwrap();
    let parsed = parse_quote(&message).unwrap();
    let values: serde_json::Value = json("own-swtpm-quotes/pcrs.json");
    let value = |pcr: usize| values["sha256"][pcr.to_string()].as_str().unwrap().parse().unwrap();
    let pcrs: Vec<Bytes32> = (0..16).map(value).collect();
    assert_eq!(quote::check(&parsed, &[0x5a; 32], &pcrs, HashAlg::Sha384).unwrap()[..], pcrs);
    assert_eq!(
        quote::check(&parsed, &[0x5a; 32], &pcrs, HashAlg::Sha256),
        Err(AttestError::PcrDigest)
    );
}

#[test]
fn a_quote_over_another_bank_is_refused() {
    let parsed = parse_quote(&vector("gce-cos-85-nonce9009/quote-sha384.msg")).unwrap();
    let shown = vec![Bytes([0; 32]); 16];
    let refused = quote::check(&parsed, &[0x90, 0x09], &shown, HashAlg::Sha256).unwrap_err();
    assert!(
        matches!(&refused, AttestError::Selection { found } if found.starts_with("sha384:")),
        "{refused}"
    );
}

/// The digest of one register can be shown as that of another: only the selection tells them apart.
#[test]
fn a_quote_over_fewer_registers_is_refused() {
    let ak = Public::parse(&vector("own-swtpm-ecdsa-quote/ak.pub")).unwrap();
    let message = vector("own-swtpm-ecdsa-quote/quote.msg");
    let signature = parse_signature(&vector("own-swtpm-ecdsa-quote/quote.sig")).unwrap();
    quote::check_signature(&ak, &message, &signature).unwrap();
    let parsed = parse_quote(&message).unwrap();
    let shown = vec![Bytes([0; 32]); 16];
    let refused = quote::check(&parsed, &parsed.nonce, &shown, HashAlg::Sha256).unwrap_err();
    assert_eq!(refused, AttestError::Selection { found: "sha256:0,7,11,15".into() });
}

#[test]
fn statements_that_are_no_quotes_are_refused() {
    let message = vector("own-swtpm-ecdsa-quote/quote.msg");
    // Another magic: data that an unrestricted key could have signed. Another type: a
    // certification.
    for at in [0, 5] {
        let mut changed = message.clone();
        changed[at] ^= 1;
        assert!(matches!(parse_quote(&changed), Err(AttestError::Malformed { .. })));
    }
    for end in 0..message.len() {
        assert!(parse_quote(&message[..end]).is_err());
    }
    assert!(parse_quote(&[&message[..], &[0]].concat()).is_err());
}

mod certificates;
