//! The key holder's side: `handle(request, now) -> outcome`, without sockets, clocks or files.
//!
//! No session lives in memory. What a session is between `auth` and `attest` travels sealed in its
//! cookie, so `auth` costs a stranger's flood no storage; what must not happen twice is refused
//! through the [`Store`], which several processes may share.

mod decision;
mod image;
mod keys;
mod session;
mod token;
mod traits;

use base64::{Engine, engine::general_purpose::STANDARD};
use cvm_layout::{
    manifest::{ImageId, KeyPurpose, Stage},
    names::Name,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

pub use decision::{Decision, Outcome, Reason, Refusal, Reply, Step, Verdict};
pub use keys::SessionKeys;
#[doc(hidden)]
pub use session::fuzz_cookie;
#[doc(hidden)]
pub use token::fuzz_token;
pub use traits::{
    Answer, Attested, Enrolled, EvidenceVerifier, Fault, Halves, Policy, Prepared, Random, Seal, Store, Verified,
    VerifiedDevice,
};

use crate::{
    binding::Binding,
    jwe,
    messages::{
        Attestation, Challenge, MachineAnswer, MachineRule, PresentImage, RegisterSeal, Request as AuthRequest,
        SealAnswer, Token, VERSION,
    },
    paths,
};
use session::Session;

/// The most characters of a policy's reasons that go into a log entry.
const MAX_REASONS: usize = 2000;
/// How long a session lives after `auth`, in seconds.
pub const SESSION_SECONDS: u64 = 300;

/// A request as the network brought it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// The path, without query.
    pub path: &'a str,
    /// Value of the `Cookie` header.
    pub cookie: Option<&'a str>,
    /// Value of the `Authorization` header.
    pub authorization: Option<&'a str>,
    /// Who asks, as the log shall name it: an IP address.
    pub peer: &'a str,
    /// The body; the transport has bounded it already, and `handle` bounds it again by endpoint.
    pub body: &'a [u8],
}

/// What a request is about, as far as it is known: for the log.
struct Context {
    time: u64,
    peer: String,
    image: Option<ImageId>,
    site: Option<String>,
    session: Option<session::Id>,
}

/// A key holder.
pub struct Server {
    /// The party, as manifests name it.
    pub party: Name,
    /// Keys that seal cookies and sign tokens.
    pub keys: SessionKeys,
    /// Checks evidence.
    pub evidence: Box<dyn EvidenceVerifier>,
    /// Remembers what must be remembered.
    pub store: Box<dyn Store>,
    /// Decides on releases.
    pub policy: Box<dyn Policy>,
    /// Computes halves.
    pub halves: Box<dyn Halves>,
    /// Randomness.
    pub random: Random,
}

impl Server {
    /// Answers one request at `now` (Unix seconds).
    ///
    /// The decision, if there was one, stands in the store's log before this returns; a release that
    /// cannot be logged does not happen.
    pub fn handle(&self, request: &Request<'_>, now: u64) -> Outcome {
        let mut context = Context { time: now, peer: request.peer.to_owned(), image: None, site: None, session: None };
        let (step, result) = self.dispatch(request, now, &mut context);
        let result = result.and_then(|accepted| {
            let decision = context.decision(step, accepted.verdict, &accepted.detail);
            // What was enrolled, the store has logged in the same step.
            use Verdict::{Attested, Certified, Released, Sealed};
            if matches!(accepted.verdict, Attested | Released | Sealed | Certified) {
                self.store.record(&decision)?;
            }
            Ok((accepted.reply, decision))
        });
        match result {
            Ok((reply, decision)) => Outcome { reply, decision },
            Err(refusal) => {
                let decision = context.decision(step, Verdict::Refused, &refusal.detail);
                let decision = Decision { reason: Some(refusal.reason), ..decision };
                Outcome { reply: refusal.reply(step), decision }
            }
        }
    }

    fn dispatch(&self, request: &Request<'_>, now: u64, context: &mut Context) -> (Step, Handled) {
        match (request.method, request.path) {
            ("POST", paths::AUTH) => (Step::Auth, self.auth(request, now)),
            ("POST", paths::ATTEST) => (Step::Attest, self.attest(request, now, context)),
            ("GET", path) if path.starts_with(paths::RESOURCE) => {
                (Step::Resource, self.resource(request, now, context))
            }
            ("GET", path) if path.starts_with(paths::SEAL) => (Step::SealRead, self.seal_read(request, now, context)),
            ("POST", path) if path.starts_with(paths::SEAL) => {
                (Step::SealWrite, self.seal_write(request, now, context))
            }
            ("PUT", path) if path.starts_with(paths::IMAGE) => (Step::Present, self.present(request, now, context)),
            ("GET", path) if path.starts_with(paths::ATTESTATION_KEY) => {
                (Step::AttestationKey, self.attestation_key(request, now, context))
            }
            _ => (Step::Unknown, Err(Refusal::new(Reason::UnknownPath, "no such method and path"))),
        }
    }

    fn auth(&self, request: &Request<'_>, now: u64) -> Handled {
        let body: AuthRequest = parse(request.body, paths::MAX_AUTH_BYTES)?;
        if body.version != VERSION {
            let found: String = body.version.chars().take(40).collect();
            return Err(Refusal::new(
                Reason::Version,
                format!("protocol {VERSION} is expected, the client speaks {found}"),
            ));
        }
        let prepared = self.evidence.prepare(body.tee, &body.extra_params)?;
        let mut nonce = [0; 32];
        (self.random)(&mut nonce).map_err(Refusal::from)?;
        let session = Session {
            id: session::Id::draw(&self.random)?,
            expires: now.saturating_add(SESSION_SECONDS),
            tee: body.tee,
            nonce: STANDARD.encode(nonce),
            kept: prepared.kept,
        };
        let challenge = Challenge { nonce: session.nonce.clone(), extra_params: prepared.extra_params.into() };
        let reply = Reply::json(200, &challenge).with_cookie(session.cookie(&self.keys, &self.random)?);
        Ok(Accepted { reply, verdict: Verdict::Challenged, detail: String::new() })
    }

    fn attest(&self, request: &Request<'_>, now: u64, context: &mut Context) -> Handled {
        let session = self.session(request, now, context)?;
        let body: Attestation = parse(request.body, paths::MAX_ATTEST_BYTES)?;
        // From here on the challenge is spent, whatever comes of it.
        if !self.store.consume(&session.id.0, session.expires, now)? {
            return Err(Refusal::new(Reason::Replayed, "this session's challenge was answered before"));
        }
        if body.runtime_data.nonce != session.nonce {
            return Err(Refusal::new(Reason::WrongNonce, "the answer names another nonce than the challenge's"));
        }
        if body.init_data.is_some_and(|data| !data.is_null()) {
            return Err(Refusal::new(Reason::Unsupported, "init-data is not supported"));
        }
        let additional = &body.tee_evidence.additional_evidence;
        let tee_pubkey = body.runtime_data.tee_pubkey.clone();
        jwe::check_key(&tee_pubkey).map_err(|e| Refusal::new(Reason::Unsupported, e.to_string()))?;
        let binding = Binding::new(&body.runtime_data, additional);
        let evidence = &body.tee_evidence.primary_evidence;
        let verified = self.evidence.verify(session.tee, evidence, &binding, &session.kept, now)?;
        let devices = match additional.is_empty() {
            true => Vec::new(),
            false => self.evidence.devices(additional, &Binding::of_devices(&body.runtime_data), now)?,
        };

        let runtime_data = &body.runtime_data;
        let shown = token::Evidence { runtime_data, additional, verified: &verified, devices: &devices };
        let claims = token::claims(&session, &shown, now);
        let token = token::sign(&self.keys, &claims)?;
        let attested = Attested { tee_pubkey, claims };
        self.store.put_attested(&session.id.0, &attested, session.expires)?;
        let reply = Reply::json(200, &Token { token }).with_cookie(session.cookie(&self.keys, &self.random)?);
        let names = devices.iter().map(|device| format!(" with {}", device.name)).collect::<String>();
        Ok(Accepted { reply, verdict: Verdict::Attested, detail: verified.trust + &names })
    }

    fn resource(&self, request: &Request<'_>, now: u64, context: &mut Context) -> Handled {
        let (id, attested) = self.attested(request, now, context)?;
        let resource = request.path.strip_prefix(paths::RESOURCE).unwrap_or_default();
        let (enrolled, stage) = self.authorise(resource, &attested, context)?;
        let image = enrolled.manifest.image_id;
        // Once a session: a later theft of the cookie, or of the running guest, gets nothing.
        let guest = self.evidence.guest(&attested.claims, stage);
        if !self.store.release_once(&id.0, &image, guest.as_ref(), now)? {
            let who = if guest.is_some() { "this session, or this guest since its launch," } else { "this session" };
            return Err(Refusal::new(Reason::ReleasedBefore, format!("{who} has had a release already")));
        }
        let half = self.halves.half(&enrolled.manifest, stage)?;
        let sealed = jwe::encrypt(&attested.tee_pubkey, half.as_slice())
            .map_err(|e| Refusal::from(Fault::new("encrypting the half", e)))?;
        let detail = if stage == Stage::Running { "to the running system, with its GPUs" } else { "" };
        Ok(Accepted { reply: Reply::json(200, &sealed), verdict: Verdict::Released, detail: detail.into() })
    }

    /// The ladder from a resource path to an image whose half may be released to this evidence.
    fn authorise(
        &self,
        resource: &str,
        attested: &Attested,
        context: &mut Context,
    ) -> Result<(Enrolled, Stage), Refusal> {
        let Some((image, stage)) = paths::parse_half(resource) else {
            let known = "the only resources are flare-cvm/half/<image id> and flare-cvm/running-half/<image id>";
            return Err(Refusal::new(Reason::NoSuchResource, known));
        };
        context.image = Some(image);
        let Some(enrolled) = self.store.enrolled(&image)? else {
            return Err(Refusal::new(Reason::NotEnrolled, format!("image {image} is not enrolled here")));
        };
        context.site = Some(enrolled.manifest.site.to_string());
        // Both owners agreed on a policy in writing; releasing under another one would break that.
        let share = enrolled.manifest.split_key.parties.iter().find(|share| share.name == self.party);
        // Whoever holds no half of p3 has nothing for the boot of an image whose p5 opens later.
        if share.is_some() && !enrolled.manifest.asked(stage).any(|share| share.name == self.party) {
            let detail = format!("this party releases no half of image {image} in stage {stage:?}");
            return Err(Refusal::new(Reason::NoSuchResource, detail));
        }
        let (agreed, ours) = (share.map(|share| share.policy_sha256), self.policy.digest());
        if agreed != Some(ours) {
            let detail = format!("the policy in force is {ours}, the parties agreed on {agreed:?}");
            return Err(Refusal::new(Reason::PolicyChanged, detail));
        }
        self.evidence.compare(&attested.claims, &enrolled, stage)?;
        let reference = self.evidence.reference(&enrolled, stage)?;
        let (input, data) = question(resource, attested, &enrolled, reference);
        match self.policy.decide(&input, &data)? {
            Answer::Yes => Ok((enrolled, stage)),
            Answer::No(reasons) => {
                let why = reasons.iter().map(|reason| format!(": {reason}")).collect::<String>();
                let why: String = why.chars().take(MAX_REASONS).collect();
                Err(Refusal::new(Reason::Policy, format!("the release policy does not allow it{why}")))
            }
        }
    }

    fn seal_read(&self, request: &Request<'_>, now: u64, context: &mut Context) -> Handled {
        let (attested, enrolled, allowed) = self.sealer(request, now, context)?;
        let image = enrolled.manifest.image_id;
        let seal = self.store.seal(&image)?;
        let mut detail = String::new();
        let share = match &seal {
            Some(Seal { share: Some(sealed), may_move: true, .. }) if allowed.bind => {
                detail = "its share of the machine's secret, to move".into();
                let share = self.open_share(&image, sealed)?;
                let fault = |e| Refusal::from(Fault::new("encrypting the share", e));
                Some(jwe::encrypt(&attested.tee_pubkey, &share).map_err(fault)?)
            }
            _ => None,
        };
        // A share that leaves is a release, and stands in the log as one.
        let verdict = if share.is_some() { Verdict::Released } else { Verdict::Answered };
        let bound = seal.as_ref().is_some_and(|seal| seal.share.is_some());
        let header_sha256 = seal.map(|seal| seal.header_sha256);
        let answer = SealAnswer { header_sha256, machine: MachineAnswer { allowed, bound, share } };
        Ok(Accepted { reply: Reply::json(200, &answer), verdict, detail })
    }

    fn seal_write(&self, request: &Request<'_>, now: u64, context: &mut Context) -> Handled {
        let (attested, enrolled, allowed) = self.sealer(request, now, context)?;
        let image = enrolled.manifest.image_id;
        if enrolled.manifest.stage_of(KeyPurpose::Jobs) == Stage::Running {
            // The boot of such an image makes no p5; a header that it registered would lock the running system's out.
            self.evidence.compare(&attested.claims, &enrolled, Stage::Running)?;
        }
        let RegisterSeal { header_sha256, share } = parse(request.body, paths::MAX_AUTH_BYTES)?;
        let malformed = |_| Refusal::new(Reason::Malformed, "a share is not 64 hex digits");
        let share = share.map(|text| hex::decode(text.as_str()).map(Zeroizing::new)).transpose().map_err(malformed)?;
        if share.as_ref().is_some_and(|share| share.len() != 32) {
            return Err(Refusal::new(Reason::Malformed, "a share is not 64 hex digits"));
        }
        if share.is_some() && !allowed.bind {
            return Err(Refusal::new(Reason::Policy, "the policy does not let this machine keep a third factor"));
        }
        let seal = |share: &Zeroizing<Vec<u8>>| self.keys.seal(&share_context(&image), share, &self.random);
        let offered = Seal { header_sha256, share: share.as_ref().map(seal).transpose()?, may_move: false };
        let registered = self.store.register_seal(&image, &offered, now)?;
        if registered.header_sha256 != header_sha256 {
            let detail =
                format!("the registered header is {}, the CVM shows {header_sha256}", registered.header_sha256);
            return Err(Refusal::new(Reason::SealMismatch, detail));
        }
        let mut detail = header_sha256.to_string();
        if let Some(share) = share {
            let kept = registered.share.as_ref().map(|sealed| self.open_share(&image, sealed)).transpose()?;
            if kept.is_none_or(|kept| *kept != *share) {
                let detail = "the machine's secret is not the one that this image was bound to";
                return Err(Refusal::new(Reason::SealMismatch, detail));
            }
            detail += ", bound to its machine";
            if registered.may_move {
                self.store.moved(&image)?;
                detail += ", which is another one now";
            }
        }
        Ok(Accepted { reply: Reply::empty(204), verdict: Verdict::Sealed, detail })
    }

    fn open_share(&self, image: &ImageId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let lost = || Fault::new("opening a share", "it was sealed by another key holder's key");
        Ok(self.keys.open(&share_context(image), sealed).ok_or_else(lost)?)
    }

    /// The session whose image's seal it may use, the one whose half it was given, and what its machine may keep.
    fn sealer(
        &self,
        request: &Request<'_>,
        now: u64,
        context: &mut Context,
    ) -> Result<(Attested, Enrolled, MachineRule), Refusal> {
        let (attested, enrolled) = self.given(request, paths::SEAL, now, context)?;
        let resource = paths::half(&enrolled.manifest.image_id, Stage::Boot);
        let (input, data) = question(&resource, &attested, &enrolled, enrolled.reference.clone());
        let allowed = self.policy.machine(&input, &data)?;
        // A TPM gives back what it keeps to the boot alone: a p5 that opens later cannot need it.
        let bind = allowed.bind && enrolled.manifest.stage_of(KeyPurpose::Jobs) == Stage::Boot;
        Ok((attested, enrolled, MachineRule { bind, ..allowed }))
    }

    /// A session, and the image in the path behind `prefix` whose half it was given.
    fn given(
        &self,
        request: &Request<'_>,
        prefix: &str,
        now: u64,
        context: &mut Context,
    ) -> Result<(Attested, Enrolled), Refusal> {
        let (id, attested) = self.attested(request, now, context)?;
        let image = image_id(request.path, prefix)?;
        context.image = Some(image);
        if self.store.released(&id.0)? != Some(image) {
            return Err(Refusal::new(Reason::NotReleased, "this session was not given this image's half"));
        }
        let Some(enrolled) = self.store.enrolled(&image)? else {
            return Err(Refusal::new(Reason::NotEnrolled, format!("image {image} is not enrolled here")));
        };
        context.site = Some(enrolled.manifest.site.to_string());
        Ok((attested, enrolled))
    }

    /// The session in the cookie.
    fn session(&self, request: &Request<'_>, now: u64, context: &mut Context) -> Result<Session, Refusal> {
        let Some(sealed) = request.cookie.and_then(session::value) else {
            return Err(Refusal::new(Reason::SessionMissing, "no session cookie"));
        };
        let session = Session::open(sealed, &self.keys)?;
        context.session = Some(session.id);
        if session.expires <= now {
            return Err(Refusal::new(Reason::SessionExpired, "the session's five minutes are over"));
        }
        Ok(session)
    }

    /// The attested session that a cookie or a token names.
    fn attested(
        &self,
        request: &Request<'_>,
        now: u64,
        context: &mut Context,
    ) -> Result<(session::Id, Attested), Refusal> {
        let id = match request.authorization.and_then(|value| value.strip_prefix("Bearer ")) {
            Some(token) => {
                let id = token::verify(&self.keys, token, now)?;
                context.session = Some(id);
                id
            }
            None => self.session(request, now, context)?.id,
        };
        match self.store.attested(&id.0, now)? {
            Some(attested) => Ok((id, attested)),
            None => Err(Refusal::new(Reason::NotAttested, "this session has shown no accepted evidence")),
        }
    }
}

/// The image's id that is a path's end.
fn image_id(path: &str, prefix: &str) -> Result<ImageId, Refusal> {
    let id = path.strip_prefix(prefix).and_then(|text| text.parse().ok());
    id.ok_or_else(|| Refusal::new(Reason::NoSuchResource, "expected an image id"))
}

/// What a policy is asked: its input and its data.
fn question(resource: &str, attested: &Attested, enrolled: &Enrolled, reference: Value) -> (Value, Value) {
    let parts: Vec<&str> = resource.split('/').collect();
    let data = json!({
        "plugin": "resource", "resource-path": parts, "query": {}, "reference": reference,
    });
    let mut input = attested.claims.clone();
    if let Some(ours) = input.get_mut("flare-cvm").and_then(|v| v.as_object_mut()) {
        let manifest = &enrolled.manifest;
        ours.extend([
            ("image_id".into(), json!(manifest.image_id)),
            ("project".into(), json!(manifest.project)),
            ("site".into(), json!(manifest.site)),
            ("role".into(), json!(manifest.role)),
        ]);
    }
    (input, data)
}

/// What a sealed share is, and of which image.
fn share_context(image: &ImageId) -> Vec<u8> {
    [b"flare-cvm/v1/machine-share/", &image.0[..]].concat()
}

impl Context {
    fn decision(&self, step: Step, verdict: Verdict, detail: &str) -> Decision {
        let session = self.session.map(|id| id.to_string());
        let Self { time, image, .. } = *self;
        let (peer, site, detail) = (self.peer.clone(), self.site.clone(), detail.to_owned());
        Decision { time, peer, step, verdict, reason: None, detail, image, site, session }
    }
}

/// A request that was answered as asked.
struct Accepted {
    reply: Reply,
    verdict: Verdict,
    detail: String,
}

type Handled = Result<Accepted, Refusal>;

fn parse<T: serde::de::DeserializeOwned>(body: &[u8], limit: usize) -> Result<T, Refusal> {
    if body.len() > limit {
        return Err(Refusal::new(Reason::TooLarge, format!("the body is longer than {limit} bytes")));
    }
    serde_json::from_slice(body).map_err(|e| Refusal::new(Reason::Malformed, format!("the body is malformed: {e}")))
}

/// Entry point for the fuzzer: the bodies of `auth` and `attest`, up to the evidence itself.
#[doc(hidden)]
pub fn fuzz_bodies(bytes: &[u8]) {
    let _ = parse::<AuthRequest>(bytes, paths::MAX_AUTH_BYTES);
    let _ = parse::<RegisterSeal>(bytes, paths::MAX_AUTH_BYTES);
    let _ = parse::<PresentImage>(bytes, paths::MAX_IMAGE_BYTES);
    if let Some((image, stage)) = str::from_utf8(bytes).ok().and_then(paths::parse_half) {
        assert_eq!(paths::half(&image, stage).len(), bytes.len());
    }
    if let Ok(body) = parse::<Attestation>(bytes, paths::MAX_ATTEST_BYTES) {
        let _ = jwe::check_key(&body.runtime_data.tee_pubkey);
        let _ = Binding::new(&body.runtime_data, &body.tee_evidence.additional_evidence);
    }
}

#[cfg(test)]
mod tests;
