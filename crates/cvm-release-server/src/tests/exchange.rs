//! The whole exchange, step by step, and what its answers look like.

use cvm_base::sha256;
use cvm_layout::manifest::Stage;
use cvm_release::{
    client::{Client, Failure, Method, Outgoing, SealState},
    messages::Tee,
    paths,
};

use super::{BIND, Bench, HALF, IMAGE, OTHER, TrustedHostsOnly, bench};

use crate::{
    decision::{MAX_DETAIL, Reason, Verdict},
    effect::Subject,
};

#[test]
fn an_accepted_cvm_gets_the_half_and_the_seal_memory() {
    let bench = bench();
    let challenged = bench.challenged();
    assert_eq!(challenged.extra_params(), "back");
    let client = bench.attested();
    let (reply, decision) = bench.send(&client.half_request(&IMAGE, Stage::Boot));
    assert_eq!(*client.half(&reply).unwrap(), HALF);
    assert_eq!((decision.verdict, decision.site.as_deref()), (Verdict::Released, Some("server1")));

    let read = client.seal_request(&IMAGE);
    assert_eq!(
        client.seal_state(&bench.send(&read).0).unwrap(),
        Some(SealState { allowed: BIND, ..SealState::default() })
    );
    let header_sha256 = sha256(b"header");
    for _ in 0..2 {
        let reply =
            bench.send(&client.register_seal_request(&IMAGE, header_sha256, None).unwrap()).0;
        client.seal_registered(&reply).unwrap();
    }
    assert_eq!(
        client.seal_state(&bench.send(&read).0).unwrap(),
        Some(SealState {
            header_sha256: Some(header_sha256),
            allowed: BIND,
            ..SealState::default()
        })
    );
    // Every answer is logged, each once.
    let log: Vec<Verdict> = bench.store.memory().log.iter().map(|d| d.verdict).collect();
    use Verdict::{Answered, Attested, Released, Sealed};
    assert_eq!(log, [Attested, Released, Answered, Sealed, Sealed, Answered]);
}

#[test]
fn what_the_party_withdrew_gets_nothing_at_any_step() {
    let bench = bench();
    let (fresh, served) = (bench.attested(), bench.attested());
    assert_eq!(bench.send(&served.half_request(&IMAGE, Stage::Boot)).0.status, 200);
    for subject in [Subject::Image(IMAGE), Subject::Site("server1".parse().unwrap())] {
        bench.store.memory().withdrawn = vec![subject];
        bench.refused(&fresh.half_request(&IMAGE, Stage::Boot), 401, Reason::Withdrawn);
        // A session that had its half gets neither the seal's memory nor a share nor a statement.
        bench.refused(&served.seal_request(&IMAGE), 401, Reason::Withdrawn);
        let register = served.register_seal_request(&IMAGE, sha256(b"header"), None).unwrap();
        bench.refused(&register, 401, Reason::Withdrawn);
        bench.refused(&served.attestation_key_request(&IMAGE), 401, Reason::Withdrawn);
    }
    // Evidence that shows such an image, and no other's, is refused as soon as it is seen.
    bench.store.memory().withdrawn = vec![Subject::Image(IMAGE)];
    bench.refused(&Bench::answer(&bench.challenged()), 401, Reason::Withdrawn);
    bench.store.memory().withdrawn = vec![Subject::Image(OTHER)];
    bench.attested();
}

#[test]
fn auth_stores_nothing() {
    let bench = bench();
    for _ in 0..100 {
        bench.challenged();
    }
    let memory = bench.store.memory();
    assert!(memory.consumed.is_empty() && memory.attested.is_empty() && memory.log.is_empty());
}

#[test]
fn the_auth_answer_has_the_bytes_that_kbs_md_shows() {
    let bench = bench();
    let reply = bench.send(&Client::new(Tee::Tpm).unwrap().auth_request("ahead").unwrap()).0;
    let text = String::from_utf8(reply.body).unwrap();
    assert!(
        text.starts_with(r#"{"nonce":""#) && text.ends_with(r#"=","extra-params":"back"}"#),
        "{text}"
    );
    let cookie = &reply.set_cookie[0];
    assert!(
        cookie.starts_with("kbs-session-id=")
            && cookie.contains("; Expires=Fri, 15 Jan 2027 08:05:00 GMT"),
        "{cookie}"
    );
    assert!(!cookie.contains("ahead") && cookie.len() < 4096);
}

#[test]
fn another_version_is_refused() {
    let bench = bench();
    for version in ["0.4.1", "0.3.0", "", "0.4.0 "] {
        let body =
            format!(r#"{{"version":"{version}","tee":"tpm","extra-params":""}}"#).into_bytes();
        let request =
            Outgoing { method: Method::Post, path: paths::AUTH.into(), cookie: None, body };
        bench.refused(&request, 401, Reason::Version);
    }
}

#[test]
fn what_the_policy_refuses_is_not_released() {
    let mut bench = bench();
    bench.server.policy = Box::new(TrustedHostsOnly(false));
    let client = bench.attested();
    let request = client.half_request(&IMAGE, Stage::Boot);
    let reply = bench.send(&request).0;
    match client.half(&reply).unwrap_err() {
        Failure::Refused { status: 401, error_type, .. } => {
            assert!(error_type.ends_with("/PolicyDeny"))
        }
        other => panic!("{other}"),
    }
    bench.refused(&request, 401, Reason::Policy);
    // The operator learns why, the client does not; and nobody fills a log with reasons.
    let detail = bench.send(&request).1.detail;
    assert!(detail.ends_with("xx…") && detail.len() <= MAX_DETAIL, "{}", detail.len());
    assert!(
        detail.starts_with("the release policy does not allow it: the host runs it: xx"),
        "{detail}"
    );
}

#[test]
fn what_cannot_be_logged_is_not_released() {
    let bench = bench();
    let client = bench.attested();
    bench.store.memory().log_is_full = true;
    let (reply, decision) = bench.send(&client.half_request(&IMAGE, Stage::Boot));
    assert_eq!((reply.status, decision.reason), (503, Some(Reason::Internal)));
    assert!(matches!(client.half(&reply), Err(Failure::Busy { status: 503 })));
}

#[test]
fn only_who_showed_evidence_is_no_stranger() {
    let bench = bench();
    let attested = |request: &Outgoing| bench.outcome(request, None).attested;
    let mut rubbish = Bench::answer(&bench.challenged());
    rubbish.body.clear();
    assert!(!attested(&rubbish));
    let client = bench.attested();
    let request = client.half_request(&OTHER, Stage::Boot);
    assert!(attested(&request));
    assert!(!attested(&Outgoing { cookie: None, ..request }));
}
