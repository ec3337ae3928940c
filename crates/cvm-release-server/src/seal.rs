//! What a key holder remembers of an image's job store: the header that was registered, and this
//! party's share of the machine's secret.

use cvm_layout::manifest::{ImageId, KeyPurpose, Stage};
use cvm_release::{
    jwe,
    messages::{MachineAnswer, MachineRule, RegisterSeal, SealAnswer},
    paths,
};
use zeroize::Zeroizing;

use crate::{
    decision::{HttpReply, Reason, ReleaseRefusal, Step, Verdict},
    fault::Fault,
    server::{Accepted, Context, Handled, HttpRequest, ReleaseServer, parse, policy_input},
    traits::{AttestedSession, EnrolledImage, Seal},
};

impl ReleaseServer {
    /// GET `seal`: what is registered for the image.
    pub(crate) fn seal_read(
        &self,
        request: &HttpRequest<'_>,
        now: u64,
        context: &mut Context,
    ) -> Handled {
        let (attested, enrolled, allowed) = self.sealer(request, now, context)?;
        let image = enrolled.manifest.image_id;
        let seal = self.store.seal(&image)?;
        let mut detail = String::new();
        let share = match &seal {
            Some(Seal { share: Some(sealed), may_move: true, .. }) if allowed.bind => {
                detail = "its share of the machine's secret, to move".into();
                let share = self.open_share(&image, sealed)?;
                let fault = |e| ReleaseRefusal::from(Fault::new("encrypting the share", e));
                Some(jwe::encrypt(&attested.tee_pubkey, &share).map_err(fault)?)
            }
            _ => None,
        };
        // A share that leaves is a release, and is logged as one.
        let verdict = if share.is_some() { Verdict::Released } else { Verdict::Answered };
        let bound = seal.as_ref().is_some_and(|seal| seal.share.is_some());
        let header_sha256 = seal.map(|seal| seal.header_sha256);
        let answer = SealAnswer { header_sha256, machine: MachineAnswer { allowed, bound, share } };
        Ok(Accepted { reply: HttpReply::json(200, &answer), verdict, detail, logged: false })
    }

    /// POST `seal`: registers the header that a boot made, and the party's share of its machine's
    /// secret.
    pub(crate) fn seal_write(
        &self,
        request: &HttpRequest<'_>,
        now: u64,
        context: &mut Context,
    ) -> Handled {
        let (attested, enrolled, allowed) = self.sealer(request, now, context)?;
        let image = enrolled.manifest.image_id;
        if enrolled.manifest.stage_of(KeyPurpose::Jobs) == Stage::Running {
            // The boot of such an image makes no p5. A header that it registered would lock out the
            // running system's header.
            self.evidence.compare(&attested.claims, &enrolled, Stage::Running)?;
        }
        let RegisterSeal { header_sha256, share } = parse(request.body, paths::MAX_AUTH_BYTES)?;
        let malformed = |_| ReleaseRefusal::new(Reason::Malformed, "a share is not 64 hex digits");
        let share = share
            .map(|text| hex::decode(text.as_str()).map(Zeroizing::new))
            .transpose()
            .map_err(malformed)?;
        if share.as_ref().is_some_and(|share| share.len() != 32) {
            return Err(ReleaseRefusal::new(Reason::Malformed, "a share is not 64 hex digits"));
        }
        if share.is_some() && !allowed.bind {
            return Err(ReleaseRefusal::new(
                Reason::Policy,
                "the policy does not let this machine keep a third factor",
            ));
        }
        let seal = |share: &Zeroizing<Vec<u8>>| {
            self.keys.seal(&share_context(&image), share, &self.random)
        };
        let offered =
            Seal { header_sha256, share: share.as_ref().map(seal).transpose()?, may_move: false };
        let mut detail = header_sha256.to_string();
        if share.is_some() {
            detail += ", bound to its machine";
        }
        let done = |context: &Context, detail: &str| {
            context.decision(Step::SealWrite, Verdict::Sealed, detail)
        };
        let sealed = |detail, logged| Accepted {
            reply: HttpReply::empty(204),
            verdict: Verdict::Sealed,
            detail,
            logged,
        };
        let registered = match self.store.seal(&image)? {
            Some(registered) => registered,
            None if self.store.register_seal(&image, &offered, done(context, &detail))? => {
                return Ok(sealed(detail, true));
            }
            None => {
                let missing = || {
                    Fault::new(
                        "registering a header",
                        "another request's, which was first, is gone",
                    )
                };
                self.store.seal(&image)?.ok_or_else(missing)?
            }
        };
        if registered.header_sha256 != header_sha256 {
            let detail = format!(
                "the registered header is {}, the CVM shows {header_sha256}",
                registered.header_sha256
            );
            return Err(ReleaseRefusal::new(Reason::SealMismatch, detail));
        }
        if let Some(share) = share {
            let kept = registered
                .share
                .as_ref()
                .map(|sealed| self.open_share(&image, sealed))
                .transpose()?;
            if kept.is_none_or(|kept| *kept != *share) {
                let detail = "the machine's secret is not the one that this image was bound to";
                return Err(ReleaseRefusal::new(Reason::SealMismatch, detail));
            }
            if registered.may_move {
                detail += ", which is another one now";
                self.store.moved(&image, done(context, &detail))?;
                return Ok(sealed(detail, true));
            }
        }
        Ok(sealed(detail, false))
    }

    fn open_share(
        &self,
        image: &ImageId,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, ReleaseRefusal> {
        let lost = || Fault::new("opening a share", "it was sealed by another key holder's key");
        Ok(self.keys.open(&share_context(image), sealed).ok_or_else(lost)?)
    }

    /// The session of a request about a seal, the image whose half it was given, and what its
    /// machine may keep.
    fn sealer(
        &self,
        request: &HttpRequest<'_>,
        now: u64,
        context: &mut Context,
    ) -> Result<(AttestedSession, EnrolledImage, MachineRule), ReleaseRefusal> {
        let (attested, enrolled) = self.released_to(request, paths::SEAL, now, context)?;
        let resource = paths::half(&enrolled.manifest.image_id, Stage::Boot);
        let (input, data) =
            policy_input(&resource, &attested, &enrolled, enrolled.reference.clone());
        let allowed = self.policy.machine(&input, &data)?;
        // A TPM gives back what it keeps to the boot alone, so that a p5 that opens later cannot
        // need it.
        let bind = allowed.bind && enrolled.manifest.stage_of(KeyPurpose::Jobs) == Stage::Boot;
        Ok((attested, enrolled, MachineRule { bind, ..allowed }))
    }
}

/// The context of a sealed share of one image.
fn share_context(image: &ImageId) -> Vec<u8> {
    [b"flare-cvm/v1/machine-share/", &image.0[..]].concat()
}
