//! Why the evidence of a GPU, of a switch, or of a set of them was refused.

use cvm_base::Explain;

use super::Mismatch;

/// Evidence, a reference manifest, an OCSP response or a policy of NVIDIA's kind was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// Bytes that do not have the form their specification gives them.
    #[error("{what}: {problem}")]
    Malformed {
        /// The structure.
        what: &'static str,
        /// Expected and found.
        problem: String,
    },
    /// Certificates that lead to no trusted root at this time.
    #[error("the certificate chain of the {of} is refused: {problem}")]
    Chain {
        /// `device`, or which manifest.
        of: String,
        /// What the path validation found.
        problem: String,
    },
    /// A report over another nonce: a replay, or another session's.
    #[error("the report is bound to nonce {found}, not to {expected}")]
    Nonce {
        /// The nonce that was asked for, hex.
        expected: String,
        /// The nonce in the report's request, hex.
        found: String,
    },
    /// The device's attestation key did not sign this report.
    #[error("the report's signature does not verify under the device's attestation key")]
    Signature,
    /// Two parts of the evidence name different devices or firmware.
    #[error("the {what} says {found}, the certificate {expected}")]
    Identity {
        /// The part.
        what: &'static str,
        /// What the certificate says.
        expected: String,
        /// What the part says.
        found: String,
    },
    /// A reference manifest whose XML signature does not hold.
    #[error("the manifest {rim} is not signed as NVIDIA signs manifests: {problem}")]
    RimSignature {
        /// Which one.
        rim: String,
        /// Expected and found.
        problem: String,
    },
    /// No manifest given is the one that the report asks for.
    #[error("the report needs manifest {expected}; given: {found}")]
    RimMismatch {
        /// Its name at NVIDIA's service.
        expected: String,
        /// What was given.
        found: String,
    },
    /// Two manifests claim one measurement.
    #[error("the driver's and the VBIOS's manifest both hold measurement {index}")]
    IndexConflict {
        /// Counted from 0, as manifests do.
        index: u8,
    },
    /// Firmware or configuration other than NVIDIA's golden values.
    #[error(
        "{} of the measurements differ from the golden values: {}",
        .mismatches.len(),
        list(.mismatches)
    )]
    Measurements {
        /// Each of them.
        mismatches: Vec<Mismatch>,
    },
    /// An OCSP response revokes a certificate, or cannot be believed.
    #[error("the OCSP response for {subject} is refused: {problem}")]
    Ocsp {
        /// The certificate.
        subject: String,
        /// Expected and found.
        problem: String,
    },
    /// Devices that do not form one machine.
    #[error("the set of devices is refused: {problem}")]
    Topology {
        /// Which rule, expected and found.
        problem: String,
    },
    /// The site's policy refuses what the claims say.
    #[error("the policy refuses this device: {problem}")]
    Policy {
        /// Which rule, expected and found.
        problem: String,
    },
    /// A result policy that cannot be evaluated.
    #[error("the result policy cannot be used: {problem}")]
    ResultPolicy {
        /// Expected and found.
        problem: String,
    },
    /// A result policy asks for a claim that its version does not have.
    #[error("the result policy of version {version} has no claim {rule:?}")]
    UnknownRule {
        /// The policy's version.
        version: String,
        /// The rule.
        rule: String,
    },
}

impl GpuError {
    pub(super) fn malformed(what: &'static str, problem: impl Into<String>) -> Self {
        Self::Malformed { what, problem: problem.into() }
    }
}

fn list(mismatches: &[Mismatch]) -> String {
    mismatches.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Explain for GpuError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "ATT-340",
            Self::Chain { .. } => "ATT-341",
            Self::Nonce { .. } => "ATT-342",
            Self::Signature => "ATT-343",
            Self::Identity { .. } => "ATT-344",
            Self::RimSignature { .. } => "ATT-345",
            Self::RimMismatch { .. } => "ATT-346",
            Self::IndexConflict { .. } => "ATT-347",
            Self::Measurements { .. } => "ATT-348",
            Self::Ocsp { .. } => "ATT-349",
            Self::Topology { .. } => "ATT-441",
            Self::Policy { .. } => "ATT-387",
            Self::ResultPolicy { .. } => "ATT-442",
            Self::UnknownRule { .. } => "ATT-443",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Malformed { .. } => {
                "the sender is another program or version, or the bytes were \
                changed on the way"
            }
            Self::Chain { .. } => {
                "check the clock and the certificates' dates (a manifest's \
                signer lives two years: fetch the manifest again), and that the roots are NVIDIA's"
            }
            Self::Nonce { .. } => {
                "a replayed report, or one made for another session: collect \
                evidence again"
            }
            Self::Signature => {
                "the report was changed after the device made it, or it belongs to \
                another certificate chain"
            }
            Self::Identity { .. } => {
                "parts of several devices' evidence, or of two firmware \
                versions, were mixed: collect evidence again"
            }
            Self::RimSignature { .. } => {
                "the manifest was changed, or is not one of NVIDIA's \
                signed SWID tags: fetch it again from the RIM service"
            }
            Self::RimMismatch { .. } => {
                "fetch the manifest of this name from NVIDIA's RIM service \
                into the collateral"
            }
            Self::IndexConflict { .. } => {
                "a manifest of another product was given, or \
                NVIDIA published two that contradict each other"
            }
            Self::Measurements { .. } => {
                "the device runs other firmware or another configuration \
                than NVIDIA released under this version: update or reflash it, and do not trust it \
                before"
            }
            Self::Ocsp { .. } => {
                "a revoked certificate means that NVIDIA withdrew the firmware or \
                the device; a stale response: fetch it again"
            }
            Self::Topology { .. } => {
                "collect evidence from every GPU and switch of the one \
                machine, in one go, with one nonce"
            }
            Self::Policy { .. } => {
                "give what is missing (manifests, nonce, OCSP responses), or \
                change the policy if this is meant"
            }
            Self::ResultPolicy { .. } | Self::UnknownRule { .. } => {
                "start from \
                keys/policies/nvidia-result-policy-1.0.json or -4.0.json"
            }
        }
        .into()
    }
}
