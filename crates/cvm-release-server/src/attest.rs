//! Challenge and evidence: how a session becomes an attested one.

use base64::{Engine, engine::general_purpose::STANDARD};
use cvm_release::{
    binding::Binding,
    jwe,
    messages::{Attestation, AuthRequest, Challenge, Token, VERSION},
    paths,
};

use crate::{
    decision::{HttpReply, Reason, ReleaseRefusal, Step, Verdict},
    server::{Accepted, Context, Handled, HttpRequest, ReleaseServer, parse},
    session::{CookieSession, SESSION_SECONDS, SessionId},
    token,
    traits::AttestedSession,
};

impl ReleaseServer {
    /// POST `auth`: a challenge.
    pub(crate) fn auth(&self, request: &HttpRequest<'_>, now: u64) -> Handled {
        let body: AuthRequest = parse(request.body, paths::MAX_AUTH_BYTES)?;
        if body.version != VERSION {
            let found: String = body.version.chars().take(40).collect();
            return Err(ReleaseRefusal::new(
                Reason::Version,
                format!("protocol {VERSION} is expected, the client speaks {found}"),
            ));
        }
        let prepared = self.evidence.prepare(body.tee, &body.extra_params)?;
        let mut nonce = [0; 32];
        (self.random)(&mut nonce).map_err(ReleaseRefusal::from)?;
        let session = CookieSession {
            id: SessionId::draw(&self.random)?,
            expires: now.saturating_add(SESSION_SECONDS),
            tee: body.tee,
            nonce: STANDARD.encode(nonce),
            kept: prepared.kept,
        };
        let challenge =
            Challenge { nonce: session.nonce.clone(), extra_params: prepared.extra_params.into() };
        let reply =
            HttpReply::json(200, &challenge).with_cookie(session.cookie(&self.keys, &self.random)?);
        // Strangers' challenges fill no log.
        Ok(Accepted { reply, verdict: Verdict::Challenged, detail: String::new(), logged: true })
    }

    /// POST `attest`: evidence for the challenge.
    pub(crate) fn attest(
        &self,
        request: &HttpRequest<'_>,
        now: u64,
        context: &mut Context,
    ) -> Handled {
        let session = self.session(request, now, context)?;
        // From here on the challenge is spent, whatever comes of it: even rubbish uses it up.
        if !self.store.consume(&session.id.0, session.expires, now)? {
            return Err(ReleaseRefusal::new(
                Reason::Replayed,
                "this session's challenge was answered before",
            ));
        }
        let body: Attestation = parse(request.body, paths::MAX_ATTEST_BYTES)?;
        if body.runtime_data.nonce != session.nonce {
            return Err(ReleaseRefusal::new(
                Reason::WrongNonce,
                "the answer names another nonce than the challenge's",
            ));
        }
        if body.init_data.is_some_and(|data| !data.is_null()) {
            return Err(ReleaseRefusal::new(Reason::Unsupported, "init-data is not supported"));
        }
        let additional = &body.tee_evidence.additional_evidence;
        let tee_pubkey = body.runtime_data.tee_pubkey.clone();
        jwe::check_key(&tee_pubkey)
            .map_err(|e| ReleaseRefusal::new(Reason::Unsupported, e.to_string()))?;
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
        let shown = token::ShownEvidence {
            runtime_data,
            additional,
            verified: &verified,
            devices: &devices,
        };
        let claims = token::claims(&session, &shown, now);
        context.attested = true;
        let chips = self.consented_machine(&claims)?;
        self.consented_image(&claims)?;
        let token = token::sign(&self.keys, &claims)?;
        let attested = AttestedSession { tee_pubkey, claims };
        let reply = HttpReply::json(200, &Token { token })
            .with_cookie(session.cookie(&self.keys, &self.random)?);
        let names =
            devices.iter().map(|device| format!(" with {}", device.name)).collect::<String>();
        let (verdict, detail) = (Verdict::Attested, verified.trust + &names);
        let decision = context.decision(Step::Attest, verdict, &detail);
        self.store.put_attested(&session.id.0, &attested, session.expires, chips, decision)?;
        Ok(Accepted { reply, verdict, detail, logged: true })
    }
}
