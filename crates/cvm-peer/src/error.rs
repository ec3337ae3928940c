//! Why an agent refuses: one error for every refusal of the protocol, with its code.

use cvm_base::{Bytes32, Explain};
use cvm_layout::names::Name;

/// A request was refused: nothing was learned that may be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentRefusal {
    /// Not a request of the protocol.
    #[error("not a request of version 1: {problem}")]
    Request {
        /// What is wrong with it.
        problem: String,
    },
    /// The first self-verification is not done.
    #[error("the agent has not verified itself yet")]
    Starting,
    /// The last self-verification failed; the machine is about to power off.
    #[error("this CVM failed its self-verification")]
    Failing,
    /// More connections or tokens at once than the agent takes.
    #[error("the agent has too much to do: {what}")]
    Busy {
        /// What there is too much of.
        what: &'static str,
    },
    /// The TEE or TPM gave no evidence.
    #[error("no evidence from this machine: {problem}")]
    NoEvidence {
        /// What the device or driver said.
        problem: String,
    },
    /// The journal could not be read.
    #[error("the attestation journal cannot be read: {problem}")]
    Journal {
        /// Why.
        problem: String,
    },
    /// This image's kit does not name NVFLARE's own authorizer, for which bare reports are.
    #[error("this image gives and verifies no bare SEV-SNP reports")]
    NoBareReports,
    /// What somebody wants signed could be taken for this system's own evidence.
    #[error("the last 16 bytes of the report data are zero, as in this system's own evidence")]
    Reserved,
    /// This guest's clock is before the token's time.
    #[error("the token is issued {ahead_s} s ahead of this guest's clock")]
    ClockBehind {
        /// Seconds beyond the leeway.
        ahead_s: u64,
        /// So few that waiting is worth it.
        worth_waiting: bool,
    },
    /// The token's window is over.
    #[error("the token expired {ago_s} s ago")]
    Expired {
        /// Seconds beyond the leeway.
        ago_s: u64,
    },
    /// A window that ends before it begins, or is longer than agents make them.
    #[error("the token is valid for {lifetime_s} s, allowed are 1 to {allowed}")]
    Window {
        /// The token's.
        lifetime_s: i64,
        /// The most.
        allowed: u64,
    },
    /// Another site's, role's or certificate's token.
    #[error("the token is another's: its {member} is {found}, the peer's is {expected}")]
    OtherPeer {
        /// What differs.
        member: &'static str,
        /// As the caller knows the peer.
        expected: String,
        /// The token's.
        found: String,
    },
    /// It answers another challenge, or none.
    #[error("the token answers the challenge {found}, not {expected}")]
    OtherChallenge {
        /// The request's.
        expected: String,
        /// The token's.
        found: String,
    },
    /// The challenge was not issued to this peer, is used, or expired.
    #[error("the challenge is not open for this peer")]
    NoChallenge,
    /// A token without a challenge, a second time.
    #[error("the token was accepted before")]
    Replayed,
    /// Not a token.
    #[error("not a token: {problem}")]
    Malformed {
        /// What is wrong with it.
        problem: String,
    },
    /// Evidence without a verifier.
    #[error("evidence of kind {found:?} is not supported; this agent verifies: tpm, snp, tdx")]
    Kind {
        /// The token's.
        found: String,
    },
    /// Made to be shown to somebody else.
    #[error("the token was made for {found:?}, not for {expected:?}")]
    OtherUse {
        /// What is asked for.
        expected: &'static str,
        /// The token's.
        found: &'static str,
    },
    /// The federation's builder did not sign it.
    #[error("{document} is not signed by builder {builder}")]
    Document {
        /// `manifest`, `reference`.
        document: &'static str,
        /// The agreement's.
        builder: Name,
    },
    /// Signed documents that cannot be read, or do not belong together.
    #[error("the token's {document}: {problem}")]
    Inconsistent {
        /// Which.
        document: &'static str,
        /// Expected and found.
        problem: String,
    },
    /// An image of another ceremony or project.
    #[error("the token's image is of {what} {found}, this federation's is {expected}")]
    OtherFederation {
        /// `ceremony`, `project`.
        what: &'static str,
        /// Ours.
        expected: String,
        /// The image's.
        found: String,
    },
    /// The agreement knows no such site.
    #[error("the agreement names no site {site} that is a {role}")]
    UnknownSite {
        /// The manifest's.
        site: Name,
        /// The manifest's.
        role: String,
    },
    /// No party's key holder vouches for the attestation key.
    #[error("no party of the agreement certified the attestation key {ak_name}: {problem}")]
    Uncertified {
        /// The key that quoted.
        ak_name: String,
        /// What was found instead.
        problem: String,
    },
    /// Evidence that does not verify.
    #[error("the evidence is refused: {problem}")]
    Evidence {
        /// With the verifier's code.
        problem: String,
    },
    /// A genuine TPM in another state than this image's after its handoff.
    #[error("the machine is not in the state of its image: {}", differences.join("; "))]
    State {
        /// Named, register by register.
        differences: Vec<String>,
    },
    /// The policy refuses.
    #[error("the {policy} policy refuses: {}", reasons.join("; "))]
    Policy {
        /// `cross`, `self`.
        policy: String,
        /// SHA-256 of the policy.
        sha256: Bytes32,
        /// Its reasons.
        reasons: Vec<String>,
    },
    /// The policy could not decide.
    #[error("the policy cannot decide: {problem}")]
    PolicyFailed {
        /// With the verifier's code.
        problem: String,
    },
}

impl AgentRefusal {
    /// Not a token, or not a part of one.
    pub fn malformed(problem: impl ToString) -> Self {
        Self::Malformed { problem: problem.to_string().chars().take(300).collect() }
    }

    /// Evidence that does not verify, with the code of its error.
    pub fn evidence(error: &impl Explain) -> Self {
        Self::Evidence { problem: format!("{}: {error}", error.code()) }
    }

    /// The same request may succeed later without anybody acting.
    pub fn retry(&self) -> bool {
        matches!(
            self,
            Self::Starting | Self::Busy { .. } | Self::ClockBehind { worth_waiting: true, .. }
        )
    }

    /// After how many seconds, where that is known.
    pub fn wait_s(&self) -> Option<u64> {
        match self {
            Self::ClockBehind { ahead_s, worth_waiting: true } => Some(*ahead_s),
            Self::Starting | Self::Busy { .. } => Some(1),
            _ => None,
        }
    }
}

impl Explain for AgentRefusal {
    fn code(&self) -> &'static str {
        match self {
            Self::Request { .. } => "AGT-001",
            Self::Starting => "AGT-002",
            Self::Failing => "AGT-003",
            Self::Busy { .. } => "AGT-004",
            Self::NoEvidence { .. } => "AGT-005",
            Self::Journal { .. } => "AGT-006",
            Self::NoBareReports => "AGT-007",
            Self::Reserved => "AGT-008",
            Self::ClockBehind { .. } => "AGT-010",
            Self::Expired { .. } => "AGT-011",
            Self::Window { .. } => "AGT-012",
            Self::OtherPeer { .. } => "AGT-013",
            Self::OtherChallenge { .. } => "AGT-014",
            Self::NoChallenge => "AGT-015",
            Self::Replayed => "AGT-016",
            Self::Malformed { .. } => "AGT-020",
            Self::Kind { .. } => "AGT-021",
            Self::OtherUse { .. } => "AGT-022",
            Self::Document { .. } => "AGT-023",
            Self::Inconsistent { .. } => "AGT-024",
            Self::OtherFederation { .. } => "AGT-025",
            Self::UnknownSite { .. } => "AGT-026",
            Self::Uncertified { .. } => "AGT-030",
            Self::Evidence { .. } => "AGT-031",
            Self::State { .. } => "AGT-032",
            Self::Policy { .. } => "AGT-033",
            Self::PolicyFailed { .. } => "AGT-034",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Request { .. } => {
                "the caller is another version than this agent \
                (docs/agent-protocol.md)"
            }
            Self::Starting => "ask again in a moment",
            Self::Failing => "see the agent's last log lines: they name what differs",
            Self::Busy { .. } => "ask again in a moment; if this lasts, somebody floods the agent",
            Self::NoEvidence { .. } => {
                "see that /dev/tpmrm0 or the TEE's device is there and its \
                group is the agent's"
            }
            Self::Journal { .. } => "see the agent's log folder",
            Self::NoBareReports => {
                "they are for kits that name NVFLARE's SNPAuthorizer; a token of this agent says \
                 more"
            }
            Self::Reserved => "ask for random bytes, as NVFLARE's SNPAuthorizer does",
            Self::ClockBehind { .. } => {
                "check the time source of both machines; small differences \
                pass by waiting"
            }
            Self::Expired { .. } => {
                "let the peer make a fresh one; check the clocks of both \
                machines"
            }
            Self::Window { .. } => "the peer's agent is another program or version",
            Self::OtherPeer { .. } => {
                "somebody shows a token that was made by another site, or for another certificate"
            }
            Self::OtherChallenge { .. } | Self::NoChallenge => {
                "a replayed or relayed token, or an answer that came too late: ask for a fresh \
                 challenge"
            }
            Self::Replayed => "a replayed token; a genuine peer makes a fresh one",
            Self::Malformed { .. } => "it was damaged on the way, or is not a token of cvm-agent",
            Self::Kind { .. } => "boot the peer on a machine whose kind of evidence is supported",
            Self::OtherUse { .. } => "what an auditor is shown does not count between sites",
            Self::Document { .. } => "the peer runs an image of another builder",
            Self::Inconsistent { .. } => "the peer's documents were mixed: provision it again",
            Self::OtherFederation { .. } => {
                "the peer's image belongs to another ceremony: provision all sites from one"
            }
            Self::UnknownSite { .. } => {
                "the ceremony's terms list the sites; a new site needs a \
                new agreement"
            }
            Self::Uncertified { .. } => {
                "boot the peer with key holders that give AK certificates (stock ones do not), or \
                 see who runs its TPM"
            }
            Self::Evidence { .. } => "a changed or relayed quote; a genuine peer makes a fresh one",
            Self::State { .. } => {
                "software ran on that machine that its image does not have: do \
                not trust it"
            }
            Self::Policy { .. } => "see policies/cross.rego and self.rego on p4",
            Self::PolicyFailed { .. } => {
                "correct policies/cross.rego or self.rego and provision \
                again"
            }
        }
        .into()
    }
}
