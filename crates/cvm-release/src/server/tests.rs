//! The whole exchange without a socket, and the attacks on it that need no TPM.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use cvm_base::{Bytes, Bytes32, sha256};
use cvm_layout::manifest::{ImageId, Manifest};
use serde_json::Value;
use zeroize::Zeroizing;

mod bearer;
mod image;

use super::*;
use crate::{
    client::{Client, Failure, Method, Outgoing, Reply as ClientReply, SealState},
    messages::{MachineRule, Tee},
};

const NOW: u64 = 1_800_000_000;
const HALF: [u8; 32] = [42; 32];
const IMAGE: ImageId = Bytes([1; 16]);
const OTHER: ImageId = Bytes([2; 16]);

#[derive(Default)]
struct Memory {
    consumed: Vec<[u8; 16]>,
    attested: HashMap<[u8; 16], (Attested, u64)>,
    released: HashMap<[u8; 16], ImageId>,
    seals: HashMap<ImageId, Seal>,
    presented: Vec<ImageId>,
    withdrawn: Vec<Subject>,
    log: Vec<Decision>,
    log_is_full: bool,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Memory>>);

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap()
    }
}

impl Store for Shared {
    fn consume(&self, session: &[u8; 16], _: u64, _: u64) -> Result<bool, Fault> {
        let mut memory = self.memory();
        let fresh = !memory.consumed.contains(session);
        memory.consumed.push(*session);
        Ok(fresh)
    }
    fn put_attested(
        &self,
        session: &[u8; 16],
        attested: &Attested,
        expires: u64,
        _: Vec<Chip>,
        decision: Decision,
    ) -> Result<(), Fault> {
        self.memory().attested.insert(*session, (attested.clone(), expires));
        self.record(&decision)
    }
    fn attested(&self, session: &[u8; 16], now: u64) -> Result<Option<Attested>, Fault> {
        Ok(self
            .memory()
            .attested
            .get(session)
            .filter(|(_, expires)| *expires > now)
            .map(|(a, _)| a.clone()))
    }
    fn release_once(
        &self,
        session: &[u8; 16],
        _: Option<&Bytes32>,
        decision: Decision,
    ) -> Result<(), Refusal> {
        if self.memory().released.contains_key(session) {
            return Err(Refusal::new(Reason::ReleasedBefore, ""));
        }
        self.record(&decision)?;
        self.memory().released.insert(*session, decision.image.unwrap());
        Ok(())
    }
    fn released(&self, session: &[u8; 16]) -> Result<Option<ImageId>, Fault> {
        Ok(self.memory().released.get(session).copied())
    }
    fn enrolled(&self, image: &ImageId) -> Result<Option<Enrolled>, Fault> {
        let known = [IMAGE, OTHER].contains(image) || self.memory().presented.contains(image);
        Ok(known.then(|| enrolled(*image)))
    }
    fn present(
        &self,
        image: &ImageId,
        documents: &PresentImage,
        decision: Decision,
    ) -> Result<Enrolled, Refusal> {
        let mut memory = self.memory();
        if documents.manifest != image.0 {
            return Err(Refusal::new(Reason::DocumentsRefused, ""));
        }
        memory.log.push(decision);
        memory.presented.push(*image);
        Ok(enrolled(*image))
    }
    fn seal(&self, image: &ImageId) -> Result<Option<Seal>, Fault> {
        Ok(self.memory().seals.get(image).cloned())
    }
    fn withdrawn(&self, subject: &Subject) -> Result<Option<String>, Fault> {
        Ok(self.memory().withdrawn.contains(subject).then(|| subject.to_string()))
    }
    fn withdrawn_machine(&self, _: &[Chip]) -> Result<Option<String>, Fault> {
        Ok(None)
    }
    fn withdrawn_images(&self) -> Result<Vec<Enrolled>, Fault> {
        let known = [IMAGE, OTHER].into_iter();
        let memory = self.memory();
        Ok(known
            .filter(|image| memory.withdrawn.contains(&Subject::Image(*image)))
            .map(enrolled)
            .collect())
    }
    fn register_seal(
        &self,
        image: &ImageId,
        seal: &Seal,
        decision: Decision,
    ) -> Result<bool, Fault> {
        if self.memory().seals.contains_key(image) {
            return Ok(false);
        }
        self.record(&decision)?;
        self.memory().seals.insert(*image, seal.clone());
        Ok(true)
    }
    fn moved(&self, image: &ImageId, decision: Decision) -> Result<(), Fault> {
        self.record(&decision)?;
        self.memory().seals.get_mut(image).unwrap().may_move = false;
        Ok(())
    }
    fn record(&self, decision: &Decision) -> Result<(), Fault> {
        let mut memory = self.memory();
        if memory.log_is_full {
            return Err(Fault::new("writing the log", "disk full"));
        }
        memory.log.push(decision.clone());
        Ok(())
    }
}

fn enrolled(image: ImageId) -> Enrolled {
    let verity = serde_json::json!({"data_bytes": 4096, "total_bytes": 12288, "salt": "00".repeat(32), "root_hash": "00".repeat(32)});
    let volume = serde_json::json!({"offset": 0, "verity": verity});
    let manifest: Manifest = serde_json::from_value(serde_json::json!({
        "version": cvm_layout::manifest::VERSION,
        "image_id": image, "project": "p", "site": "server1", "role": "server", "partitions": [],
        "config": verity,
        "root": {"sealed_bytes": 0, "system": volume, "site": volume, "state_offset": 0},
        "split_key": {"ephemeral": "00".repeat(32), "transcript": "00".repeat(32), "parties": [{
            "name": "alice", "public": "00".repeat(32), "purposes": ["system"], "policy_sha256": "00".repeat(32),
            "keyholder": {"url": "https://localhost:1", "certificate_sha256": "00".repeat(32)},
        }]},
        "init_code_sha256": "00".repeat(32),
    }))
    .unwrap();
    Enrolled { manifest, reference: serde_json::json!({"image_id": image}) }
}

/// Evidence is `{"binding": hex, "image": id}`.
struct Echo;

impl EvidenceVerifier for Echo {
    fn prepare(&self, _: Tee, extra_params: &Value) -> Result<Prepared, Refusal> {
        Ok(Prepared { extra_params: "back".into(), kept: extra_params.to_string().into_bytes() })
    }
    fn verify(
        &self,
        _: Tee,
        evidence: &Value,
        binding: &Binding,
        kept: &[u8],
        _: u64,
    ) -> Result<Verified, Refusal> {
        assert_eq!(kept, br#""ahead""#);
        if evidence["binding"] != hex::encode(binding.0) {
            return Err(Refusal::new(Reason::WrongNonce, ""));
        }
        Ok(Verified { claims: evidence.clone(), status: "warning", trust: "untrusted-host".into() })
    }
    fn compare(&self, claims: &Value, image: &Enrolled, _: Stage) -> Result<(), Refusal> {
        let shown = &claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["tpm"]["image"];
        if *shown == image.reference["image_id"] {
            Ok(())
        } else {
            Err(Refusal::new(Reason::WrongPcr, "PCR 11"))
        }
    }
}

const BIND: MachineRule = MachineRule { bind: true, offline: false };

struct TrustedHostsOnly(bool);

impl Policy for TrustedHostsOnly {
    fn digest(&self) -> Bytes32 {
        Bytes([0; 32])
    }
    fn decide(&self, input: &Value, data: &Value) -> Result<Answer, Fault> {
        assert_eq!(data["resource-path"][2], IMAGE.to_string());
        assert_eq!(input["flare-cvm"]["site"], "server1");
        let allowed = self.0 || input["flare-cvm"]["trust"] != "untrusted-host";
        Ok(if allowed {
            Answer::Yes
        } else {
            Answer::No(vec!["the host runs it".into(), "x".repeat(MAX_DETAIL)])
        })
    }
    fn machine(&self, input: &Value, data: &Value) -> Result<MachineRule, Fault> {
        let bind = self.decide(input, data)? == Answer::Yes;
        Ok(MachineRule { bind, offline: false })
    }
}

struct Fixed;

impl Halves for Fixed {
    fn half(&self, _: &Manifest, _: Stage) -> Result<Zeroizing<[u8; 32]>, Fault> {
        Ok(Zeroizing::new(HALF))
    }
    fn certify(
        &self,
        manifest: &Manifest,
        claims: &Value,
        now: u64,
    ) -> Result<Option<Value>, Fault> {
        let key = &claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["tpm"]["key"];
        Ok((!key.is_null())
            .then(|| serde_json::json!({"key": key, "image": manifest.image_id, "at": now})))
    }
}

struct Bench {
    server: Server,
    store: Shared,
    now: u64,
}

fn bench() -> Bench {
    let store = Shared::default();
    let server = Server {
        party: "alice".parse().unwrap(),
        keys: SessionKeys::derive(&[7; 32]).unwrap(),
        evidence: Box::new(Echo),
        store: Box::new(store.clone()),
        policy: Box::new(TrustedHostsOnly(true)),
        halves: Box::new(Fixed),
        random: Box::new(|bytes| getrandom::fill(bytes).map_err(|e| Fault::new("drawing", e))),
    };
    Bench { server, store, now: NOW }
}

impl Bench {
    fn send(&self, request: &Outgoing) -> (ClientReply, Decision) {
        self.send_with(request, None)
    }

    fn send_with(
        &self,
        request: &Outgoing,
        authorization: Option<&str>,
    ) -> (ClientReply, Decision) {
        let Outcome { reply, decision, .. } = self.outcome(request, authorization);
        let set_cookie = reply.set_cookie.into_iter().collect();
        (ClientReply { status: reply.status, set_cookie, body: reply.body }, decision)
    }

    fn outcome(&self, request: &Outgoing, authorization: Option<&str>) -> Outcome {
        let request = Request {
            method: match request.method {
                Method::Get => "GET",
                Method::Post => "POST",
                Method::Put => "PUT",
            },
            path: &request.path,
            cookie: request.cookie.as_deref(),
            authorization,
            peer: "192.0.2.1",
            body: &request.body,
        };
        self.server.handle(&request, self.now)
    }

    fn challenged(&self) -> Client<crate::client::Challenged> {
        let start = Client::new(Tee::Tpm).unwrap();
        let reply = self.send(&start.auth_request("ahead").unwrap()).0;
        start.challenged(&reply).unwrap()
    }

    fn answer(client: &Client<crate::client::Challenged>) -> Outgoing {
        let evidence =
            serde_json::json!({"binding": hex::encode(client.binding("").0), "image": IMAGE});
        client.attest_request(evidence, "").unwrap()
    }

    fn attested(&self) -> Client<crate::client::Attested> {
        let client = self.challenged();
        let reply = self.send(&Self::answer(&client)).0;
        client.attested(&reply).unwrap()
    }

    /// Sends, expects a refusal with `reason` and `status`.
    fn refused(&self, request: &Outgoing, status: u16, reason: Reason) {
        let (reply, decision) = self.send(request);
        assert_eq!(
            (decision.verdict, decision.reason, reply.status),
            (Verdict::Refused, Some(reason), status)
        );
        assert!(serde_json::from_slice::<crate::messages::ErrorInformation>(&reply.body).is_ok());
    }
}

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
    // Whatever was answered stands there, each once.
    let log: Vec<Verdict> = bench.store.memory().log.iter().map(|d| d.verdict).collect();
    use Verdict::{Answered, Attested, Released, Sealed};
    assert_eq!(log, [Attested, Released, Answered, Sealed, Sealed, Answered]);
}

#[test]
fn what_the_party_withdrew_gets_nothing_at_any_step() {
    let bench = bench();
    let (fresh, given) = (bench.attested(), bench.attested());
    assert_eq!(bench.send(&given.half_request(&IMAGE, Stage::Boot)).0.status, 200);
    for subject in [Subject::Image(IMAGE), Subject::Site("server1".parse().unwrap())] {
        bench.store.memory().withdrawn = vec![subject];
        bench.refused(&fresh.half_request(&IMAGE, Stage::Boot), 401, Reason::Withdrawn);
        // A session that had its half gets neither the seal's memory nor a share nor a statement.
        bench.refused(&given.seal_request(&IMAGE), 401, Reason::Withdrawn);
        let register = given.register_seal_request(&IMAGE, sha256(b"header"), None).unwrap();
        bench.refused(&register, 401, Reason::Withdrawn);
        bench.refused(&given.attestation_key_request(&IMAGE), 401, Reason::Withdrawn);
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
        &client.attest_request(serde_json::json!({"binding": "00"}), "").unwrap(),
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

#[test]
fn attack_another_header_is_refused() {
    let bench = bench();
    for (header, status) in [(sha256(b"a"), 204), (sha256(b"b"), 409)] {
        let client = bench.attested();
        bench.send(&client.half_request(&IMAGE, Stage::Boot));
        let request = client.register_seal_request(&IMAGE, header, None).unwrap();
        let (reply, decision) = bench.send(&request);
        assert_eq!(reply.status, status);
        assert_eq!(decision.reason, (status == 409).then_some(Reason::SealMismatch));
    }
}

#[test]
fn a_share_comes_back_only_while_the_operator_lets_the_image_move() {
    let bench = bench();
    let header = sha256(b"header");
    let (share, other) = ([3; 32], [4; 32]);
    let session = || {
        let client = bench.attested();
        bench.send(&client.half_request(&IMAGE, Stage::Boot));
        client
    };
    let register = |client: &Client<_>, share| {
        bench.send(&client.register_seal_request(&IMAGE, header, share).unwrap()).0.status
    };
    let shown = |client: &Client<_>| {
        let (reply, decision) = bench.send(&client.seal_request(&IMAGE));
        let state = client.seal_state(&reply).unwrap().unwrap();
        assert_eq!(
            decision.verdict == Verdict::Released,
            state.share.is_some(),
            "in the log as a release"
        );
        (state.bound, state.share.map(|share| *share))
    };
    let client = session();
    assert_eq!(register(&client, Some(&share)), 204);
    assert_eq!(register(&client, Some(&share)), 204, "telling it twice is fine");
    assert_eq!(register(&client, Some(&other)), 409);
    assert_eq!(shown(&session()), (true, None));
    assert!(
        !bench.store.memory().seals[&IMAGE].share.as_ref().unwrap().windows(32).any(|w| w == share)
    );

    bench.store.memory().seals.get_mut(&IMAGE).unwrap().may_move = true;
    // A boot that died before it confirmed may ask again.
    assert_eq!(shown(&session()), (true, Some(share)));
    let client = session();
    assert_eq!(shown(&client), (true, Some(share)));
    assert_eq!(register(&client, Some(&share)), 204);
    assert_eq!(shown(&session()), (true, None), "the move is over");
}

#[test]
fn attack_a_third_factor_slipped_under_a_sealed_image_is_refused() {
    let bench = bench();
    let client = bench.attested();
    bench.send(&client.half_request(&IMAGE, Stage::Boot));
    let register = |share| {
        bench.send(&client.register_seal_request(&IMAGE, sha256(b"h"), share).unwrap()).0.status
    };
    assert_eq!(register(None), 204);
    assert_eq!(register(Some(&[3; 32])), 409);
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
fn a_malformed_or_oversize_body_is_refused() {
    let bench = bench();
    let post = |path: &str, body: Vec<u8>| {
        let cookie = Bench::answer(&bench.challenged()).cookie;
        Outgoing { method: Method::Post, path: path.into(), cookie, body }
    };
    bench.refused(&post(paths::ATTEST, b"{".to_vec()), 401, Reason::Malformed);
    bench.refused(
        &post(paths::ATTEST, vec![b' '; paths::MAX_ATTEST_BYTES + 1]),
        401,
        Reason::TooLarge,
    );
    bench.refused(&post("/", vec![]), 404, Reason::UnknownPath);
}

#[test]
fn attack_rubbish_fifty_times_in_one_session() {
    let bench = bench();
    let mut request = Bench::answer(&bench.challenged());
    // Quoted whole by whoever says what is wrong with it.
    request.body = format!("\"{}\"", "rubbish ".repeat(100_000)).into_bytes();
    bench.refused(&request, 401, Reason::Malformed);
    let detail = bench.send(&request).1.detail;
    assert!(detail.len() <= MAX_DETAIL, "{}", detail.len());
    for _ in 0..50 {
        bench.refused(&request, 401, Reason::Replayed);
    }
}

#[test]
fn attack_a_small_body_that_becomes_a_large_tree() {
    let bench = bench();
    let tree = format!("[{}]", vec!["{\"\":0}"; 140_000].join(","));
    let mut request = Bench::answer(&bench.challenged());
    let text = String::from_utf8(request.body).unwrap();
    request.body = text
        .replacen("\"primary_evidence\":", &format!("\"primary_evidence\":{tree},\"x\":"), 1)
        .into_bytes();
    assert!((1 << 19..paths::MAX_ATTEST_BYTES).contains(&request.body.len()));
    bench.refused(&request, 401, Reason::TooLarge);
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
