//! The server, what it is asked, and the checks that several of its steps share.

use cvm_base::json::check_shape;
use cvm_layout::{manifest::ImageId, names::Name};
use serde_json::{Value, json};

use crate::{
    decision::{self, Decision, HttpReply, Reason, ReleaseRefusal, Step, Verdict},
    effect::{Chip, Subject},
    keys::{Random, SessionKeys},
    session::{CookieSession, SessionId, cookie_value},
    token,
    traits::{AttestedSession, EnrolledImage, EvidenceVerifier, Halves, ReleasePolicy, Store},
};

/// A request as the network brought it.
#[derive(Debug, Clone, Copy)]
pub struct HttpRequest<'a> {
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// The path, without query.
    pub path: &'a str,
    /// Value of the `Cookie` header.
    pub cookie: Option<&'a str>,
    /// Value of the `Authorization` header.
    pub authorization: Option<&'a str>,
    /// Who asks, as the log names it: an IP address.
    pub peer: &'a str,
    /// The body; the transport has bounded it already, and `handle` bounds it again by endpoint.
    pub body: &'a [u8],
}

/// A key holder's side of the protocol.
pub struct ReleaseServer {
    /// The party, as manifests name it.
    pub party: Name,
    /// Keys that seal cookies and sign tokens.
    pub keys: SessionKeys,
    /// Checks evidence.
    pub evidence: Box<dyn EvidenceVerifier>,
    /// The key holder's memory and its log.
    pub store: Box<dyn Store>,
    /// Decides on releases.
    pub policy: Box<dyn ReleasePolicy>,
    /// Computes halves.
    pub halves: Box<dyn Halves>,
    /// Randomness.
    pub random: Random,
}

/// A request that was answered as asked.
pub(crate) struct Accepted {
    pub reply: HttpReply,
    pub verdict: Verdict,
    pub detail: String,
    /// The store has logged it together with what it changed, or there is nothing to log.
    pub logged: bool,
}

pub(crate) type Handled = Result<Accepted, ReleaseRefusal>;

/// What a request is about, as far as it is known: for the log.
pub(crate) struct Context {
    pub time: u64,
    pub peer: String,
    pub image: Option<ImageId>,
    pub site: Option<String>,
    pub session: Option<SessionId>,
    pub attested: bool,
}

impl Context {
    pub(crate) fn decision(&self, step: Step, verdict: Verdict, detail: &str) -> Decision {
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

impl ReleaseServer {
    /// The session of a request, and the image that its path names after `prefix`. Refused where
    /// the session was not given that image's half.
    pub(crate) fn released_to(
        &self,
        request: &HttpRequest<'_>,
        prefix: &str,
        now: u64,
        context: &mut Context,
    ) -> Result<(AttestedSession, EnrolledImage), ReleaseRefusal> {
        let (id, attested) = self.attested(request, now, context)?;
        let image = image_id(request.path, prefix)?;
        context.image = Some(image);
        if self.store.released(&id.0)? != Some(image) {
            return Err(ReleaseRefusal::new(
                Reason::NotReleased,
                "this session was not given this image's half",
            ));
        }
        let enrolled = self.enrolled(&image, context)?;
        Ok((attested, enrolled))
    }

    /// An image that the party enrolled and has not withdrawn.
    pub(crate) fn enrolled(
        &self,
        image: &ImageId,
        context: &mut Context,
    ) -> Result<EnrolledImage, ReleaseRefusal> {
        // By its id first: that is known even if its documents are lost.
        self.consented(Subject::Image(*image))?;
        let Some(enrolled) = self.store.enrolled(image)? else {
            return Err(ReleaseRefusal::new(
                Reason::NotEnrolled,
                format!("image {image} is not enrolled here"),
            ));
        };
        context.site = Some(enrolled.manifest.site.to_string());
        self.consented(Subject::Site(enrolled.manifest.site.clone()))?;
        Ok(enrolled)
    }

    /// Refuses what the party withdrew its consent from.
    fn consented(&self, subject: Subject) -> Result<(), ReleaseRefusal> {
        not_withdrawn(self.store.withdrawn(&subject)?)
    }

    /// Refuses a withdrawn machine, by the claims that it shows; else the machine's names.
    pub(crate) fn consented_machine(&self, claims: &Value) -> Result<Vec<Chip>, ReleaseRefusal> {
        let chips = self.evidence.chips(claims);
        not_withdrawn(self.store.withdrawn_machine(&chips)?)?;
        Ok(chips)
    }

    /// Refuses claims that show a withdrawn image: a guest is told before it names one.
    pub(crate) fn consented_image(&self, claims: &Value) -> Result<(), ReleaseRefusal> {
        for EnrolledImage { manifest, .. } in
            self.store.withdrawn_images()?.iter().filter(|image| self.evidence.shows(claims, image))
        {
            self.consented(Subject::Image(manifest.image_id))?;
            self.consented(Subject::Site(manifest.site.clone()))?;
        }
        Ok(())
    }

    /// The session in the cookie.
    pub(crate) fn session(
        &self,
        request: &HttpRequest<'_>,
        now: u64,
        context: &mut Context,
    ) -> Result<CookieSession, ReleaseRefusal> {
        let Some(sealed) = request.cookie.and_then(cookie_value) else {
            return Err(ReleaseRefusal::new(Reason::SessionMissing, "no session cookie"));
        };
        let session = CookieSession::open(sealed, &self.keys)?;
        context.session = Some(session.id);
        if session.expires <= now {
            return Err(ReleaseRefusal::new(
                Reason::SessionExpired,
                "the session's five minutes are over",
            ));
        }
        Ok(session)
    }

    /// The attested session that a cookie or a token names.
    pub(crate) fn attested(
        &self,
        request: &HttpRequest<'_>,
        now: u64,
        context: &mut Context,
    ) -> Result<(SessionId, AttestedSession), ReleaseRefusal> {
        let id = match request.authorization.and_then(|value| value.strip_prefix("Bearer ")) {
            Some(token) => {
                let id = token::verify(&self.keys, token, now)?;
                context.session = Some(id);
                id
            }
            None => self.session(request, now, context)?.id,
        };
        let Some(attested) = self.store.attested(&id.0, now)? else {
            return Err(ReleaseRefusal::new(
                Reason::NotAttested,
                "this session has shown no accepted evidence",
            ));
        };
        context.attested = true;
        self.consented_machine(&attested.claims)?;
        Ok((id, attested))
    }
}

/// The image id at the end of a path, after `prefix`.
pub(crate) fn image_id(path: &str, prefix: &str) -> Result<ImageId, ReleaseRefusal> {
    let id = path.strip_prefix(prefix).and_then(|text| text.parse().ok());
    id.ok_or_else(|| ReleaseRefusal::new(Reason::NoSuchResource, "expected an image id"))
}

fn not_withdrawn(withdrawal: Option<String>) -> Result<(), ReleaseRefusal> {
    withdrawal.map_or(Ok(()), |words| Err(ReleaseRefusal::new(Reason::Withdrawn, words)))
}

/// What the release policy is asked about: its input and its data.
pub(crate) fn policy_input(
    resource: &str,
    attested: &AttestedSession,
    enrolled: &EnrolledImage,
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

pub(crate) fn parse<T: serde::de::DeserializeOwned>(
    body: &[u8],
    limit: usize,
) -> Result<T, ReleaseRefusal> {
    if body.len() > limit {
        return Err(ReleaseRefusal::new(
            Reason::TooLarge,
            format!("the body is longer than {limit} bytes"),
        ));
    }
    check_shape(body).map_err(|e| ReleaseRefusal::new(Reason::TooLarge, e.to_string()))?;
    serde_json::from_slice(body)
        .map_err(|e| ReleaseRefusal::new(Reason::Malformed, format!("the body is malformed: {e}")))
}
