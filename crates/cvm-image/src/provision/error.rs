//! Why a bundle was not made.

use std::path::PathBuf;

use cvm_base::Explain;
use cvm_layout::names::Name;

use crate::WorkError;

/// Why a bundle was not made. An earlier bundle at the same place is untouched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// A tool or the operating system failed.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// A bundle is already there.
    #[error("{path} exists already", path = .0.display())]
    Exists(PathBuf),
    /// The key holder that a server's CVM is to run does not fit the agreement.
    #[error("{party} cannot hold keys in the CVM of site {site}: {problem}")]
    Delegate {
        /// The key holder's party.
        party: Name,
        /// The site.
        site: Name,
        /// Why.
        problem: String,
    },
    /// The delegate already serves another image.
    #[error(
        "the secrets of the key holder in {} were sealed into an image and destroyed",
        .0.display()
    )]
    DelegateSealed(PathBuf),
    /// Secrets would lie on a disk.
    #[error(transparent)]
    Memory(#[from] crate::memory::MemoryError),
    /// The stage image has no system volume.
    #[error("the base image is of stage {stage}, which carries no verity-protected system volume")]
    NoSystemVolume {
        /// The stage that it is of.
        stage: String,
    },
    /// The layout gives a partition no exact size.
    #[error("partition {0} has no exact size in the layout")]
    NeedsExactSize(usize),
    /// A secret would lie in the clear.
    #[error("{partition} would carry a secret in the clear: {found}")]
    Secret {
        /// The partition.
        partition: &'static str,
        /// What was found where; never the secret.
        found: String,
    },
    /// The kernel gave no random bytes.
    #[error("the kernel gave no random bytes: {0}")]
    Random(String),
    /// In the ceremony's documents or the key derivation.
    #[error(transparent)]
    Ceremony(#[from] cvm_ceremony::CeremonyError),
    /// In a folder of secrets.
    #[error(transparent)]
    Custody(#[from] cvm_custody::CustodyError),
    /// In LUKS2 or dm-verity.
    #[error(transparent)]
    Seal(#[from] cvm_seal::SealError),
    /// In the boot chain or the disk.
    #[error(transparent)]
    Boot(#[from] crate::boot::BootError),
    /// In a stage image or an erofs.
    #[error(transparent)]
    Stage(#[from] crate::stage::StageError),
    /// In the startup kit.
    #[error(transparent)]
    Kit(#[from] crate::stage::kit::KitError),
    /// In what the site works with.
    #[error(transparent)]
    Workload(#[from] crate::workload::WorkloadError),
    /// In the site's `cc_config`.
    #[error(transparent)]
    CcConfig(#[from] crate::cc::CcConfigError),
    /// In the kit's CC manager.
    #[error(transparent)]
    Manager(#[from] crate::cc::manager::ManagerError),
    /// In the layout.
    #[error(transparent)]
    Layout(#[from] cvm_layout::layout::LayoutError),
    /// In `cvm-init`'s ELF file.
    #[error(transparent)]
    Code(#[from] cvm_layout::code_digest::CodeError),
    /// A TEE's measurements cannot be predicted.
    #[error("the TEE host {platform:?}: {problem}")]
    Tee {
        /// Which one, or the file.
        platform: String,
        /// Expected and found.
        problem: String,
    },
    /// In the prediction.
    #[error(transparent)]
    Predict(#[from] cvm_predict::PredictError),
    /// In a small file.
    #[error(transparent)]
    File(#[from] cvm_base::FileError),
}

impl Explain for ProvisionError {
    fn code(&self) -> &'static str {
        match self {
            Self::Work(e) => e.code(),
            Self::Exists(_) => "PRO-002",
            Self::NoSystemVolume { .. } => "PRO-004",
            Self::NeedsExactSize(_) => "PRO-005",
            Self::Secret { .. } => "PRO-006",
            Self::Random(_) => "PRO-007",
            Self::Delegate { .. } => "PRO-008",
            Self::Tee { .. } => "PRO-009",
            Self::DelegateSealed(_) => "PRO-010",
            Self::Memory(e) => e.code(),
            Self::Ceremony(e) => e.code(),
            Self::Custody(e) => e.code(),
            Self::Seal(e) => e.code(),
            Self::Boot(e) => e.code(),
            Self::Stage(e) => e.code(),
            Self::Kit(e) => e.code(),
            Self::Workload(e) => e.code(),
            Self::CcConfig(e) => e.code(),
            Self::Manager(e) => e.code(),
            Self::Layout(e) => e.code(),
            Self::Code(e) => e.code(),
            Self::Predict(e) => e.code(),
            Self::File(e) => e.code(),
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Work(e) => e.help(),
            Self::Exists(_) => {
                "choose another -o, or say --replace (replace: true under flare_cvm \
                in a cc_config); a sealed bundle that ran holds a job store that only its own keys \
                open"
                    .into()
            }
            Self::Delegate { .. } => "a server's own key holder is a party of its own: it takes \
                part in the ceremony, client sites name it (`--site NAME=client:PARTY,…`), and the \
                server's site does not"
                .into(),
            Self::DelegateSealed(_) => "it lives in that image alone; for another server image \
                hold a ceremony with a new delegate"
                .into(),
            Self::Memory(e) => e.help(),
            Self::NoSystemVolume { .. } => "give the image that `flare-cvm build provision_build` \
                made"
                .into(),
            Self::NeedsExactSize(_) => {
                "give it `size` instead of `minimum` in the layout file".into()
            }
            Self::Secret { .. } => {
                "a startup kit or site configuration has key material where the host can read it: \
                 move it out; the bundle was not made"
                    .into()
            }
            Self::Random(_) => "the kernel's generator is not ready: try again".into(),
            Self::Tee { .. } => "a host needs firmware that measures the kernel (OVMF's AmdSev or \
                IntelTdx build) and every input that its TEE measures; `flare-cvm predict` shows \
                them"
                .into(),
            Self::Ceremony(e) => e.help(),
            Self::Custody(e) => e.help(),
            Self::Seal(e) => e.help(),
            Self::Boot(e) => e.help(),
            Self::Stage(e) => e.help(),
            Self::Kit(e) => e.help(),
            Self::Workload(e) => e.help(),
            Self::CcConfig(e) => e.help(),
            Self::Manager(e) => e.help(),
            Self::Layout(e) => e.help(),
            Self::Code(e) => e.help(),
            Self::Predict(e) => e.help(),
            Self::File(e) => e.help(),
        }
    }
}
