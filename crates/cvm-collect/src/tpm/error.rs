//! What can go wrong with a TPM.

use cvm_base::{Bytes32, Explain};

use cvm_evidence::AttestError;

/// The TPM could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TpmError {
    /// No TPM there.
    #[error("cannot open the TPM at {tcti:?}: {source}")]
    Open {
        /// Where it was looked for.
        tcti: String,
        /// What libtss2 said.
        source: tss_esapi::Error,
    },
    /// The TPM refused a command, or did not answer.
    #[error("the TPM refused {command}: {source}")]
    Command {
        /// The command.
        command: &'static str,
        /// What libtss2 said.
        source: tss_esapi::Error,
    },
    /// No endorsement certificate in NV memory.
    #[error("the TPM has no RSA endorsement certificate (NV index 0x01c00002)")]
    NoCertificate,
    /// The bank that everything is measured into does not exist.
    #[error("the TPM has no active SHA-256 bank")]
    NoBank,
    /// Registers changed between quote and read.
    #[error("the PCRs changed while they were quoted")]
    Unstable,
    /// The TPM claims to have extended a register, but its value says otherwise.
    #[error("PCR {pcr} is {found} after it was extended, expected {expected}")]
    NotExtended {
        /// The register.
        pcr: u8,
        /// Its value.
        found: Bytes32,
        /// What it must be.
        expected: Bytes32,
    },
    /// The TPM's own output cannot be read.
    #[error("the TPM answered something unexpected: {0}")]
    Answer(#[from] AttestError),
}

impl TpmError {
    /// Whether the TPM did not answer at all: what libtss2 then says is not a TPM's response.
    pub(crate) fn is_silence(&self) -> bool {
        let (Self::Open { source, .. } | Self::Command { source, .. }) = self else { return false };
        matches!(source, tss_esapi::Error::Tss2Error(code) if code.kind().is_none())
    }

    pub(crate) fn command(command: &'static str) -> impl Fn(tss_esapi::Error) -> Self {
        move |source| Self::Command { command, source }
    }
}

impl Explain for TpmError {
    fn code(&self) -> &'static str {
        match self {
            Self::Open { .. } => "ATT-101",
            Self::Command { .. } => "ATT-102",
            Self::NoCertificate => "ATT-103",
            Self::NoBank => "ATT-104",
            Self::Unstable => "ATT-105",
            Self::Answer(_) => "ATT-106",
            Self::NotExtended { .. } => "ATT-107",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Open { .. } => {
                "give the VM a TPM 2.0 (launch_vm.sh starts swtpm), and load its driver"
            }
            Self::Command { .. } => {
                "restart the VM and its virtual TPM; if it happens again, manufacture the TPM's \
                 state anew"
            }
            Self::NoCertificate => {
                "manufacture the virtual TPM with `swtpm_setup --create-ek-cert`"
            }
            Self::NoBank => "manufacture the virtual TPM with `swtpm_setup --pcr-banks sha256`",
            Self::Unstable | Self::NotExtended { .. } => {
                "something else measures during boot: start the VM again"
            }
            Self::Answer(_) => "this TPM or libtss2 is not one that this program knows",
        }
        .into()
    }
}
