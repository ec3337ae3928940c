//! Why a TPM quote was refused.

use cvm_base::Explain;

use crate::x509::X509Error;
use cvm_evidence::{
    AttestError,
    tpm::{Digest, HashAlg},
};

/// A quote, or something shown with it, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TpmError {
    /// A structure that cannot be read, or a key that could sign anything.
    #[error(transparent)]
    Structure(#[from] AttestError),
    /// The key did not sign this message.
    #[error("the quote's signature does not verify under the attestation key ({scheme})")]
    Signature {
        /// The scheme tried.
        scheme: String,
    },
    /// A scheme that is not the key's, or one that is not believed.
    #[error("the signature uses {found}, expected {expected}")]
    Scheme {
        /// The signature's.
        found: String,
        /// The key's, or those that are believed.
        expected: String,
    },
    /// A quote over another nonce.
    #[error("the quote is bound to the nonce {found}, not to the expected {expected}")]
    Nonce {
        /// The verifier's, hex.
        expected: String,
        /// The quote's `extraData`, hex.
        found: String,
    },
    /// A nonce without bytes, which every quote can answer.
    #[error("the expected nonce is empty")]
    EmptyNonce,
    /// A bank that the policy does not accept, or that is unknown here.
    #[error("the quote selects {found}, and {problem}")]
    Bank {
        /// The quote's selection.
        found: String,
        /// Why it is refused.
        problem: String,
    },
    /// A selection that covers nothing, names a bank twice, or lacks a register.
    #[error("the quote selects {found}, but {problem}")]
    Selection {
        /// The quote's selection.
        found: String,
        /// What is missing.
        problem: String,
    },
    /// The values shown are not those that were quoted.
    #[error("the PCR values shown hash to {found}, the quote over {selection} says {quoted}")]
    PcrDigest {
        /// Over the values shown.
        found: String,
        /// The quote's.
        quoted: String,
        /// The registers covered.
        selection: String,
    },
    /// The event log does not lead to the quoted value.
    #[error(
        "the event log replays {bank} PCR {register} to {replayed}, the quote says {quoted}: \
         {reason}"
    )]
    Replay {
        /// The bank.
        bank: HashAlg,
        /// The register.
        register: u32,
        /// What the log leads to.
        replayed: Box<Digest>,
        /// What the TPM said.
        quoted: Box<Digest>,
        /// The first event that differs, as far as that can be told.
        reason: String,
    },
    /// What was to endorse the attestation key does not.
    #[error("the attestation key is not endorsed: {problem}")]
    Endorsement {
        /// What the certificate lacks.
        problem: String,
    },
    /// The attestation key's certificate leads to no trusted root.
    #[error("the attestation key's certificate: {0}")]
    Certificate(#[from] X509Error),
}

impl Explain for TpmError {
    fn code(&self) -> &'static str {
        match self {
            Self::Structure(error) => error.code(),
            Self::Signature { .. } => "ATT-330",
            Self::Scheme { .. } => "ATT-331",
            Self::Nonce { .. } => "ATT-332",
            Self::EmptyNonce => "ATT-333",
            Self::Bank { .. } => "ATT-334",
            Self::Selection { .. } => "ATT-335",
            Self::PcrDigest { .. } => "ATT-336",
            Self::Replay { .. } => "ATT-337",
            Self::Endorsement { .. } => "ATT-338",
            Self::Certificate(_) => "ATT-339",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Structure(error) => return error.help(),
            Self::Signature { .. } => {
                "another key signed it, or the message or signature was changed"
            }
            Self::Scheme { .. } => {
                "give the signature that this key made; SHA-1 signatures are not believed"
            }
            Self::Nonce { .. } => {
                "a replayed quote, or one made for somebody else: ask for a new one with your nonce"
            }
            Self::EmptyNonce => {
                "choose a random nonce, at least 16 bytes, and have the TPM quote it"
            }
            Self::Bank { .. } => {
                "quote the sha256 or sha384 bank; a policy may allow sha1, whose collisions are \
                 practical"
            }
            Self::Selection { .. } => {
                "quote the registers that the policy needs, and show a value for each of them"
            }
            Self::PcrDigest { .. } => {
                "the values were read at another time than the quote was made, or were changed"
            }
            Self::Replay { .. } => {
                "give the log of the same boot; otherwise software measured without logging it"
            }
            Self::Endorsement { .. } => {
                "give the certificate that was issued for this attestation key"
            }
            Self::Certificate(_) => "give the issuer's root and intermediates, and check the time",
        }
        .into()
    }
}
