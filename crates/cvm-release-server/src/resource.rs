//! The release of a half.

use cvm_layout::manifest::Stage;
use cvm_release::{jwe, paths};

use crate::{
    decision::{HttpReply, Reason, ReleaseRefusal, Step, Verdict},
    fault::Fault,
    server::{Accepted, Context, Handled, HttpRequest, ReleaseServer, policy_input},
    traits::{AttestedSession, EnrolledImage, PolicyAnswer},
};

impl ReleaseServer {
    /// GET `resource`: the party's half of an image's key, once for each session.
    pub(crate) fn resource(
        &self,
        request: &HttpRequest<'_>,
        now: u64,
        context: &mut Context,
    ) -> Handled {
        let (id, attested) = self.attested(request, now, context)?;
        let resource = request.path.strip_prefix(paths::RESOURCE).unwrap_or_default();
        let (enrolled, stage) = self.authorise(resource, &attested, context)?;
        let half = self.halves.half(&enrolled.manifest, stage)?;
        let sealed = jwe::encrypt(&attested.tee_pubkey, half.as_slice())
            .map_err(|e| ReleaseRefusal::from(Fault::new("encrypting the half", e)))?;
        let detail =
            if stage == Stage::Running { "to the running system, with its GPUs" } else { "" };
        // Once a session: a later theft of the cookie, or of the running guest, gets nothing.
        let guest = self.evidence.guest(&attested.claims, stage);
        let decision = context.decision(Step::Resource, Verdict::Released, detail);
        self.store.release_once(&id.0, guest.as_ref(), decision)?;
        let reply = HttpReply::json(200, &sealed);
        Ok(Accepted { reply, verdict: Verdict::Released, detail: detail.into(), logged: true })
    }

    /// The image that a resource path names, once every check allows its half to this evidence.
    fn authorise(
        &self,
        resource: &str,
        attested: &AttestedSession,
        context: &mut Context,
    ) -> Result<(EnrolledImage, Stage), ReleaseRefusal> {
        let Some((image, stage)) = paths::parse_half(resource) else {
            let known = "the only resources are flare-cvm/half/<image id> and \
                flare-cvm/running-half/<image id>";
            return Err(ReleaseRefusal::new(Reason::NoSuchResource, known));
        };
        context.image = Some(image);
        let enrolled = self.enrolled(&image, context)?;
        // Both owners agreed on a policy in writing; releasing under another one would break that.
        let share =
            enrolled.manifest.split_key.parties.iter().find(|share| share.name == self.party);
        // A party without a half of p3 has nothing for the boot of an image whose p5 opens later.
        if share.is_some() && !enrolled.manifest.asked(stage).any(|share| share.name == self.party)
        {
            let detail = format!("this party releases no half of image {image} in stage {stage:?}");
            return Err(ReleaseRefusal::new(Reason::NoSuchResource, detail));
        }
        let (agreed, ours) = (share.map(|share| share.policy_sha256), self.policy.digest());
        if agreed != Some(ours) {
            let detail = format!("the policy in force is {ours}, the parties agreed on {agreed:?}");
            return Err(ReleaseRefusal::new(Reason::PolicyChanged, detail));
        }
        self.evidence.compare(&attested.claims, &enrolled, stage)?;
        let reference = self.evidence.reference(&enrolled, stage)?;
        let (input, data) = policy_input(resource, attested, &enrolled, reference);
        match self.policy.decide(&input, &data)? {
            PolicyAnswer::Yes => Ok((enrolled, stage)),
            PolicyAnswer::No(reasons) => {
                let why = reasons.iter().map(|reason| format!(": {reason}")).collect::<String>();
                Err(ReleaseRefusal::new(
                    Reason::Policy,
                    format!("the release policy does not allow it{why}"),
                ))
            }
        }
    }
}
