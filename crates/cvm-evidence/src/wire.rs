//! The JSON bodies of TPM evidence in the release protocol.
//!
//! The protocol carries them opaquely: [`HandshakeParams`] in `auth`'s `extra-params`,
//! [`CredentialChallenge`] in its answer's, [`TpmEvidence`] as `primary_evidence`. Every byte
//! string is standard base64 with padding.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cvm_base::Bytes32;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Bytes whose JSON form is standard base64 with padding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}

impl AsRef<[u8]> for Base64 {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Base64 {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

/// What a CVM shows first, so that the challenge can be sealed to its TPM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandshakeParams {
    /// The endorsement certificate, DER, from the TPM's NV memory.
    pub ek_certificate: Base64,
    /// The endorsement key, marshalled TPMT_PUBLIC.
    pub ek_public: Base64,
    /// The attestation key, marshalled TPMT_PUBLIC.
    pub ak_public: Base64,
}

/// A secret that only the TPM which holds both keys can recover (TPM2_ActivateCredential's inputs).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialChallenge {
    /// TPM2B_ID_OBJECT's buffer, without its two-byte size.
    pub credential_blob: Base64,
    /// TPM2B_ENCRYPTED_SECRET's buffer, without its two-byte size.
    pub encrypted_secret: Base64,
}

/// The evidence body: the stock protocol's `tpm` members, and three of ours.
///
/// Unknown members are ignored, as stock verifiers do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmEvidence {
    /// The attestation key as an X.509 SubjectPublicKeyInfo, DER.
    pub ak_public: Base64,
    /// The quote and the values it covers.
    pub tpm_quote: TpmQuote,
    /// The TCG PC Client event log, crypto-agile form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_log: Option<Base64>,
    /// The endorsement certificate, DER; the same as in [`HandshakeParams`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ek_certificate: Option<Base64>,
    /// What the TPM recovered from [`CredentialChallenge`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated_credential: Option<Base64>,
}

/// A TPM quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmQuote {
    /// Marshalled TPMT_SIGNATURE.
    pub signature: Base64,
    /// Marshalled TPMS_ATTEST.
    pub message: Base64,
    /// SHA-256 PCR values, hex, from PCR 0 on; 16 (those quoted) or, as stock clients send, 24.
    pub pcrs: Vec<Bytes32>,
}
