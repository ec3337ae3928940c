//! Why Azure vTPM evidence was refused.

use cvm_base::Explain;

use super::HardwareKind;
use crate::{quote::TpmError, snp::SnpError, x509::X509Error};
use cvm_evidence::AttestError;

/// Azure vTPM evidence was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AzureError {
    /// Bytes or JSON of another form.
    #[error(transparent)]
    Structure(#[from] AttestError),
    /// A version of the evidence's JSON that is not known.
    #[error("{tee} evidence of version {found}; this program reads {known}")]
    Version {
        /// The kind.
        tee: &'static str,
        /// The evidence's.
        found: String,
        /// Those that are read.
        known: &'static str,
    },
    /// An HCL report about hardware that is not known.
    #[error("the HCL report is of type {found}; 2 (SEV-SNP) and 4 (TDX) are known")]
    ReportType {
        /// Its type.
        found: u32,
    },
    /// An HCL report of another kind than the evidence.
    #[error("the evidence is said to be from {expected}, its HCL report is about {found}")]
    Kind {
        /// What `tee` says.
        expected: HardwareKind,
        /// What the report says.
        found: HardwareKind,
    },
    /// Runtime data that cannot be used.
    #[error("the HCL report's runtime data cannot be used: {problem}")]
    RuntimeClaims {
        /// What is wrong with it.
        problem: String,
    },
    /// The hardware report does not carry the runtime data's hash.
    #[error(
        "the hardware report's data begins with {found}, the runtime data hashes to {expected}"
    )]
    RuntimeBinding {
        /// SHA-256 of the runtime data.
        expected: String,
        /// In the hardware report.
        found: String,
    },
    /// A report that the guest asked for, not the paravisor.
    #[error(
        "the SNP report was made at VMPL {found}, expected 0: only the paravisor's report binds \
         the vTPM"
    )]
    Vmpl {
        /// The report's.
        found: u32,
    },
    /// The TD quote is another TD's than the HCL's TDREPORT.
    #[error("the TD quote's {field} differs from the one in the HCL's TDREPORT")]
    TdReport {
        /// The first field that differs.
        field: &'static str,
    },
    /// The runtime data's `user-data` does not carry the nonce.
    #[error("the runtime data's user-data is {found}, expected the nonce {expected} and zeros")]
    UserData {
        /// The nonce, hex.
        expected: String,
        /// Hex.
        found: String,
    },
    /// The vTPM's quote.
    #[error("vTPM: {0}")]
    Quote(#[from] TpmError),
    /// The hardware report.
    #[error("SEV-SNP: {0}")]
    Snp(#[from] SnpError),
    /// The VCEK.
    #[error("VCEK: {0}")]
    Certificate(#[from] X509Error),
}

impl Explain for AzureError {
    fn code(&self) -> &'static str {
        match self {
            Self::Structure(error) => error.code(),
            Self::Version { .. } => "ATT-320",
            Self::ReportType { .. } => "ATT-321",
            Self::Kind { .. } => "ATT-322",
            Self::RuntimeClaims { .. } => "ATT-323",
            Self::RuntimeBinding { .. } => "ATT-324",
            Self::Vmpl { .. } => "ATT-325",
            Self::TdReport { .. } => "ATT-326",
            Self::UserData { .. } => "ATT-327",
            Self::Quote(error) => error.code(),
            Self::Snp(error) => error.code(),
            Self::Certificate(_) => "ATT-328",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Structure(error) => return error.help(),
            Self::Quote(error) => return error.help(),
            Self::Snp(error) => return error.help(),
            Self::Version { .. } => {
                "use a flare-cvm that knows this version, or an attester that \
                writes an older one"
            }
            Self::ReportType { .. } => "the VM's hardware is of a kind that is not verified here",
            Self::Kind { .. } => "name the kind of the VM that made the evidence",
            Self::RuntimeClaims { .. } => {
                "read NV index 0x01400001 again; a genuine paravisor \
                names its key once"
            }
            Self::RuntimeBinding { .. } => {
                "the runtime data was changed, or is another report's: a key could be anybody's"
            }
            Self::Vmpl { .. } => {
                "send the report from NV index 0x01400001, not one that the guest \
                asked for itself"
            }
            Self::TdReport { .. } => "send the quote that IMDS returned for this HCL report",
            Self::UserData { .. } => {
                "write the nonce to NV index 0x01400002, and read the report 3 s later or more"
            }
            Self::Certificate(_) => "send the VCEK that IMDS returns for this machine",
        }
        .into()
    }
}
