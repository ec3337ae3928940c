//! What a key holder does for an image beside releasing its half: enrols it, and vouches for its
//! CVM's key.

use super::{
    Accepted, Context, Handled, Reason, Refusal, Reply, Request, Server, Step, Verdict, image_id,
    parse,
};
use crate::{messages::PresentImage, paths};

impl Server {
    /// PUT `image`: an attested CVM shows what its image is. Nothing is released for it: the
    /// documents are public, and count only by the signatures of the builder that the parties
    /// named.
    pub(super) fn present(
        &self,
        request: &Request<'_>,
        now: u64,
        context: &mut Context,
    ) -> Handled {
        self.attested(request, now, context)?;
        let image = image_id(request.path, paths::IMAGE)?;
        context.image = Some(image);
        let documents: PresentImage = parse(request.body, paths::MAX_IMAGE_BYTES)?;
        let decision = context.decision(Step::Present, Verdict::Enrolled, "");
        let enrolled = self.store.present(&image, &documents, decision)?;
        context.site = Some(enrolled.manifest.site.to_string());
        Ok(Accepted {
            reply: Reply::empty(204),
            verdict: Verdict::Enrolled,
            detail: String::new(),
            logged: true,
        })
    }

    /// GET `attestation-key`: the party states which key this CVM proved to have in an endorsed
    /// TPM, so that others need not ask for that proof again (RFC 9334, passport model).
    pub(super) fn attestation_key(
        &self,
        request: &Request<'_>,
        now: u64,
        context: &mut Context,
    ) -> Handled {
        let (attested, enrolled) = self.given(request, paths::ATTESTATION_KEY, now, context)?;
        match self.halves.certify(&enrolled.manifest, &attested.claims, now)? {
            Some(statement) => {
                let (reply, verdict) = (Reply::json(200, &statement), Verdict::Certified);
                Ok(Accepted { reply, verdict, detail: String::new(), logged: false })
            }
            None => Err(Refusal::new(
                Reason::NoSuchResource,
                "this kind of evidence has no attestation key",
            )),
        }
    }
}
