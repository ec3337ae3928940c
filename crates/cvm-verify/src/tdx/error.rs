//! Why a quote, its collateral or its event log was refused.

use cvm_base::{Explain, time::rfc3339};

use crate::{tdx::TcbStatus, x509::X509Error};
use cvm_evidence::rtmr::Bytes48;

/// A TDX or SGX quote, its collateral or its event log was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TdxError {
    /// Bytes that are not a quote.
    #[error("the quote cannot be read: {problem}")]
    Quote {
        /// Expected and found.
        problem: String,
    },
    /// A quote of a kind that this program does not verify.
    #[error("a quote with {field} {found} is not supported; supported is {expected}")]
    Unsupported {
        /// The field of the header.
        field: &'static str,
        /// What it says.
        found: String,
        /// What it may say.
        expected: &'static str,
    },
    /// The certificate of the platform's key (PCK) is not what it should be.
    #[error("the platform's certificate (PCK) cannot be used: {problem}")]
    Pck {
        /// Expected and found.
        problem: String,
    },
    /// A certificate chain does not lead to a trusted root, or is revoked.
    #[error("the chain of {what} was refused: {cause}")]
    Chain {
        /// Whose chain.
        what: &'static str,
        /// What is wrong with it.
        cause: X509Error,
    },
    /// A signature does not verify.
    #[error("the signature over {what} is invalid under {key}")]
    Signature {
        /// What is signed.
        what: &'static str,
        /// Under which key.
        key: &'static str,
    },
    /// The quoting enclave did not vouch for the attestation key.
    #[error(
        "the quoting enclave's report names another attestation key: {expected} expected, {found} \
         found"
    )]
    AttestationKey {
        /// SHA-256 of key and authentication data, hex.
        expected: String,
        /// The report's data, hex.
        found: String,
    },
    /// Not Intel's quoting enclave, or one in debug mode.
    #[error("the quoting enclave's {field} is {found}, expected {expected}")]
    QuotingEnclave {
        /// The field of its report.
        field: &'static str,
        /// What the QE identity asks for.
        expected: String,
        /// What the report says.
        found: String,
    },
    /// No statement of Intel's covers this platform, module or quoting enclave, or it is revoked.
    #[error("the platform's TCB was refused: {problem}")]
    Tcb {
        /// Expected and found.
        problem: String,
    },
    /// The report is bound to something else.
    #[error("REPORT_DATA is {found}, expected {expected}")]
    ReportData {
        /// What the verifier asked for, hex, padded with zeros.
        expected: String,
        /// The quote's, hex.
        found: String,
    },
    /// Bytes that are not an event log.
    #[error("the event log cannot be read: {problem}")]
    EventLog {
        /// Expected and found.
        problem: String,
    },
    /// The event log does not lead to the quoted value.
    #[error("the event log replays RTMR{rtmr} to {replayed}, but the quote says {quoted}")]
    Replay {
        /// The register.
        rtmr: u8,
        /// What the log leads to.
        replayed: Bytes48,
        /// What the quote says.
        quoted: Bytes48,
    },
    /// Collateral that cannot be read, or that lacks something.
    #[error("the collateral cannot be used: {problem}")]
    Collateral {
        /// Expected and found.
        problem: String,
    },
    /// A part of the collateral is not yet, or no longer, valid.
    #[error(
        "{what} is valid from {} to {}, not at {}",
        rfc3339(*.from),
        rfc3339(*.until),
        rfc3339(*.now)
    )]
    Time {
        /// Which part.
        what: &'static str,
        /// Its first second.
        from: u64,
        /// Its last second.
        until: u64,
        /// The verifier's time.
        now: u64,
    },
    /// The collateral is for other platforms.
    #[error("the collateral is for {field} {expected}, the quote is of {found}")]
    OtherPlatform {
        /// What differs.
        field: &'static str,
        /// The collateral's.
        expected: String,
        /// The quote's.
        found: String,
    },
    /// The platform's TCB status is not one that the policy accepts.
    #[error(
        "the platform's TCB status is {found} ({advisories}), which the policy does not accept"
    )]
    Status {
        /// What collateral says about it.
        found: TcbStatus,
        /// Intel's advisories that apply.
        advisories: String,
    },
    /// What was not given says nothing, and the policy accepts no unknown.
    #[error("{missing}: the platform's TCB status is unknown")]
    NoCollateral {
        /// What is not there.
        missing: &'static str,
    },
    /// Genuine evidence that the policy refuses.
    #[error("policy: {problem}")]
    Policy {
        /// Expected and found.
        problem: String,
    },
}

impl TdxError {
    /// Whether collateral is at fault, whatever quote it is beside.
    pub(crate) fn is_of_collateral(&self) -> bool {
        let of_collateral = |what: &str| matches!(what, "TCB info" | "QE identity");
        match self {
            Self::Collateral { .. } | Self::Time { .. } => true,
            Self::Chain { what, .. } | Self::Signature { what, .. } => of_collateral(what),
            _ => false,
        }
    }

    pub(super) fn quote(problem: impl ToString) -> Self {
        Self::Quote { problem: problem.to_string() }
    }

    pub(super) fn pck(problem: impl ToString) -> Self {
        Self::Pck { problem: problem.to_string() }
    }

    pub(super) fn tcb(problem: impl ToString) -> Self {
        Self::Tcb { problem: problem.to_string() }
    }

    pub(super) fn event_log(problem: impl ToString) -> Self {
        Self::EventLog { problem: problem.to_string() }
    }

    pub(super) fn collateral(problem: impl ToString) -> Self {
        Self::Collateral { problem: problem.to_string() }
    }
}

impl Explain for TdxError {
    fn code(&self) -> &'static str {
        match self {
            Self::Quote { .. } | Self::Unsupported { .. } => "ATT-310",
            Self::Pck { .. } => "ATT-311",
            Self::Chain { .. } => "ATT-312",
            Self::Signature { .. } => "ATT-313",
            Self::AttestationKey { .. } => "ATT-314",
            Self::QuotingEnclave { .. } => "ATT-315",
            Self::Tcb { .. } => "ATT-316",
            Self::ReportData { .. } => "ATT-317",
            Self::EventLog { .. } => "ATT-318",
            Self::Replay { .. } => "ATT-319",
            Self::Collateral { .. } => "ATT-411",
            Self::Time { .. } => "ATT-412",
            Self::OtherPlatform { .. } => "ATT-413",
            Self::Status { .. } => "ATT-414",
            Self::Policy { .. } => "ATT-415",
            Self::NoCollateral { .. } => "ATT-416",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Quote { .. } => {
                "the sender is another program or version, or the bytes were changed on the way"
            }
            Self::Unsupported { .. } => {
                "a TD makes quotes of version 4 or 5, an SGX enclave of \
                version 3, both with ECDSA-P256 keys"
            }
            Self::Pck { .. } => {
                "the quote must carry its platform's chain, or the collateral the \
                same one: fetch the collateral for this quote"
            }
            Self::Chain { .. } => {
                "check the verifier's clock and that the chain ends in Intel's \
                SGX Root CA; a revoked platform must not be trusted"
            }
            Self::Signature { .. } => {
                "the bytes were changed after they were signed, or come from somewhere else"
            }
            Self::AttestationKey { .. } => {
                "the quote was signed with a key that no quoting enclave vouched for: a forgery"
            }
            Self::QuotingEnclave { .. } => {
                "a quoting enclave other than Intel's made this quote: do not trust it"
            }
            Self::Tcb { .. } => {
                "update the platform's firmware and TDX module, or fetch newer collateral"
            }
            Self::ReportData { .. } => {
                "a replayed or relayed quote; a genuine CVM simply starts a new session"
            }
            Self::EventLog { .. } => {
                "give the CCEL table's log area as the guest sees it, at most 1 MiB"
            }
            Self::Replay { .. } => {
                "the log was changed, or software measured into this register without logging it"
            }
            Self::Collateral { .. } => {
                "fetch the collateral again: TCB info, QE identity and both \
                revocation lists, for this platform"
            }
            Self::Time { .. } => "check the verifier's clock, then fetch newer collateral",
            Self::OtherPlatform { .. } => {
                "fetch the collateral for this platform's FMSPC and this kind of TEE"
            }
            Self::Status { .. } => {
                "update the platform, or name this status and its advisories in \
                the policy if you accept them"
            }
            Self::NoCollateral { .. } => {
                "give Intel's collateral for this platform (flare-cvm \
                collateral fetches it where there is a network); a policy that allows an unknown \
                TCB accepts platforms with known holes"
            }
            Self::Policy { .. } => "change the TD or the policy, whichever is wrong",
        }
        .into()
    }
}
