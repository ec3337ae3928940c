//! Why a launch digest could not be predicted.

use cvm_base::Explain;

/// The inputs do not allow a prediction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// No firmware for SEV-SNP guests.
    #[error("the firmware cannot start an SEV-SNP guest: {problem}")]
    Firmware {
        /// What is wrong or missing.
        problem: String,
    },
    /// A kernel with a firmware that does not measure one.
    #[error(
        "the firmware has no place for the kernel's hashes, so a kernel beside it would not be \
         measured"
    )]
    KernelHashes,
    /// No such guest.
    #[error("{found} vCPUs; a guest has 1 to 1024")]
    Vcpus {
        /// How many.
        found: u32,
    },
    /// An IGVM file that QEMU with KVM would not launch as it says.
    #[error("the IGVM file: {problem}")]
    Igvm {
        /// What is wrong.
        problem: String,
    },
}

impl LaunchError {
    pub(super) fn firmware(problem: impl Into<String>) -> Self {
        Self::Firmware { problem: problem.into() }
    }

    pub(super) fn igvm(problem: impl Into<String>) -> Self {
        Self::Igvm { problem: problem.into() }
    }
}

impl Explain for LaunchError {
    fn code(&self) -> &'static str {
        match self {
            Self::Firmware { .. } => "ATT-390",
            Self::KernelHashes => "ATT-391",
            Self::Vcpus { .. } => "ATT-392",
            Self::Igvm { .. } => "ATT-393",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Firmware { .. } => {
                "give OVMF as one file (not CODE and VARS apart), built with SEV support"
            }
            Self::KernelHashes => {
                "use OVMF's AmdSev build (OvmfPkg/AmdSev), or put kernel, initrd and command line \
                 into a signed UKI on the disk"
            }
            Self::Igvm { .. } => {
                "give an IGVM file made for SEV-SNP under QEMU (igvmbuilder's qemu target)"
            }
            Self::Vcpus { .. } => {
                "give the number of vCPUs that the host will start the guest with"
            }
        }
        .into()
    }
}
