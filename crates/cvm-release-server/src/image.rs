//! What a key holder does for an image besides releasing its half: it enrols the image, and vouches
//! for its CVM's key.

use cvm_release::{messages::PresentImage, paths};

use crate::{
    decision::{HttpReply, Reason, ReleaseRefusal, Step, Verdict},
    server::{Accepted, Context, Handled, HttpRequest, ReleaseServer, image_id, parse},
};

impl ReleaseServer {
    /// PUT `image`: an attested CVM shows what its image is. Nothing is released for it: the
    /// documents are public, and count only by the signatures of the builder that the parties
    /// named.
    pub(crate) fn present(
        &self,
        request: &HttpRequest<'_>,
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
            reply: HttpReply::empty(204),
            verdict: Verdict::Enrolled,
            detail: String::new(),
            logged: true,
        })
    }

    /// GET `attestation-key`: the party states which key this CVM proved to have in an endorsed
    /// TPM, so that others need not ask for that proof again (RFC 9334, passport model).
    pub(crate) fn attestation_key(
        &self,
        request: &HttpRequest<'_>,
        now: u64,
        context: &mut Context,
    ) -> Handled {
        let (attested, enrolled) =
            self.released_to(request, paths::ATTESTATION_KEY, now, context)?;
        match self.halves.certify(&enrolled.manifest, &attested.claims, now)? {
            Some(statement) => {
                let (reply, verdict) = (HttpReply::json(200, &statement), Verdict::Certified);
                Ok(Accepted { reply, verdict, detail: String::new(), logged: false })
            }
            None => Err(ReleaseRefusal::new(
                Reason::NoSuchResource,
                "this kind of evidence has no attestation key",
            )),
        }
    }
}
