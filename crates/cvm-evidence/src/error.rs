//! Why evidence was refused.

use cvm_base::{Bytes32, Explain};

/// Evidence, a handshake or a list of roots was refused.
///
/// Every variant is a refusal: nothing was learned that may be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// Bytes that do not have the form their specification gives them.
    #[error("{what}: {problem}")]
    Malformed {
        /// The structure.
        what: &'static str,
        /// Expected and found.
        problem: String,
    },
    /// A kind of evidence this program has no verifier for.
    #[error("evidence of kind {found:?} is not supported; this program verifies: tpm")]
    Kind {
        /// The `tee` that the client named.
        found: String,
    },
    /// The attestation key could sign something other than the TPM's own statements.
    #[error("the attestation key is not a restricted signing key of this TPM: {problem}")]
    AttestationKey {
        /// The attribute or scheme that is wrong.
        problem: String,
    },
    /// The endorsement key was not made from TCG's template L-1 or L-2.
    #[error("the endorsement key does not follow template L-1 or L-2: {problem}")]
    EndorsementTemplate {
        /// The field that is wrong.
        problem: String,
    },
    /// `ek_public` is another key than the endorsement certificate's.
    #[error("the endorsement certificate certifies another key than the endorsement key shown")]
    EndorsementMismatch,
    /// The endorsement certificate leads to no root that the policy names.
    #[error("the endorsement certificate leads to no named root")]
    UnknownRoot,
    /// The endorsement certificate or one above it is not valid.
    #[error("the endorsement certificate is not valid: {problem}")]
    EndorsementCertificate {
        /// What the path validation found.
        problem: String,
    },
    /// Evidence without what binds the attestation key to an endorsed TPM.
    #[error("the evidence has no {missing}: nothing binds its attestation key to an endorsed TPM")]
    NotEndorsed {
        /// The missing member.
        missing: &'static str,
    },
    /// The credential was not recovered, so the two keys do not live in one TPM.
    #[error("the activated credential is wrong: the attestation key is not in the endorsed TPM")]
    Credential,
    /// Attest names another key or certificate than the handshake did.
    #[error("the evidence's {member} differs from the handshake's")]
    Substituted {
        /// The member that changed.
        member: &'static str,
    },
    /// The attestation key did not sign this quote.
    #[error("the quote's signature does not verify under the attestation key")]
    QuoteSignature,
    /// A quote over another nonce: a replay, or another session's.
    #[error("the quote is bound to {found}, not to this session's {expected}")]
    Nonce {
        /// This session's nonce, hex.
        expected: String,
        /// The quote's `extraData`, hex.
        found: String,
    },
    /// The quote covers other PCRs or another bank.
    #[error("the quote selects {found}; required is sha256:0-15, exactly")]
    Selection {
        /// The quote's selection.
        found: String,
    },
    /// The PCR values shown are not those that were quoted.
    #[error("the PCR values shown do not hash to the quote's digest")]
    PcrDigest,
    /// The event log does not lead to the quoted value.
    #[error("the event log replays PCR {pcr} to {replayed}, but the quote says {quoted}")]
    Replay {
        /// The register.
        pcr: u8,
        /// What the log leads to.
        replayed: Bytes32,
        /// What the TPM said.
        quoted: Bytes32,
    },
    /// The policy's PEM file cannot be used.
    #[error("the endorsement roots cannot be read: {problem}")]
    Roots {
        /// What is wrong with them.
        problem: String,
    },
    /// The machine's random generator or crypto library failed.
    #[error("the cryptographic library failed: {operation}")]
    Crypto {
        /// The operation.
        operation: &'static str,
    },
}

impl AttestError {
    /// `what` was read, and `problem` is wrong with it.
    pub fn malformed(what: &'static str, problem: impl Into<String>) -> Self {
        Self::Malformed { what, problem: problem.into() }
    }
}

impl Explain for AttestError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "ATT-001",
            Self::Kind { .. } => "ATT-002",
            Self::AttestationKey { .. } => "ATT-003",
            Self::EndorsementTemplate { .. } => "ATT-004",
            Self::EndorsementMismatch => "ATT-005",
            Self::UnknownRoot => "ATT-006",
            Self::EndorsementCertificate { .. } => "ATT-007",
            Self::NotEndorsed { .. } => "ATT-008",
            Self::Credential => "ATT-009",
            Self::Substituted { .. } => "ATT-010",
            Self::QuoteSignature => "ATT-011",
            Self::Nonce { .. } => "ATT-012",
            Self::Selection { .. } => "ATT-013",
            Self::PcrDigest => "ATT-014",
            Self::Replay { .. } => "ATT-015",
            Self::Roots { .. } => "ATT-016",
            Self::Crypto { .. } => "ATT-017",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Malformed { .. } => {
                "the sender is another program or version, or the bytes were changed on the way"
            }
            Self::Kind { .. } => "boot the image on a machine whose kind of evidence is supported",
            Self::AttestationKey { .. } => {
                "a key outside the TPM, or one that signs anything, proves nothing: use cvm-init's \
                 own key"
            }
            Self::EndorsementTemplate { .. } => {
                "use the TPM's factory endorsement key (TCG template L-1, RSA, or L-2, P-256)"
            }
            Self::EndorsementMismatch => {
                "the TPM's NV certificate belongs to another TPM or template: manufacture the vTPM \
                 again"
            }
            Self::UnknownRoot => {
                "if this TPM may be trusted, add its manufacturer's root (and intermediates) to \
                 the policy's endorsement roots"
            }
            Self::EndorsementCertificate { .. } => {
                "check the key holder's clock and the certificate's dates, and that the roots hold \
                 every intermediate"
            }
            Self::NotEndorsed { .. } => {
                "a stock client without an endorsement certificate cannot be served: boot a \
                 flare-cvm image"
            }
            Self::Credential | Self::Substituted { .. } => {
                "somebody relays or mixes two TPMs' answers; a genuine CVM simply starts a new \
                 session"
            }
            Self::QuoteSignature | Self::PcrDigest => {
                "the evidence was changed after the TPM made it"
            }
            Self::Nonce { .. } => {
                "a replayed or relayed quote; a genuine CVM simply starts a new session"
            }
            Self::Selection { .. } => {
                "a quote over fewer registers hides the others: use cvm-init's own quote"
            }
            Self::Replay { .. } => {
                "the log was changed, or software measured into this register without logging it"
            }
            Self::Roots { .. } => {
                "give PEM certificates, the root and its intermediates, at most 64"
            }
            Self::Crypto { .. } => "restart the program; if it happens again, suspect the machine",
        }
        .into()
    }
}
