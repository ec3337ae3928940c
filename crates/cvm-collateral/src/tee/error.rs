//! Why a TEE's evidence was refused in the release protocol.

use cvm_base::Explain;

use super::kinds::KINDS;
use cvm_verify::{azure::AzureError, gpu::GpuError, quote::TpmError, snp::SnpError, tdx::TdxError};

/// A TEE's evidence was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TeeError {
    /// A kind that has no verifier here.
    #[error("evidence of kind {found:?} is none of {}, nor nvidia beside one", KINDS.join(", "))]
    Kind {
        /// What was named.
        found: String,
    },
    /// A body of another form.
    #[error("{tee} evidence: {problem}")]
    Body {
        /// The kind.
        tee: &'static str,
        /// Expected and found.
        problem: String,
    },
    /// SEV-SNP.
    #[error(transparent)]
    Snp(#[from] SnpError),
    /// TDX.
    #[error(transparent)]
    Tdx(#[from] TdxError),
    /// Azure's vTPM.
    #[error(transparent)]
    Azure(#[from] AzureError),
    /// NVIDIA's devices.
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

impl TeeError {
    /// Whether the evidence is genuine as far as it was checked, but answers another challenge.
    pub fn is_wrong_nonce(&self) -> bool {
        match self {
            Self::Snp(SnpError::Binding { field, .. }) => *field == "REPORT_DATA",
            Self::Tdx(TdxError::ReportData { .. }) | Self::Gpu(GpuError::Nonce { .. }) => true,
            Self::Azure(error) => {
                matches!(
                    error,
                    AzureError::UserData { .. } | AzureError::Quote(TpmError::Nonce { .. })
                )
            }
            _ => false,
        }
    }

    /// Whether this is a genuine guest that may never get a secret: debug mode, migration, another
    /// VMPL.
    pub fn is_forbidden(&self) -> bool {
        matches!(
            self,
            Self::Snp(SnpError::Policy { .. })
                | Self::Tdx(
                    TdxError::Policy { .. }
                        | TdxError::Status { .. }
                        | TdxError::NoCollateral { .. }
                )
                | Self::Azure(AzureError::Vmpl { .. })
        )
    }

    /// Whether the bytes do not have the form of their kind.
    pub fn is_malformed(&self) -> bool {
        matches!(
            self,
            Self::Body { .. }
                | Self::Snp(SnpError::Malformed { .. })
                | Self::Tdx(TdxError::Quote { .. })
                | Self::Azure(AzureError::Structure(_))
                | Self::Gpu(GpuError::Malformed { .. })
        )
    }
}

impl Explain for TeeError {
    fn code(&self) -> &'static str {
        match self {
            Self::Kind { .. } => "ATT-394",
            Self::Body { .. } => "ATT-395",
            Self::Snp(error) => error.code(),
            Self::Tdx(error) => error.code(),
            Self::Azure(error) => error.code(),
            Self::Gpu(error) => error.code(),
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Kind { .. } => {
                "boot the image on a machine whose kind of evidence is supported".into()
            }
            Self::Body { .. } => {
                "the sender is another program or version, or the bytes were changed on the way"
                    .into()
            }
            Self::Snp(error) => error.help(),
            Self::Tdx(error) => error.help(),
            Self::Azure(error) => error.help(),
            Self::Gpu(error) => error.help(),
        }
    }
}
