//! What the server needs from the world.

use cvm_base::Bytes32;
use cvm_layout::manifest::{ImageId, Manifest, Stage};
use cvm_release::{
    binding::Binding,
    messages::{MachineRule, PresentImage, Tee, TeePubKey},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{
    decision::{Decision, Reason, ReleaseRefusal},
    effect::{Chip, Subject},
    fault::Fault,
};

/// What a kind of evidence needs between challenge and answer.
#[derive(Debug, Default)]
pub struct Prepared {
    /// The challenge's `extra-params`.
    pub extra_params: String,
    /// Comes back to [`EvidenceVerifier::verify`]; travels sealed in the cookie, at most 1 KiB.
    pub kept: Vec<u8>,
}

/// Genuine evidence. Whether it is good enough is decided later.
#[derive(Debug)]
pub struct Verified {
    /// Goes under the kind's name into the token and the policy's input.
    pub claims: Value,
    /// EAR status: `affirming`, `warning` or `contraindicated`.
    pub status: &'static str,
    /// How far the TEE can be trusted, in a word: `untrusted-host` for a TPM that the host runs.
    pub trust: String,
}

/// A device beside the primary TEE, genuine as [`Verified`] is.
#[derive(Debug)]
pub struct VerifiedDevice {
    /// The submodule's name in the token: `gpu0`.
    pub name: String,
    /// The kind's member in its annotated evidence: `nvidia`.
    pub kind: &'static str,
    /// And its content.
    pub claims: Value,
    /// As of the primary TEE.
    pub status: &'static str,
}

/// Checks evidence.
pub trait EvidenceVerifier: Send + Sync {
    /// Called at `auth`, for a stranger: must be cheap and must not store anything.
    fn prepare(&self, tee: Tee, extra_params: &Value) -> Result<Prepared, ReleaseRefusal>;
    /// Whether the evidence is genuine, fresh and bound to `binding`.
    fn verify(
        &self,
        tee: Tee,
        evidence: &Value,
        binding: &Binding,
        kept: &[u8],
        now: u64,
    ) -> Result<Verified, ReleaseRefusal>;
    /// Whether every device in the text of the additional evidence, which is not empty, is genuine,
    /// fresh and bound to `binding`.
    fn devices(
        &self,
        additional: &str,
        binding: &Binding,
        now: u64,
    ) -> Result<Vec<VerifiedDevice>, ReleaseRefusal> {
        let _ = (additional, binding, now);
        Err(ReleaseRefusal::new(Reason::Unsupported, "additional evidence is not supported"))
    }
    /// Whether the token's claims show exactly this image in the phase to which this stage's halves
    /// are released, and the devices that it requires then.
    fn compare(
        &self,
        claims: &Value,
        image: &EnrolledImage,
        stage: Stage,
    ) -> Result<(), ReleaseRefusal>;
    /// The reference values of that phase, for the policy.
    fn reference(&self, image: &EnrolledImage, stage: Stage) -> Result<Value, Fault> {
        let _ = stage;
        Ok(image.reference.clone())
    }
    /// Names the running guest where its evidence cannot show that it is past its boot: such a
    /// guest has one release of each stage in its life.
    fn guest(&self, _claims: &Value, _stage: Stage) -> Option<Bytes32> {
        None
    }
    /// Whether the token's claims show this image, in whichever phase.
    fn shows(&self, claims: &Value, image: &EnrolledImage) -> bool {
        self.compare(claims, image, Stage::Boot).is_ok()
    }
    /// Names the machine that the claims are of.
    fn chips(&self, _claims: &Value) -> Vec<Chip> {
        Vec::new()
    }
}

/// What a policy says about a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyAnswer {
    /// Release.
    Yes,
    /// Do not, for these reasons; there may be none.
    No(Vec<String>),
}

/// The release policy.
pub trait ReleasePolicy: Send + Sync {
    /// SHA-256 of the policy's text: what a ceremony's transcript names.
    fn digest(&self) -> Bytes32;
    /// `input` is the token's claims; `data` is the request and the image's reference values.
    fn decide(&self, input: &Value, data: &Value) -> Result<PolicyAnswer, Fault>;
    /// What the machine that shows this evidence may keep.
    fn machine(&self, input: &Value, data: &Value) -> Result<MachineRule, Fault>;
}

/// What needs the party's secrets.
pub trait Halves: Send + Sync {
    /// Q for an enrolled image and stage; everything it depends on is in the builder-signed
    /// manifest.
    fn half(&self, manifest: &Manifest, stage: Stage) -> Result<Zeroizing<[u8; 32]>, Fault>;
    /// The party's signed statement, JSON, about the attestation key in these claims; `None` where
    /// they have none.
    fn certify(
        &self,
        manifest: &Manifest,
        claims: &Value,
        now: u64,
    ) -> Result<Option<Value>, Fault>;
}

/// An image that the party's operator enrolled; the builder's signatures were checked then.
#[derive(Debug, Clone, PartialEq)]
pub struct EnrolledImage {
    /// The builder-signed manifest.
    pub manifest: Manifest,
    /// The builder-signed reference values, as JSON.
    pub reference: Value,
}

/// What an attested session is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttestedSession {
    /// The key that evidence is bound to, and that releases are encrypted to.
    pub tee_pubkey: TeePubKey,
    /// The token's claims.
    pub claims: Value,
}

/// What is registered for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// SHA-256 of p5's header.
    pub header_sha256: Bytes32,
    /// The party's share of the machine's secret, sealed by the server's keys.
    pub share: Option<Vec<u8>>,
    /// The operator allows the image to move to another machine.
    pub may_move: bool,
}

/// The key holder's memory, and the log of its decisions. Sessions are named by their 16 random
/// bytes; `expires` and `now` are Unix seconds, and a session may be dropped once it has expired.
///
/// A method that takes a decision appends it to the log, and makes the change, in one step: both
/// happen, or neither.
pub trait Store: Send + Sync {
    /// Marks the session's challenge as answered; false if it was already.
    fn consume(&self, session: &[u8; 16], expires: u64, now: u64) -> Result<bool, Fault>;
    /// Remembers an attested session, and the chips that its evidence names.
    fn put_attested(
        &self,
        session: &[u8; 16],
        attested: &AttestedSession,
        expires: u64,
        chips: Vec<Chip>,
        decision: Decision,
    ) -> Result<(), Fault>;
    /// An attested, unexpired session.
    fn attested(&self, session: &[u8; 16], now: u64) -> Result<Option<AttestedSession>, Fault>;
    /// Records that the decision's image was released to the session, and to the guest, where it
    /// has a name.
    ///
    /// # Errors
    /// [`Reason::ReleasedBefore`] if either had a release, [`Reason::NotAttested`] if the session
    /// has expired, [`Reason::Withdrawn`].
    fn release_once(
        &self,
        session: &[u8; 16],
        guest: Option<&Bytes32>,
        decision: Decision,
    ) -> Result<(), ReleaseRefusal>;
    /// The image whose half the session was given.
    fn released(&self, session: &[u8; 16]) -> Result<Option<ImageId>, Fault>;
    /// An enrolled image.
    fn enrolled(&self, image: &ImageId) -> Result<Option<EnrolledImage>, Fault>;
    /// Enrols an image by the documents that its CVM presents, and adds the image's site to
    /// `decision`. An image that is enrolled already keeps its documents.
    fn present(
        &self,
        image: &ImageId,
        documents: &PresentImage,
        decision: Decision,
    ) -> Result<EnrolledImage, ReleaseRefusal>;
    /// The withdrawal of the party's consent from this, in words; `None` if there is none.
    fn withdrawn(&self, subject: &Subject) -> Result<Option<String>, Fault>;
    /// The same of a machine. Once any chip is withdrawn, evidence that names no chip counts as
    /// withdrawn: it may be of that chip.
    fn withdrawn_machine(&self, chips: &[Chip]) -> Result<Option<String>, Fault>;
    /// The enrolled images that were withdrawn, alone or with their site.
    fn withdrawn_images(&self) -> Result<Vec<EnrolledImage>, Fault>;
    /// What is registered for an image.
    fn seal(&self, image: &ImageId) -> Result<Option<Seal>, Fault>;
    /// Registers this for the decision's image; false if something is registered already.
    fn register_seal(
        &self,
        image: &ImageId,
        seal: &Seal,
        decision: Decision,
    ) -> Result<bool, Fault>;
    /// The image has moved: its share is no longer given out.
    fn moved(&self, image: &ImageId, decision: Decision) -> Result<(), Fault>;
    /// Appends a decision that changed nothing to the log.
    fn record(&self, decision: &Decision) -> Result<(), Fault>;
}
