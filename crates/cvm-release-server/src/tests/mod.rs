//! The exchange without a socket, and the attacks on it that need no TPM: a bench of a server with
//! its store in memory.

mod bearer;
mod bodies;
mod exchange;
mod image;
mod seal;
mod sessions;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use cvm_base::{Bytes, Bytes32};
use cvm_layout::manifest::{ImageId, Manifest, Stage};
use cvm_release::{
    binding::Binding,
    client::{Attested, Challenged, Client, Incoming, Method, Outgoing},
    messages::{ErrorInformation, MachineRule, PresentImage, Tee},
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    decision::{Decision, MAX_DETAIL, Outcome, Reason, ReleaseRefusal, Verdict},
    effect::{Chip, Subject},
    fault::Fault,
    keys::SessionKeys,
    server::{HttpRequest, ReleaseServer},
    traits::{
        AttestedSession, EnrolledImage, EvidenceVerifier, Halves, PolicyAnswer, Prepared,
        ReleasePolicy, Seal, Store, Verified,
    },
};

const NOW: u64 = 1_800_000_000;

const HALF: [u8; 32] = [42; 32];

const IMAGE: ImageId = Bytes([1; 16]);

const OTHER: ImageId = Bytes([2; 16]);

#[derive(Default)]
struct Remembered {
    consumed: Vec<[u8; 16]>,
    attested: HashMap<[u8; 16], (AttestedSession, u64)>,
    released: HashMap<[u8; 16], ImageId>,
    seals: HashMap<ImageId, Seal>,
    presented: Vec<ImageId>,
    withdrawn: Vec<Subject>,
    log: Vec<Decision>,
    log_is_full: bool,
}

#[derive(Clone, Default)]
struct SharedStore(Arc<Mutex<Remembered>>);

impl SharedStore {
    fn memory(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap()
    }
}

impl Store for SharedStore {
    fn consume(&self, session: &[u8; 16], _: u64, _: u64) -> Result<bool, Fault> {
        let mut memory = self.memory();
        let fresh = !memory.consumed.contains(session);
        memory.consumed.push(*session);
        Ok(fresh)
    }
    fn put_attested(
        &self,
        session: &[u8; 16],
        attested: &AttestedSession,
        expires: u64,
        _: Vec<Chip>,
        decision: Decision,
    ) -> Result<(), Fault> {
        self.memory().attested.insert(*session, (attested.clone(), expires));
        self.record(&decision)
    }
    fn attested(&self, session: &[u8; 16], now: u64) -> Result<Option<AttestedSession>, Fault> {
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
    ) -> Result<(), ReleaseRefusal> {
        if self.memory().released.contains_key(session) {
            return Err(ReleaseRefusal::new(Reason::ReleasedBefore, ""));
        }
        self.record(&decision)?;
        self.memory().released.insert(*session, decision.image.unwrap());
        Ok(())
    }
    fn released(&self, session: &[u8; 16]) -> Result<Option<ImageId>, Fault> {
        Ok(self.memory().released.get(session).copied())
    }
    fn enrolled(&self, image: &ImageId) -> Result<Option<EnrolledImage>, Fault> {
        let known = [IMAGE, OTHER].contains(image) || self.memory().presented.contains(image);
        Ok(known.then(|| enrolled(*image)))
    }
    fn present(
        &self,
        image: &ImageId,
        documents: &PresentImage,
        decision: Decision,
    ) -> Result<EnrolledImage, ReleaseRefusal> {
        let mut memory = self.memory();
        if documents.manifest != image.0 {
            return Err(ReleaseRefusal::new(Reason::DocumentsRefused, ""));
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
    fn withdrawn_images(&self) -> Result<Vec<EnrolledImage>, Fault> {
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

fn enrolled(image: ImageId) -> EnrolledImage {
    let zeros = "00".repeat(32);
    let verity = json!({
        "data_bytes": 4096, "total_bytes": 12288, "salt": zeros, "root_hash": zeros,
    });
    let volume = json!({"offset": 0, "verity": verity});
    let manifest: Manifest = serde_json::from_value(json!({
        "version": cvm_layout::manifest::VERSION,
        "image_id": image, "project": "p", "site": "server1", "role": "server", "partitions": [],
        "config": verity,
        "root": {"sealed_bytes": 0, "system": volume, "site": volume, "state_offset": 0},
        "split_key": {"ephemeral": "00".repeat(32), "transcript": "00".repeat(32), "parties": [{
            "name": "alice", "public": zeros, "purposes": ["system"], "policy_sha256": zeros,
            "keyholder": {"url": "https://localhost:1", "certificate_sha256": "00".repeat(32)},
        }]},
        "init_code_sha256": "00".repeat(32),
    }))
    .unwrap();
    EnrolledImage { manifest, reference: json!({"image_id": image}) }
}

/// Evidence is `{"binding": hex, "image": id}`.
struct EchoVerifier;

impl EvidenceVerifier for EchoVerifier {
    fn prepare(&self, _: Tee, extra_params: &Value) -> Result<Prepared, ReleaseRefusal> {
        Ok(Prepared { extra_params: "back".into(), kept: extra_params.to_string().into_bytes() })
    }
    fn verify(
        &self,
        _: Tee,
        evidence: &Value,
        binding: &Binding,
        kept: &[u8],
        _: u64,
    ) -> Result<Verified, ReleaseRefusal> {
        assert_eq!(kept, br#""ahead""#);
        if evidence["binding"] != hex::encode(binding.0) {
            return Err(ReleaseRefusal::new(Reason::WrongNonce, ""));
        }
        Ok(Verified { claims: evidence.clone(), status: "warning", trust: "untrusted-host".into() })
    }
    fn compare(
        &self,
        claims: &Value,
        image: &EnrolledImage,
        _: Stage,
    ) -> Result<(), ReleaseRefusal> {
        let shown = &claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["tpm"]["image"];
        if *shown == image.reference["image_id"] {
            Ok(())
        } else {
            Err(ReleaseRefusal::new(Reason::WrongPcr, "PCR 11"))
        }
    }
}

const BIND: MachineRule = MachineRule { bind: true, offline: false };

struct TrustedHostsOnly(bool);

impl ReleasePolicy for TrustedHostsOnly {
    fn digest(&self) -> Bytes32 {
        Bytes([0; 32])
    }
    fn decide(&self, input: &Value, data: &Value) -> Result<PolicyAnswer, Fault> {
        assert_eq!(data["resource-path"][2], IMAGE.to_string());
        assert_eq!(input["flare-cvm"]["site"], "server1");
        let allowed = self.0 || input["flare-cvm"]["trust"] != "untrusted-host";
        Ok(if allowed {
            PolicyAnswer::Yes
        } else {
            PolicyAnswer::No(vec!["the host runs it".into(), "x".repeat(MAX_DETAIL)])
        })
    }
    fn machine(&self, input: &Value, data: &Value) -> Result<MachineRule, Fault> {
        let bind = self.decide(input, data)? == PolicyAnswer::Yes;
        Ok(MachineRule { bind, offline: false })
    }
}

struct FixedHalf;

impl Halves for FixedHalf {
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
        Ok((!key.is_null()).then(|| json!({"key": key, "image": manifest.image_id, "at": now})))
    }
}

struct Bench {
    server: ReleaseServer,
    store: SharedStore,
    now: u64,
}

fn bench() -> Bench {
    let store = SharedStore::default();
    let server = ReleaseServer {
        party: "alice".parse().unwrap(),
        keys: SessionKeys::derive(&[7; 32]).unwrap(),
        evidence: Box::new(EchoVerifier),
        store: Box::new(store.clone()),
        policy: Box::new(TrustedHostsOnly(true)),
        halves: Box::new(FixedHalf),
        random: Box::new(|bytes| getrandom::fill(bytes).map_err(|e| Fault::new("drawing", e))),
    };
    Bench { server, store, now: NOW }
}

impl Bench {
    fn send(&self, request: &Outgoing) -> (Incoming, Decision) {
        self.send_with_token(request, None)
    }

    fn send_with_token(
        &self,
        request: &Outgoing,
        authorization: Option<&str>,
    ) -> (Incoming, Decision) {
        let Outcome { reply, decision, .. } = self.outcome(request, authorization);
        let set_cookie = reply.set_cookie.into_iter().collect();
        (Incoming { status: reply.status, set_cookie, body: reply.body }, decision)
    }

    fn outcome(&self, request: &Outgoing, authorization: Option<&str>) -> Outcome {
        let request = HttpRequest {
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

    fn challenged(&self) -> Client<Challenged> {
        let start = Client::new(Tee::Tpm).unwrap();
        let reply = self.send(&start.auth_request("ahead").unwrap()).0;
        start.challenged(&reply).unwrap()
    }

    fn answer(client: &Client<Challenged>) -> Outgoing {
        let evidence = json!({"binding": hex::encode(client.binding("").0), "image": IMAGE});
        client.attest_request(evidence, "").unwrap()
    }

    fn attested(&self) -> Client<Attested> {
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
        assert!(serde_json::from_slice::<ErrorInformation>(&reply.body).is_ok());
    }
}
