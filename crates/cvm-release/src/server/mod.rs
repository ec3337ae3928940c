//! The key holder's side: `handle(request, now) -> outcome`, without sockets, clocks or files.
//!
//! No session lives in memory. What a session is between `auth` and `attest` travels sealed in its
//! cookie, so `auth` costs a stranger's flood no storage; what must not happen twice is refused
//! through the [`Store`], which several processes may share.

mod decision;
mod effect;
mod image;
mod keys;
mod seal;
mod session;
mod token;
mod traits;

use base64::{Engine, engine::general_purpose::STANDARD};
use cvm_base::json::check_shape;
use cvm_layout::{
    manifest::{ImageId, Stage},
    names::Name,
};
use serde_json::{Value, json};

pub use decision::{Decision, MAX_DETAIL, Outcome, Reason, Refusal, Reply, Step, Verdict};
pub use effect::{Chip, ChipError, Effect, MAX_REASON, Subject};
pub use keys::SessionKeys;
#[doc(hidden)]
pub use session::fuzz_cookie;
#[doc(hidden)]
pub use token::fuzz_token;
pub use traits::{
    Answer, Attested, Enrolled, EvidenceVerifier, Fault, Halves, Policy, Prepared, Random, Seal,
    Store, Verified, VerifiedDevice,
};

use crate::{
    binding::Binding,
    jwe,
    messages::{
        Attestation, Challenge, PresentImage, RegisterSeal, Request as AuthRequest, Token, VERSION,
    },
    paths,
};
use session::Session;

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
    attested: bool,
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
    /// The decision, if there was one, stands in the store's log before this returns; a release
    /// that cannot be logged does not happen.
    pub fn handle(&self, request: &Request<'_>, now: u64) -> Outcome {
        let peer = request.peer.to_owned();
        let mut context =
            Context { time: now, peer, image: None, site: None, session: None, attested: false };
        let (step, result) = self.dispatch(request, now, &mut context);
        let result = result.and_then(|Accepted { reply, verdict, detail, logged }| {
            let decision = context.decision(step, verdict, &detail);
            if !logged {
                self.store.record(&decision)?;
            }
            Ok((reply, decision))
        });
        let attested = context.attested;
        match result {
            Ok((reply, decision)) => Outcome { reply, decision, attested },
            Err(refusal) => {
                let decision = context.decision(step, Verdict::Refused, &refusal.detail);
                let decision = Decision { reason: Some(refusal.reason), ..decision };
                Outcome { reply: refusal.reply(step), decision, attested }
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
            ("GET", path) if path.starts_with(paths::SEAL) => {
                (Step::SealRead, self.seal_read(request, now, context))
            }
            ("POST", path) if path.starts_with(paths::SEAL) => {
                (Step::SealWrite, self.seal_write(request, now, context))
            }
            ("PUT", path) if path.starts_with(paths::IMAGE) => {
                (Step::Present, self.present(request, now, context))
            }
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
        let challenge =
            Challenge { nonce: session.nonce.clone(), extra_params: prepared.extra_params.into() };
        let reply =
            Reply::json(200, &challenge).with_cookie(session.cookie(&self.keys, &self.random)?);
        // Strangers' challenges fill no log.
        Ok(Accepted { reply, verdict: Verdict::Challenged, detail: String::new(), logged: true })
    }

    fn attest(&self, request: &Request<'_>, now: u64, context: &mut Context) -> Handled {
        let session = self.session(request, now, context)?;
        // From here on the challenge is spent, whatever comes of it: a challenge is one attempt,
        // also for rubbish.
        if !self.store.consume(&session.id.0, session.expires, now)? {
            return Err(Refusal::new(
                Reason::Replayed,
                "this session's challenge was answered before",
            ));
        }
        let body: Attestation = parse(request.body, paths::MAX_ATTEST_BYTES)?;
        if body.runtime_data.nonce != session.nonce {
            return Err(Refusal::new(
                Reason::WrongNonce,
                "the answer names another nonce than the challenge's",
            ));
        }
        if body.init_data.is_some_and(|data| !data.is_null()) {
            return Err(Refusal::new(Reason::Unsupported, "init-data is not supported"));
        }
        let additional = &body.tee_evidence.additional_evidence;
        let tee_pubkey = body.runtime_data.tee_pubkey.clone();
        jwe::check_key(&tee_pubkey)
            .map_err(|e| Refusal::new(Reason::Unsupported, e.to_string()))?;
        let binding = Binding::new(&body.runtime_data, additional);
        let evidence = &body.tee_evidence.primary_evidence;
        let verified = self.evidence.verify(session.tee, evidence, &binding, &session.kept, now)?;
        let devices = match additional.is_empty() {
            true => Vec::new(),
            false => {
                self.evidence.devices(additional, &Binding::of_devices(&body.runtime_data), now)?
            }
        };

        let runtime_data = &body.runtime_data;
        let shown =
            token::Evidence { runtime_data, additional, verified: &verified, devices: &devices };
        let claims = token::claims(&session, &shown, now);
        context.attested = true;
        let chips = self.consented_machine(&claims)?;
        self.consented_image(&claims)?;
        let token = token::sign(&self.keys, &claims)?;
        let attested = Attested { tee_pubkey, claims };
        let reply = Reply::json(200, &Token { token })
            .with_cookie(session.cookie(&self.keys, &self.random)?);
        let names =
            devices.iter().map(|device| format!(" with {}", device.name)).collect::<String>();
        let (verdict, detail) = (Verdict::Attested, verified.trust + &names);
        let decision = context.decision(Step::Attest, verdict, &detail);
        self.store.put_attested(&session.id.0, &attested, session.expires, chips, decision)?;
        Ok(Accepted { reply, verdict, detail, logged: true })
    }

    fn resource(&self, request: &Request<'_>, now: u64, context: &mut Context) -> Handled {
        let (id, attested) = self.attested(request, now, context)?;
        let resource = request.path.strip_prefix(paths::RESOURCE).unwrap_or_default();
        let (enrolled, stage) = self.authorise(resource, &attested, context)?;
        let half = self.halves.half(&enrolled.manifest, stage)?;
        let sealed = jwe::encrypt(&attested.tee_pubkey, half.as_slice())
            .map_err(|e| Refusal::from(Fault::new("encrypting the half", e)))?;
        let detail =
            if stage == Stage::Running { "to the running system, with its GPUs" } else { "" };
        // Once a session: a later theft of the cookie, or of the running guest, gets nothing.
        let guest = self.evidence.guest(&attested.claims, stage);
        let decision = context.decision(Step::Resource, Verdict::Released, detail);
        self.store.release_once(&id.0, guest.as_ref(), decision)?;
        let reply = Reply::json(200, &sealed);
        Ok(Accepted { reply, verdict: Verdict::Released, detail: detail.into(), logged: true })
    }

    /// The ladder from a resource path to an image whose half may be released to this evidence.
    fn authorise(
        &self,
        resource: &str,
        attested: &Attested,
        context: &mut Context,
    ) -> Result<(Enrolled, Stage), Refusal> {
        let Some((image, stage)) = paths::parse_half(resource) else {
            let known = "the only resources are flare-cvm/half/<image id> and \
                flare-cvm/running-half/<image id>";
            return Err(Refusal::new(Reason::NoSuchResource, known));
        };
        context.image = Some(image);
        let enrolled = self.enrolled(&image, context)?;
        // Both owners agreed on a policy in writing; releasing under another one would break that.
        let share =
            enrolled.manifest.split_key.parties.iter().find(|share| share.name == self.party);
        // Whoever holds no half of p3 has nothing for the boot of an image whose p5 opens later.
        if share.is_some() && !enrolled.manifest.asked(stage).any(|share| share.name == self.party)
        {
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
                Err(Refusal::new(
                    Reason::Policy,
                    format!("the release policy does not allow it{why}"),
                ))
            }
        }
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
            return Err(Refusal::new(
                Reason::NotReleased,
                "this session was not given this image's half",
            ));
        }
        let enrolled = self.enrolled(&image, context)?;
        Ok((attested, enrolled))
    }

    /// An image that the party enrolled, and stands by.
    fn enrolled(&self, image: &ImageId, context: &mut Context) -> Result<Enrolled, Refusal> {
        // By its name first: that stays, whatever became of its documents.
        self.consented(Subject::Image(*image))?;
        let Some(enrolled) = self.store.enrolled(image)? else {
            return Err(Refusal::new(
                Reason::NotEnrolled,
                format!("image {image} is not enrolled here"),
            ));
        };
        context.site = Some(enrolled.manifest.site.to_string());
        self.consented(Subject::Site(enrolled.manifest.site.clone()))?;
        Ok(enrolled)
    }

    /// The party stands by its consent.
    fn consented(&self, subject: Subject) -> Result<(), Refusal> {
        not_withdrawn(self.store.withdrawn(&subject)?)
    }

    /// It stands by the machine that shows these claims; the machine's names.
    fn consented_machine(&self, claims: &Value) -> Result<Vec<Chip>, Refusal> {
        let chips = self.evidence.chips(claims);
        not_withdrawn(self.store.withdrawn_machine(&chips)?)?;
        Ok(chips)
    }

    /// The claims show none of the images that it withdrew: a guest is told before it names one.
    fn consented_image(&self, claims: &Value) -> Result<(), Refusal> {
        for Enrolled { manifest, .. } in
            self.store.withdrawn_images()?.iter().filter(|image| self.evidence.shows(claims, image))
        {
            self.consented(Subject::Image(manifest.image_id))?;
            self.consented(Subject::Site(manifest.site.clone()))?;
        }
        Ok(())
    }

    /// The session in the cookie.
    fn session(
        &self,
        request: &Request<'_>,
        now: u64,
        context: &mut Context,
    ) -> Result<Session, Refusal> {
        let Some(sealed) = request.cookie.and_then(session::value) else {
            return Err(Refusal::new(Reason::SessionMissing, "no session cookie"));
        };
        let session = Session::open(sealed, &self.keys)?;
        context.session = Some(session.id);
        if session.expires <= now {
            return Err(Refusal::new(
                Reason::SessionExpired,
                "the session's five minutes are over",
            ));
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
        let Some(attested) = self.store.attested(&id.0, now)? else {
            return Err(Refusal::new(
                Reason::NotAttested,
                "this session has shown no accepted evidence",
            ));
        };
        context.attested = true;
        self.consented_machine(&attested.claims)?;
        Ok((id, attested))
    }
}

/// The image's id that is a path's end.
fn image_id(path: &str, prefix: &str) -> Result<ImageId, Refusal> {
    let id = path.strip_prefix(prefix).and_then(|text| text.parse().ok());
    id.ok_or_else(|| Refusal::new(Reason::NoSuchResource, "expected an image id"))
}

fn not_withdrawn(withdrawal: Option<String>) -> Result<(), Refusal> {
    withdrawal.map_or(Ok(()), |words| Err(Refusal::new(Reason::Withdrawn, words)))
}

/// What a policy is asked: its input and its data.
fn question(
    resource: &str,
    attested: &Attested,
    enrolled: &Enrolled,
    reference: Value,
) -> (Value, Value) {
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

impl Context {
    fn decision(&self, step: Step, verdict: Verdict, detail: &str) -> Decision {
        let session = self.session.map(|id| id.to_string());
        let Self { time, image, .. } = *self;
        let (peer, site, detail) = (self.peer.clone(), self.site.clone(), decision::detail(detail));
        Decision {
            time,
            peer,
            step,
            verdict,
            reason: None,
            detail,
            image,
            site,
            session,
            effect: None,
        }
    }
}

/// A request that was answered as asked.
struct Accepted {
    reply: Reply,
    verdict: Verdict,
    detail: String,
    /// The store has logged it together with what it changed, or there is nothing to log.
    logged: bool,
}

type Handled = Result<Accepted, Refusal>;

fn parse<T: serde::de::DeserializeOwned>(body: &[u8], limit: usize) -> Result<T, Refusal> {
    if body.len() > limit {
        return Err(Refusal::new(
            Reason::TooLarge,
            format!("the body is longer than {limit} bytes"),
        ));
    }
    check_shape(body).map_err(|e| Refusal::new(Reason::TooLarge, e.to_string()))?;
    serde_json::from_slice(body)
        .map_err(|e| Refusal::new(Reason::Malformed, format!("the body is malformed: {e}")))
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
