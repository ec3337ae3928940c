//! A TPM 2.0 quote alone, without flare-cvm's release protocol around it: message, signature,
//! attestation key, PCR values and an event log in, claims out.
//!
//! What such a quote proves depends on the attestation key. [`crate::verify`] binds it to an
//! endorsed TPM by credential activation; here a certificate may, and otherwise the claims say
//! `not_checked: ak-endorsement`.

mod claims;
mod endorsement;
mod error;
mod evidence;
mod key;
mod nonce;
mod policy;
mod replay;
mod selection;
mod sign;
mod values;
mod verify;

pub(crate) use self::sign::is_ecdsa_signature;
pub use self::{
    claims::{QuoteClaims, Registers},
    endorsement::AkEndorsement,
    error::TpmError,
    evidence::QuoteEvidence,
    key::AttestationKey,
    nonce::Nonce,
    policy::TpmPolicy,
    values::PcrValues,
    verify::verify,
};
