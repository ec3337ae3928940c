//! What the server decided: little of it for the client, everything for the log.

use std::fmt;

use cvm_layout::manifest::ImageId;
use cvm_release::{
    messages::{ERROR_PREFIX, ErrorInformation, NOT_ENROLLED},
    paths,
};
use serde::{Deserialize, Serialize};

use crate::{effect::Effect, fault::Fault};

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct HttpReply {
    /// The status.
    pub status: u16,
    /// Value of a `Set-Cookie` header.
    pub set_cookie: Option<String>,
    /// JSON, or empty.
    pub body: Vec<u8>,
}

impl HttpReply {
    pub(crate) fn json(status: u16, body: &impl Serialize) -> Self {
        // Our own messages are structs of strings; they always serialise.
        Self { status, set_cookie: None, body: serde_json::to_vec(body).unwrap_or_default() }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, set_cookie: None, body: Vec::new() }
    }

    pub(crate) fn with_cookie(self, (value, expires): (String, String)) -> Self {
        // `Path=/`: a client with a cookie jar shall show it to the seal endpoint as well.
        let cookie = format!("{}={value}; Expires={expires}; Path=/", paths::COOKIE);
        Self { set_cookie: Some(cookie), ..self }
    }
}

/// The answer, and why.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// For the client.
    pub reply: HttpReply,
    /// For the operator. An answer is in the store's log already. A refusal is for the caller to
    /// record, who knows whether this peer has used up its share of the log.
    pub decision: Decision,
    /// Whether this session's evidence was accepted. A peer without any is a stranger.
    pub attested: bool,
}

/// Which request was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// POST `auth`.
    Auth,
    /// POST `attest`.
    Attest,
    /// GET `resource`.
    Resource,
    /// GET `seal`.
    SealRead,
    /// POST `seal`.
    SealWrite,
    /// PUT `image`.
    Present,
    /// GET `attestation-key`.
    AttestationKey,
    /// The operator forgot a seal on purpose.
    SealReset,
    /// The operator lets an image move to another machine.
    SealMove,
    /// The operator enrolled an image.
    Enrol,
    /// The content of an earlier version's store was taken over.
    Migrate,
    /// The operator took the party's consent back.
    Withdraw,
    /// The operator gave the consent again.
    Restore,
    /// A request for something that is not served here.
    Unknown,
    /// Not a request: many refusals of one peer, in one entry.
    Summary,
}

/// How it was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// A challenge was sent; nothing was decided.
    Challenged,
    /// Evidence was accepted as genuine; nothing was released yet.
    Attested,
    /// A half was released.
    Released,
    /// A question about the seal was answered.
    Answered,
    /// A header was registered, or shown again.
    Sealed,
    /// An image was enrolled by the documents that its CVM presented.
    Enrolled,
    /// The party signed which attestation key the CVM proved to have.
    Certified,
    /// The operator did it.
    Done,
    /// It was refused.
    Refused,
}

/// Why a request was refused. The words never change meaning; scripts may match on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Not a message of the protocol.
    Malformed,
    /// Longer than the endpoint takes.
    TooLarge,
    /// Another protocol version.
    Version,
    /// No such endpoint.
    UnknownPath,
    /// A kind of evidence, or a part of the protocol, that this key holder does not serve.
    Unsupported,
    /// No cookie and no token.
    SessionMissing,
    /// A cookie or token that this key holder did not make, or that was changed.
    SessionForged,
    /// The session's time is over.
    SessionExpired,
    /// The challenge was answered before.
    Replayed,
    /// The answer or the quote is bound to another nonce.
    WrongNonce,
    /// The endorsement key leads to no root that the policy names.
    UnknownEk,
    /// The attestation key is not proven to live in the endorsed TPM.
    AkNotBound,
    /// The quote covers other registers than it must.
    WrongSelection,
    /// The evidence is not genuine for another reason.
    EvidenceInvalid,
    /// No accepted evidence in this session.
    NotAttested,
    /// No such resource.
    NoSuchResource,
    /// The image is not enrolled.
    NotEnrolled,
    /// The party took its consent back: from the image, its site, or the machine that it runs on.
    Withdrawn,
    /// This key holder enrols no image that is only presented to it.
    EnrolmentClosed,
    /// The presented documents are not of an image that this party agreed to.
    DocumentsRefused,
    /// A register differs from the image's reference value.
    WrongPcr,
    /// A TEE's measurement or TCB is not one of the image's reference values.
    WrongMeasurement,
    /// A genuine guest of a form that keeps no secret: the host may read it, or move it.
    ForbiddenGuest,
    /// The CVM has handed off: boot secrets are for boot.
    AfterHandoff,
    /// The CVM still boots: this half is for its running system.
    BeforeHandoff,
    /// The running system has opened its job store: it is past the phase in which its half is
    /// released.
    AfterJobs,
    /// No GPU attested in this session, and the image requires one.
    NoGpu,
    /// A GPU's evidence was not compared with its maker's golden values, or says something that no
    /// GPU here may.
    GpuNotAccepted,
    /// The release policy refuses.
    Policy,
    /// The policy in force is not the one that the parties agreed on.
    PolicyChanged,
    /// The session had its release already.
    ReleasedBefore,
    /// The session was not given this image's half.
    NotReleased,
    /// Another header is registered for the image.
    SealMismatch,
    /// A fault on our side; the client may try again.
    Internal,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One spelling for JSON and text.
        let value = serde_json::to_value(self).unwrap_or_default();
        f.write_str(value.as_str().unwrap_or_default())
    }
}

/// A refused request, on its way to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseRefusal {
    /// The stable word.
    pub reason: Reason,
    /// Expected and found, for the operator.
    pub detail: String,
}

impl ReleaseRefusal {
    /// A refusal.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// What the client is told: the stock protocol's few words. The detail would tell an attacker
    /// what to try next.
    pub(crate) fn reply(&self, step: Step) -> HttpReply {
        let (status, variant, detail) = match (self.reason, step) {
            (Reason::Internal, _) => (503, "PluginInternalError", "temporarily unavailable"),
            (Reason::SealMismatch, _) => {
                (409, "SealMismatch", "another header is registered for this image")
            }
            (Reason::UnknownPath, _) => (404, "InvalidRequestPath", "Request path is invalid"),
            // Who knows an image's public id may know this too, and its CVM can do something about
            // it.
            (Reason::NotEnrolled, Step::Resource) => {
                (401, NOT_ENROLLED, "this image is not enrolled here")
            }
            (Reason::EnrolmentClosed, _) => (
                401,
                "EnrolmentClosed",
                "this image is not enrolled here, and only the operator enrols images",
            ),
            (Reason::DocumentsRefused, _) => (
                401,
                "DocumentsRefused",
                "this image is not enrolled here, and its documents were refused",
            ),
            (Reason::NoSuchResource, Step::AttestationKey) => {
                (404, "NoAttestationKey", "there is no such key")
            }
            (_, Step::Auth) => {
                (401, "AttestationError", "Attestation error: RCAR handshake Auth failed")
            }
            (_, Step::Attest) => {
                (401, "AttestationError", "Attestation error: RCAR handshake Attest failed")
            }
            (
                Reason::SessionMissing
                | Reason::SessionForged
                | Reason::SessionExpired
                | Reason::NotAttested,
                _,
            ) => (401, "TokenNotFound", "Attestation Token not found"),
            (Reason::NoSuchResource, _) => (401, "PluginInternalError", "Plugin internal error"),
            _ => (401, "PolicyDeny", "Access denied by policy"),
        };
        HttpReply::json(
            status,
            &ErrorInformation {
                error_type: format!("{ERROR_PREFIX}{variant}"),
                detail: detail.into(),
            },
        )
    }
}

impl From<Fault> for ReleaseRefusal {
    fn from(fault: Fault) -> Self {
        Self::new(Reason::Internal, fault.to_string())
    }
}

/// The most bytes of a decision's detail.
pub const MAX_DETAIL: usize = 2048;

/// One short line of a text that may quote a stranger: for a log, a console or a terminal.
pub(crate) fn detail(text: &str) -> String {
    const CUT: &str = "…";
    let mut detail = String::new();
    for c in text.chars().map(|c| if c.is_control() { '?' } else { c }) {
        if detail.len() + c.len_utf8() + CUT.len() > MAX_DETAIL {
            detail.push_str(CUT);
            break;
        }
        detail.push(c);
    }
    detail
}

/// One line of the log, before it is numbered, dated and signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Unix seconds.
    pub time: u64,
    /// Who asked: an IP address, or `operator`.
    pub peer: String,
    /// The request.
    pub step: Step,
    /// The verdict.
    pub verdict: Verdict,
    /// Why, if refused.
    pub reason: Option<Reason>,
    /// For people; may be empty. At most [`MAX_DETAIL`] bytes.
    pub detail: String,
    /// The image, where known.
    pub image: Option<ImageId>,
    /// Its site, where known.
    pub site: Option<String>,
    /// The session's public identifier, where known.
    pub session: Option<String>,
    /// What it changed, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_never_hears_the_detail() {
        let refusal = ReleaseRefusal::new(Reason::WrongPcr, "PCR 11 is aa, expected bb");
        let body = String::from_utf8(refusal.reply(Step::Resource).body).unwrap();
        assert_eq!(
            body,
            format!(r#"{{"type":"{ERROR_PREFIX}PolicyDeny","detail":"Access denied by policy"}}"#)
        );
        assert_eq!(Reason::WrongPcr.to_string(), "wrong-pcr");
    }

    #[test]
    fn a_detail_is_one_short_line() {
        assert_eq!(detail("expected 1\nfound \u{1b}[2J"), "expected 1?found ?[2J");
        for text in ["x".repeat(1 << 20), "🦀".repeat(1 << 18), "é".repeat(MAX_DETAIL / 2 + 1)] {
            let cut = detail(&text);
            assert!(cut.len() <= MAX_DETAIL && cut.ends_with('…'), "{}", cut.len());
        }
        assert_eq!(detail(&"x".repeat(1000)), "x".repeat(1000));
    }
}
