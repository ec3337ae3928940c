//! Attacks with cookies, sessions and evidence of others.

use cvm_base::Bytes;
use cvm_layout::manifest::Stage;
use cvm_release::{
    client::{Method, Outgoing},
    paths,
};
use serde_json::json;

use super::{Bench, IMAGE, OTHER, bench};

use crate::{decision::Reason, session::SESSION_SECONDS};

#[test]
fn attack_a_replayed_answer_is_refused() {
    let bench = bench();
    let client = bench.challenged();
    let answer = Bench::answer(&client);
    assert_eq!(bench.send(&answer).0.status, 200);
    bench.refused(&answer, 401, Reason::Replayed);
}

#[test]
fn attack_a_failed_answer_spends_the_challenge() {
    let bench = bench();
    let client = bench.challenged();
    bench.refused(
        &client.attest_request(json!({"binding": "00"}), "").unwrap(),
        401,
        Reason::WrongNonce,
    );
    bench.refused(&Bench::answer(&client), 401, Reason::Replayed);
}

#[test]
fn attack_another_sessions_evidence_is_refused() {
    let bench = bench();
    let (mine, other) = (bench.challenged(), bench.challenged());
    let stolen = Outgoing { cookie: Bench::answer(&mine).cookie, ..Bench::answer(&other) };
    bench.refused(&stolen, 401, Reason::WrongNonce);
}

#[test]
fn attack_a_replayed_cookie_gets_no_second_release() {
    let bench = bench();
    let client = bench.attested();
    let request = client.half_request(&IMAGE, Stage::Boot);
    assert_eq!(bench.send(&request).0.status, 200);
    bench.refused(&request, 401, Reason::ReleasedBefore);
}

#[test]
fn attack_a_tampered_cookie_is_refused() {
    let bench = bench();
    let client = bench.challenged();
    let answer = Bench::answer(&client);
    let cookie = answer.cookie.clone().unwrap();
    for at in [15, 40, cookie.len() - 1] {
        let mut bytes = cookie.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let forged = Outgoing { cookie: Some(String::from_utf8(bytes).unwrap()), ..answer.clone() };
        bench.refused(&forged, 401, Reason::SessionForged);
    }
    bench.refused(&Outgoing { cookie: None, ..answer.clone() }, 401, Reason::SessionMissing);
    assert_eq!(bench.send(&answer).0.status, 200, "attempts with forged cookies spend nothing");
}

#[test]
fn attack_an_expired_session_is_refused() {
    let mut bench = bench();
    let (challenged, attested) = (bench.challenged(), bench.attested());
    bench.now += SESSION_SECONDS;
    bench.refused(&Bench::answer(&challenged), 401, Reason::SessionExpired);
    bench.refused(&attested.half_request(&IMAGE, Stage::Boot), 401, Reason::SessionExpired);
}

#[test]
fn attack_a_session_without_evidence_gets_nothing() {
    let bench = bench();
    let client = bench.challenged();
    let cookie = Bench::answer(&client).cookie;
    let path = format!("{}{}", paths::RESOURCE, paths::half(&IMAGE, Stage::Boot));
    bench.refused(
        &Outgoing { method: Method::Get, path, cookie, body: vec![] },
        401,
        Reason::NotAttested,
    );
}

#[test]
fn attack_another_images_half_and_seal_are_refused() {
    let bench = bench();
    let client = bench.attested();
    bench.refused(&client.half_request(&OTHER, Stage::Boot), 401, Reason::WrongPcr);
    bench.refused(&client.half_request(&Bytes([9; 16]), Stage::Boot), 401, Reason::NotEnrolled);
    bench.refused(&client.seal_request(&IMAGE), 401, Reason::NotReleased);
    assert_eq!(bench.send(&client.half_request(&IMAGE, Stage::Boot)).0.status, 200);
    bench.refused(&client.seal_request(&OTHER), 401, Reason::NotReleased);
}
