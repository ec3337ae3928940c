//! Why a kit's CC manager is refused.

use cvm_base::Explain;

/// The CC manager in a startup kit would fail at run time, or prove nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// The kit has no CC manager.
    #[error(
        "the startup kit configures no CC manager: no file of local/ has a component of {class}"
    )]
    NoManager {
        /// NVFLARE's class.
        class: &'static str,
    },
    /// A value has the wrong type or breaks a rule.
    #[error("{place}: expected {expected}, found {found}")]
    Value {
        /// File, component and argument.
        place: String,
        /// What would be right.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// The component's class takes no such argument.
    #[error("{place}: there is no such argument")]
    UnknownArgument {
        /// File, component and argument.
        place: String,
        /// The closest known one.
        closest: Option<String>,
        /// All of them.
        known: String,
    },
    /// A component is named that is not in the kit.
    #[error("{place} names the component {id:?}, which no file of the startup kit defines")]
    NoComponent {
        /// Where it is named.
        place: String,
        /// Its id.
        id: String,
    },
    /// Two components have one id, or two verifiers one class.
    #[error("{second}: {problem} as {first}")]
    Twice {
        /// The first place.
        first: String,
        /// The second.
        second: String,
        /// What they share.
        problem: &'static str,
    },
    /// A token outlives the check.
    #[error("{place}: a token of {token} s is valid beyond the next check, {check} s later")]
    Outlives {
        /// The place of the token's time.
        place: String,
        /// Seconds of the token.
        token: u64,
        /// Seconds between checks.
        check: u64,
    },
    /// A site would not be verified.
    #[error("{place}: {missing:?} is missing, so {consequence}; found {found}")]
    Sites {
        /// The place of the list.
        place: String,
        /// Who is not in it.
        missing: String,
        /// What that would mean.
        consequence: &'static str,
        /// Who is.
        found: String,
    },
    /// The arguments belong to another NVFLARE.
    #[error("{place}: NVFLARE {version} in the base image takes {expected}")]
    Style {
        /// The component.
        place: String,
        /// The image's NVFLARE.
        version: String,
        /// Its arguments.
        expected: &'static str,
    },
    /// The image's NVFLARE is not one that flare-cvm was tested with.
    #[error("the base image holds {found}; flare-cvm was tested with NVFLARE {tested}")]
    Untested {
        /// What it holds.
        found: String,
        /// What would be right.
        tested: String,
    },
    /// A policy file is not in the kit.
    #[error("{place}: {path:?} {problem}")]
    NoPolicyFile {
        /// The argument.
        place: String,
        /// The path.
        path: String,
        /// Why not.
        problem: &'static str,
    },
    /// A policy has a claim that NVIDIA's does not.
    #[error("{file}: there is no claim {claim:?} in NVIDIA's result policy {version}")]
    UnknownClaim {
        /// The policy.
        file: String,
        /// The claim.
        claim: String,
        /// The policy's version.
        version: &'static str,
        /// The closest claim.
        closest: Option<String>,
    },
    /// A policy lacks a claim.
    #[error("{file}: the claim {claim:?} of NVIDIA's result policy {version} is missing")]
    MissingClaim {
        /// The policy.
        file: String,
        /// The claim.
        claim: String,
        /// The policy's version.
        version: &'static str,
    },
    /// One of NVFLARE's authorizers would fail in the sealed machine.
    #[error("{place}: {class} cannot run in a sealed machine, which lacks {missing}")]
    CannotRun {
        /// Where in the kit.
        place: String,
        /// The authorizer.
        class: &'static str,
        /// What it needs.
        missing: &'static str,
    },
    /// The kit was made from another configuration.
    #[error(
        "{place} of the startup kit does not follow from the cc_config: expected {expected}, found \
         {found}"
    )]
    Stale {
        /// Where in the kit.
        place: String,
        /// What the cc_config says.
        expected: String,
        /// What the kit says.
        found: String,
    },
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] cvm_base::FileError),
    /// The operating system failed.
    #[error(transparent)]
    Work(#[from] crate::WorkError),
}

impl Explain for ManagerError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoManager { .. } => "CCC-010",
            Self::Value { .. } => "CCC-011",
            Self::UnknownArgument { .. } => "CCC-012",
            Self::NoComponent { .. } => "CCC-013",
            Self::Twice { .. } => "CCC-014",
            Self::Outlives { .. } => "CCC-015",
            Self::Sites { .. } => "CCC-016",
            Self::Style { .. } => "CCC-017",
            Self::Untested { .. } => "CCC-018",
            Self::NoPolicyFile { .. } => "CCC-019",
            Self::UnknownClaim { .. } => "CCC-020",
            Self::MissingClaim { .. } => "CCC-021",
            Self::Stale { .. } => "CCC-022",
            Self::CannotRun { .. } => "CCC-023",
            Self::File(error) => error.code(),
            Self::Work(error) => error.code(),
        }
    }

    fn help(&self) -> String {
        match self {
            Self::NoManager { .. } => "give the participant a cc_config, and project.yml the \
                CCBuilder after StaticFileBuilder and before SignatureBuilder; then provision \
                again"
                .into(),
            Self::UnknownArgument { closest: Some(closest), .. } => format!(
                "did you mean \
                {closest}?"
            ),
            Self::UnknownArgument { known, .. } => format!("the arguments are {known}"),
            Self::NoComponent { .. } => "every issuer and verifier is a component of \
                local/ID__p_resources.json: name it in cc_issuers of some participant's cc_config, \
                and provision again"
                .into(),
            Self::Twice { .. } => {
                "NVFLARE refuses to start with both: use one id for one class in \
                every participant's cc_config"
                    .into()
            }
            Self::Outlives { .. } => "set token_expiration below cc_attestation.check_frequency, \
                such as 100 below 120, and provision again"
                .into(),
            Self::Sites { .. } => "cc_enabled_sites holds the names of all CC clients, and \
                literally `server` for the server: give each participant a cc_config, and \
                provision again"
                .into(),
            Self::Style { .. } => {
                "provision the kit with the NVFLARE that the base image holds".into()
            }
            Self::Untested { .. } => "build the stage nvflare_cc_base with one of these, or say \
                allow_untested_nvflare (flare_cvm: in the cc_config, or the flag) if you tested it \
                yourself"
                .into(),
            Self::NoPolicyFile { .. } => "policy files lie in the signed kit: name them relative \
                to its folder, such as local/result.plc"
                .into(),
            Self::UnknownClaim { closest: Some(closest), .. } => format!("did you mean {closest}?"),
            Self::UnknownClaim { .. } | Self::MissingClaim { .. } => "the policy has exactly the \
                claims of keys/policies/nvidia-result-policy-1.0.json"
                .into(),
            Self::Stale { .. } => "run `nvflare provision` again: the kit was made before the \
                cc_config was changed, or another participant's cc_config uses the same issuer id \
                differently"
                .into(),
            Self::CannotRun { .. } => "name flare_cvm.authorizer.CVMAuthorizer as the issuer, \
                which attests every kind of machine; a missing Python package can be added to \
                requirements.in of stages/nvflare_cc_base"
                .into(),
            Self::Value { .. } => "correct it in the cc_config or the project's template, and \
                provision again"
                .into(),
            Self::File(error) => error.help(),
            Self::Work(error) => error.help(),
        }
    }
}
