//! Each attack, and the code by which it is refused.

use cvm_agent::attester::{Attester, TpmAttester};
use cvm_base::Bytes;
use cvm_layout::names::Role;
use cvm_peer::{
    limits::MAX_MESSAGE,
    token::{MAX_BYTES, Token},
};
use serde_json::json;

use crate::common::{Federation, Site, ask, challenge, code, peer, token, verify};

fn scene() -> (Federation, Site, Site) {
    let federation = Federation::hold();
    let (server, client) =
        (federation.site("server1", Role::Server), federation.site("site-1", Role::Client));
    (federation, server, client)
}

/// The token with changes, and fresh evidence for them from the site's own TPM: what root in that
/// guest can make.
fn forged(site: &Site, text: &str, change: impl FnOnce(&mut Token)) -> String {
    let mut token = Token::parse(text).unwrap();
    change(&mut token);
    let tpm = TpmAttester::new(&site.tcti(), &site.log);
    token.evidence = tpm.evidence(&token.statement.digest()).unwrap();
    token.text().unwrap()
}

#[test]
fn attack_a_replayed_token() {
    let (_federation, server, client) = scene();
    let (at_server, at_client) = (server.agent(), client.agent());
    let site_1 = peer("site-1", "client");
    let asked = challenge(&at_server, "site-1");
    let answer = token(&at_client, Some(&asked));
    assert_eq!(verify(&at_server, &answer, &site_1, Some(&asked))["verified"], true);
    assert_eq!(code(&verify(&at_server, &answer, &site_1, Some(&asked))), "AGT-015");
    // As an answer to another challenge, and to none.
    let other = challenge(&at_server, "site-1");
    assert_eq!(code(&verify(&at_server, &answer, &site_1, Some(&other))), "AGT-014");
    assert_eq!(code(&verify(&at_server, &answer, &site_1, None)), "AGT-014");
    // One without a challenge counts once, also in other words.
    let first = token(&at_client, None);
    assert_eq!(verify(&at_server, &first, &site_1, None)["verified"], true);
    assert_eq!(code(&verify(&at_server, &first, &site_1, None)), "AGT-016");
    // A challenge that was issued for somebody else.
    let others = challenge(&at_server, "site-2");
    let answer = token(&at_client, Some(&others));
    assert_eq!(code(&verify(&at_server, &answer, &site_1, Some(&others))), "AGT-015");
    // After a restart, what an earlier agent may have seen is refused.
    let restarted = server.new_agent();
    client.offset.store(-60, std::sync::atomic::Ordering::Relaxed);
    restarted.verify_self(&[]).unwrap();
    let before = token(&at_client, None);
    assert_eq!(code(&verify(&restarted, &before, &site_1, None)), "AGT-016");
}

#[test]
fn attack_a_token_of_another_site() {
    let (_federation, server, client) = scene();
    let (at_server, at_client) = (server.agent(), client.agent());
    let answer = token(&at_client, None);
    for other in [peer("site-2", "client"), peer("site-1", "server")] {
        assert_eq!(code(&verify(&at_server, &answer, &other, None)), "AGT-013");
    }
    // The same site with another certificate.
    let mut other = peer("site-1", "client");
    other["tls_cert_sha256"] = json!("cd".repeat(32));
    assert_eq!(code(&verify(&at_server, &answer, &other, None)), "AGT-013");
}

#[test]
fn attack_a_peer_that_claims_anothers_name() {
    let (federation, server, client) = scene();
    let (at_server, at_client) = (server.agent(), client.agent());
    let site_2 = peer("site-2", "client");
    let own = token(&at_client, None);
    // The name alone; then with fresh evidence for it; then with the other's documents too.
    let mut renamed = Token::parse(&own).unwrap();
    renamed.statement.site = "site-2".parse().unwrap();
    assert_eq!(code(&verify(&at_server, &renamed.text().unwrap(), &site_2, None)), "AGT-013");
    let fresh = forged(&client, &own, |token| token.statement.site = "site-2".parse().unwrap());
    assert_eq!(code(&verify(&at_server, &fresh, &site_2, None)), "AGT-013");
    let other = federation.site("site-2", Role::Client).own_image();
    let disguised = |certificates: &[_]| {
        forged(&client, &own, |token| {
            token.statement.site = "site-2".parse().unwrap();
            token.statement.image_id = other.image.manifest.image_id;
            token.documents = other.documents.clone();
            token.ak_certificates = certificates.to_vec();
        })
    };
    for certificates in [&other.ak_certificates, &client.own_image().ak_certificates] {
        assert_eq!(code(&verify(&at_server, &disguised(certificates), &site_2, None)), "AGT-030");
    }
    // A statement that nobody quoted.
    let mut changed = Token::parse(&own).unwrap();
    changed.statement.expires_at += 1;
    assert_eq!(
        code(&verify(&at_server, &changed.text().unwrap(), &peer("site-1", "client"), None)),
        "AGT-031"
    );
}

#[test]
fn attack_documents_of_another_builder() {
    let (_federation, server, client) = scene();
    let at_server = server.agent();
    let stranger = Federation::hold().site("site-1", Role::Client);
    let foreign = token(&stranger.agent(), None);
    let site_1 = peer("site-1", "client");
    assert_eq!(code(&verify(&at_server, &foreign, &site_1, None)), "AGT-023");
    // A reference of its own, beside a manifest of ours.
    let own = token(&client.agent(), None);
    let mixed = forged(&client, &own, |token| {
        token.documents.reference = stranger.own_image().documents.reference.clone();
        token.documents.reference_sig = stranger.own_image().documents.reference_sig.clone();
    });
    assert_eq!(code(&verify(&at_server, &mixed, &site_1, None)), "AGT-023");
    let mixed = forged(&client, &own, |token| {
        token.documents.reference = server.own_image().documents.reference.clone();
        token.documents.reference_sig = server.own_image().documents.reference_sig.clone();
    });
    assert_eq!(code(&verify(&at_server, &mixed, &site_1, None)), "AGT-024");
}

#[test]
fn attack_an_ak_nobody_certified() {
    let (federation, server, client) = scene();
    let at_server = server.agent();
    let site_1 = peer("site-1", "client");
    let image_id = client.own_image().image.manifest.image_id;
    let with = |certificates: &[_]| {
        client.certify(certificates);
        verify(&at_server, &token(&client.agent(), None), &site_1, None)
    };
    assert_eq!(code(&with(&[])), "AGT-030");
    let strangers = Federation::hold().certificate("alice", image_id, client.ak_name);
    let of_another_key = federation.certificate("alice", image_id, server.ak_name);
    let of_another_image = federation.certificate("alice", Bytes([9; 16]), client.ak_name);
    for certificate in [strangers, of_another_key, of_another_image] {
        assert_eq!(code(&with(&[certificate])), "AGT-030");
    }
    // Useless ones beside a good one do no harm.
    let good = federation.certificate("bob", image_id, client.ak_name);
    let bad = federation.certificate("alice", image_id, server.ak_name);
    assert_eq!(with(&[bad, good])["verified"], true);
}

#[test]
fn attack_a_pcr_extended_after_the_handoff() {
    let (federation, server, client) = scene();
    let (at_server, at_client) = (server.agent(), client.agent());
    let site_1 = peer("site-1", "client");
    client.extend(11, b"something");
    let refused = verify(&at_server, &token(&at_client, None), &site_1, None);
    assert_eq!(code(&refused), "AGT-032");
    assert!(refused["reason"].as_str().unwrap().contains("PCR 11 is"), "{refused}");
    // The client itself notices, stays failed, and makes no more tokens.
    let noticed = at_client.verify_self(&[]).unwrap_err();
    assert!(
        noticed.to_string().contains("PCR 11 is") && noticed.to_string().contains("expected"),
        "{noticed}"
    );
    let status = ask(&at_client, json!({"op": "status"}));
    assert_eq!(status["state"], "failing");
    assert!(status["reason"].as_str().unwrap().starts_with("AGT-032: "), "{status}");
    let tls = "ab".repeat(32);
    assert_eq!(
        code(&ask(
            &at_client,
            json!({"op": "generate", "challenge": null, "tls_cert_sha256": tls})
        )),
        "AGT-003"
    );
    // A register that the log explains, and one that the reference says nothing may extend.
    for (pcr, expected) in [(7, "AGT-031"), (13, "AGT-032")] {
        let client = federation.site("site-1", Role::Client);
        let agent = client.agent();
        client.extend(pcr, b"something");
        let refused = verify(&at_server, &token(&agent, None), &site_1, None);
        assert_eq!(code(&refused), expected);
        assert!(refused["reason"].as_str().unwrap().contains(&format!("PCR {pcr}")), "{refused}");
    }
}

#[test]
fn attack_a_huge_token() {
    let (_federation, server, client) = scene();
    let agent = server.agent();
    let site_1 = peer("site-1", "client");
    let good = token(&client.agent(), None);
    let long = format!("{good}{}", "A".repeat(MAX_BYTES));
    for text in [&long, "", "=", "e30", &good[..good.len() / 2], &good.replace('e', "\u{e9}")] {
        assert_eq!(code(&verify(&agent, text, &site_1, None)), "AGT-020");
    }
    // A request of a gigabyte is cut at the socket (`serve`); one that is too long is not parsed at
    // all.
    let request =
        json!({"op": "verify", "token": "A".repeat(MAX_MESSAGE), "peer": null, "challenge": null});
    assert_eq!(code(&ask(&agent, request)), "AGT-001");
    assert_eq!(
        verify(&agent, &good, &site_1, None)["verified"],
        true,
        "none of them used the good one up"
    );
}
