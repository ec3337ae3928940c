//! One request, from its path to its outcome.

use cvm_release::{
    binding::Binding,
    jwe,
    messages::{Attestation, AuthRequest, PresentImage, RegisterSeal},
    paths,
};

use crate::{
    decision::{Decision, Outcome, Reason, ReleaseRefusal, Step, Verdict},
    server::{Accepted, Context, Handled, HttpRequest, ReleaseServer, parse},
};

impl ReleaseServer {
    /// Answers one request at `now` (Unix seconds).
    ///
    /// The decision, if there was one, is in the store's log before this returns; a release that
    /// cannot be logged does not happen.
    pub fn handle(&self, request: &HttpRequest<'_>, now: u64) -> Outcome {
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

    fn dispatch(
        &self,
        request: &HttpRequest<'_>,
        now: u64,
        context: &mut Context,
    ) -> (Step, Handled) {
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
            _ => (
                Step::Unknown,
                Err(ReleaseRefusal::new(Reason::UnknownPath, "no such method and path")),
            ),
        }
    }
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
