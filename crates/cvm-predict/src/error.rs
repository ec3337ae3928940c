//! Why measurements could not be predicted.

use cvm_base::Explain;

/// A bundle's files do not allow a prediction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PredictError {
    /// Not a PE32+ image, or one that firmware would refuse.
    #[error("the {image} is not a loadable PE32+ image: {problem}")]
    Image {
        /// Which file.
        image: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// No signature.
    #[error("the {image} is not signed")]
    Unsigned {
        /// Which file.
        image: &'static str,
    },
    /// Its signature is over other bytes.
    #[error("the {image} was changed after it was signed")]
    Changed {
        /// Which file.
        image: &'static str,
    },
    /// No db entry authorises it.
    #[error("the {image} is not signed by a certificate in db")]
    NotAuthorised {
        /// Which file.
        image: &'static str,
    },
    /// A section is missing.
    #[error("the {image} has no {section} section")]
    Section {
        /// Which file.
        image: &'static str,
        /// The section's name.
        section: String,
    },
    /// Signature lists that cannot be read.
    #[error("the variable {name} is not a list of EFI_SIGNATURE_LISTs: {problem}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Firmware that cannot be a TD's.
    #[error("the firmware cannot start a TD: {problem}")]
    Firmware {
        /// What is wrong with it.
        problem: String,
    },
    /// A command line that the loader would change.
    #[error("the UKI's command line holds something other than printable ASCII")]
    CommandLine,
}

impl Explain for PredictError {
    fn code(&self) -> &'static str {
        match self {
            Self::Image { .. } => "ATT-401",
            Self::Unsigned { .. } => "ATT-402",
            Self::Changed { .. } => "ATT-403",
            Self::NotAuthorised { .. } => "ATT-404",
            Self::Section { .. } => "ATT-405",
            Self::Variable { .. } => "ATT-406",
            Self::CommandLine => "ATT-407",
            Self::Firmware { .. } => "ATT-408",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Image { .. } | Self::Section { .. } => "give the files that the build made",
            Self::Unsigned { .. } | Self::Changed { .. } => {
                "sign the file last, with the project's db key"
            }
            Self::NotAuthorised { .. } => {
                "sign it with the key whose certificate the bundle's db holds"
            }
            Self::Variable { .. } => {
                "give the variable's raw content, without efivarfs's four attribute bytes"
            }
            Self::Firmware { .. } => {
                "give the whole image, code and variables, of an OVMF with TDX metadata (Debian: \
                 OVMF.fd)"
            }
            Self::CommandLine => "write .cmdline without a newline or NUL at its end",
        }
        .into()
    }
}
