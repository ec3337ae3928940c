//! Enrolment by presentation, and the statement about the attestation key.

use cvm_base::Bytes;
use cvm_layout::manifest::{ImageId, Stage};
use cvm_release::{messages::PresentImage, paths};
use serde_json::{Value, json};

use super::{Bench, IMAGE, NOW, OTHER, bench};

use crate::decision::{Reason, Step, Verdict};

/// An image that nobody enrolled.
const UNKNOWN: ImageId = Bytes([9; 16]);

fn documents(image: ImageId) -> PresentImage {
    PresentImage {
        manifest: image.0.to_vec(),
        manifest_sig: vec![1],
        reference: vec![2],
        reference_sig: vec![3],
        enrolment: vec![4],
    }
}

#[test]
fn an_unknown_image_is_enrolled_by_its_documents_in_the_same_session() {
    let bench = bench();
    let client = bench.attested();
    let failure =
        client.half(&bench.send(&client.half_request(&UNKNOWN, Stage::Boot)).0).unwrap_err();
    assert!(failure.is_not_enrolled(), "{failure}");
    let (reply, decision) =
        bench.send(&client.present_request(&UNKNOWN, &documents(UNKNOWN)).unwrap());
    client.presented(&reply).unwrap();
    assert_eq!(
        (reply.status, decision.verdict, decision.image),
        (204, Verdict::Enrolled, Some(UNKNOWN))
    );
    assert_eq!(decision.site.as_deref(), Some("server1"));
    // Logged once, by the store; and what is enrolled must still be what the evidence shows.
    let steps: Vec<_> = bench.store.memory().log.iter().map(|d| d.step).collect();
    assert_eq!(steps, [Step::Attest, Step::Present]);
    bench.refused(&client.half_request(&UNKNOWN, Stage::Boot), 401, Reason::WrongPcr);
}

#[test]
fn attack_documents_without_evidence() {
    let bench = bench();
    let client = bench.challenged();
    let cookie = Bench::answer(&client).cookie;
    let attested = bench.attested();
    let mut request = attested.present_request(&UNKNOWN, &documents(UNKNOWN)).unwrap();
    request.cookie = cookie;
    bench.refused(&request, 401, Reason::NotAttested);
    request.cookie = None;
    bench.refused(&request, 401, Reason::SessionMissing);
    assert!(bench.store.memory().presented.is_empty());
}

#[test]
fn attack_refused_malformed_and_oversize_documents() {
    let bench = bench();
    let client = bench.attested();
    let mut request = client.present_request(&UNKNOWN, &documents(OTHER)).unwrap();
    bench.refused(&request, 401, Reason::DocumentsRefused);
    assert!(
        !client.presented(&bench.send(&request).0).unwrap_err().is_not_enrolled(),
        "presented once, not again"
    );
    for body in [
        &br#"{"manifest":"AA==","manifest_sig":"AA==","reference":"AA=="}"#[..],
        b"{}",
        b"",
        b"[1]",
    ] {
        request.body = body.to_vec();
        bench.refused(&request, 401, Reason::Malformed);
    }
    request.body =
        br#"{"manifest":"A","manifest_sig":"","reference":"","reference_sig":""}"#.to_vec();
    bench.refused(&request, 401, Reason::Malformed);
    request.body = vec![b' '; paths::MAX_IMAGE_BYTES + 1];
    bench.refused(&request, 401, Reason::TooLarge);
    request.path = format!("{}x", paths::IMAGE);
    bench.refused(&request, 401, Reason::NoSuchResource);
}

#[test]
fn documents_survive_the_way() {
    let sent = documents(IMAGE);
    let text = serde_json::to_string(&sent).unwrap();
    assert!(text.contains(r#""reference_sig":"Aw==""#), "{text}");
    assert_eq!(serde_json::from_str::<PresentImage>(&text).unwrap(), sent);
}

#[test]
fn the_key_is_certified_to_the_session_that_was_given_the_half() {
    let bench = bench();
    let attest = |evidence: Value| {
        let challenged = bench.challenged();
        let mut evidence = evidence;
        evidence["binding"] = hex::encode(challenged.binding("").0).into();
        let reply = bench.send(&challenged.attest_request(evidence, "").unwrap()).0;
        challenged.attested(&reply).unwrap()
    };
    let client = attest(json!({"image": IMAGE, "key": "ak"}));
    let request = client.attestation_key_request(&IMAGE);
    bench.refused(&request, 401, Reason::NotReleased);
    client.half(&bench.send(&client.half_request(&IMAGE, Stage::Boot)).0).unwrap();
    let (reply, decision) = bench.send(&request);
    assert_eq!(decision.verdict, Verdict::Certified);
    assert_eq!(bench.store.memory().log.last().unwrap().step, Step::AttestationKey);
    let certificate = client.attestation_key(&reply).unwrap().unwrap();
    assert_eq!(certificate, json!({"key": "ak", "image": IMAGE, "at": NOW}));
    bench.refused(&client.attestation_key_request(&OTHER), 401, Reason::NotReleased);

    // Evidence without such a key: nothing to state, and a client goes on as with a stock Trustee.
    let client = attest(json!({"image": IMAGE}));
    client.half(&bench.send(&client.half_request(&IMAGE, Stage::Boot)).0).unwrap();
    let reply = bench.send(&client.attestation_key_request(&IMAGE)).0;
    assert_eq!((reply.status, client.attestation_key(&reply).unwrap()), (404, None));
}
