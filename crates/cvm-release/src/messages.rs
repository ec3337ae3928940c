//! The protocol's JSON messages, as Trustee v0.21 reads and writes them.
//!
//! Own types instead of the `kbs-types` crate: with `std` that crate pulls in an EAR and COSE stack
//! and a second SHA-2, and its JWE type re-encodes the protected header before it is checked.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The one protocol version; anything else, 0.4.1 included, is refused.
pub const VERSION: &str = "0.4.0";
/// What the `type` of every error begins with.
pub const ERROR_PREFIX: &str = "https://github.com/confidential-containers/kbs/errors/";

/// The kinds of evidence that the protocol names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tee {
    /// Azure CVM on SEV-SNP, through its vTPM.
    #[serde(rename = "az-snp-vtpm")]
    AzSnpVtpm,
    /// Azure CVM on TDX, through its vTPM.
    #[serde(rename = "az-tdx-vtpm")]
    AzTdxVtpm,
    /// NVIDIA GPU.
    Nvidia,
    /// Intel SGX.
    Sgx,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// Arm CCA.
    Cca,
    /// Hygon CSV.
    Csv,
    /// IBM Secure Execution.
    Se,
    /// Hygon DCU.
    HygonDcu,
    /// NVIDIA DPU.
    #[serde(rename = "nvidia-dpu", alias = "nvidiadpu")]
    NvidiaDpu,
    /// TPM 2.0.
    Tpm,
    /// For tests of the protocol; proves nothing.
    Sample,
    /// For tests of the protocol; proves nothing.
    SampleDevice,
}

impl Tee {
    /// The name on the wire and in a policy's input.
    pub fn name(self) -> &'static str {
        match self {
            Self::AzSnpVtpm => "az-snp-vtpm",
            Self::AzTdxVtpm => "az-tdx-vtpm",
            Self::Nvidia => "nvidia",
            Self::Sgx => "sgx",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
            Self::Cca => "cca",
            Self::Csv => "csv",
            Self::Se => "se",
            Self::HygonDcu => "hygondcu",
            Self::NvidiaDpu => "nvidia-dpu",
            Self::Tpm => "tpm",
            Self::Sample => "sample",
            Self::SampleDevice => "sampledevice",
        }
    }
}

/// Body of POST `auth`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuthRequest {
    /// [`VERSION`].
    pub version: String,
    /// What will be shown.
    pub tee: Tee,
    /// What the kind of evidence sends before the challenge; `""` if nothing. Must be present.
    #[serde(rename = "extra-params")]
    pub extra_params: Value,
}

/// Answer to `auth`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Challenge {
    /// Standard base64 of 32 random bytes; opaque to a client.
    pub nonce: String,
    /// Answer to the request's; `""` if none.
    #[serde(rename = "extra-params")]
    pub extra_params: Value,
}

/// The key that a release is encrypted to, as a JWK. Members that are not named here are dropped,
/// and so take no part in the binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kty")]
pub enum TeePubKey {
    /// An elliptic-curve key (RFC 7518 §6.2).
    EC {
        /// `ECDH-ES+A256KW`.
        alg: String,
        /// `P-256`; the protocol also knows `P-521`.
        crv: String,
        /// Base64url without padding of the 32-byte coordinate.
        x: String,
        /// As `x`.
        y: String,
    },
    /// An RSA key (RFC 7518 §6.3).
    RSA {
        /// `RSA-OAEP-256`.
        alg: String,
        /// Exponent.
        e: String,
        /// Modulus.
        n: String,
    },
}

/// A flattened JWE. Every member is base64url without padding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwe {
    /// JSON of the protected header; its base64url text is the additional authenticated data.
    pub protected: String,
    /// The wrapped content key, 40 bytes.
    pub encrypted_key: String,
    /// 12 bytes.
    pub iv: String,
    /// As long as the plaintext.
    pub ciphertext: String,
    /// 16 bytes.
    pub tag: String,
}

/// What the evidence is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeData {
    /// The challenge's nonce, character for character.
    pub nonce: String,
    /// The client's key.
    #[serde(rename = "tee-pubkey")]
    pub tee_pubkey: TeePubKey,
}

/// Evidence of the primary TEE and of its devices. Its members are in snake case.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompositeEvidence {
    /// The evidence; its shape depends on the TEE.
    pub primary_evidence: Value,
    /// JSON text of a map from TEE to evidence, or `""`.
    pub additional_evidence: String,
}

/// Body of POST `attest`. Its members are in kebab case.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Attestation {
    /// Initialisation data of the guest. Our client sends null, and our server refuses any.
    pub init_data: Option<Value>,
    /// Nonce and key.
    pub runtime_data: RuntimeData,
    /// The evidence.
    pub tee_evidence: CompositeEvidence,
}

/// Answer to `attest`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    /// A JWT; opaque to a client.
    pub token: String,
}

/// Body of every refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInformation {
    /// [`ERROR_PREFIX`] and the error's name.
    #[serde(rename = "type")]
    pub error_type: String,
    /// For people.
    pub detail: String,
}

/// Answer to GET `seal`: what a key holder remembers of an image's split-key partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealAnswer {
    /// SHA-256 of the whole 1 MiB header area; null before the first boot registered one.
    pub header_sha256: Option<cvm_base::Bytes32>,
    /// The third factor.
    pub machine: MachineAnswer,
}

/// What a key holder's policy and memory say of the third factor, the machine's own secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineAnswer {
    /// What the policy allows to this evidence.
    pub allowed: MachineRule,
    /// The image's keys need a machine's secret, and this key holder has a share of it.
    pub bound: bool,
    /// The share, once the operator allowed the image to move.
    pub share: Option<Jwe>,
}

/// What a policy allows to evidence besides the release: its rule `machine`, a set of these words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineRule {
    /// `"bind"`: this TPM may keep the image's third factor.
    pub bind: bool,
    /// `"offline"`: this TPM may keep p3's key, so that p3 opens without the network.
    pub offline: bool,
}

/// Body of POST `seal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterSeal {
    /// SHA-256 of the whole 1 MiB header area.
    pub header_sha256: cvm_base::Bytes32,
    /// This party's share of the machine's secret, 64 hex digits; absent where the image is not
    /// bound to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<zeroize::Zeroizing<String>>,
}

/// Body of PUT `image`: what the builder signed, in standard base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresentImage {
    /// `manifest.json`.
    #[serde(with = "base64_bytes")]
    pub manifest: Vec<u8>,
    /// `manifest.sig`.
    #[serde(with = "base64_bytes")]
    pub manifest_sig: Vec<u8>,
    /// `reference.json`.
    #[serde(with = "base64_bytes")]
    pub reference: Vec<u8>,
    /// `reference.sig`.
    #[serde(with = "base64_bytes")]
    pub reference_sig: Vec<u8>,
    /// `enrolment.txt`; older images have none, and no key holder enrols those by what they
    /// present.
    #[serde(default, with = "base64_bytes")]
    pub enrolment: Vec<u8>,
}

/// The name of the error by which a client learns that it may present its image's documents.
pub const NOT_ENROLLED: &str = "ImageNotEnrolled";

mod base64_bytes {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(d)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_bytes_that_kbs_md_shows() {
        let request =
            AuthRequest { version: VERSION.into(), tee: Tee::Snp, extra_params: "".into() };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"version":"0.4.0","tee":"snp","extra-params":""}"#
        );
        let attestation = Attestation {
            init_data: None,
            runtime_data: RuntimeData {
                nonce: "n".into(),
                tee_pubkey: TeePubKey::EC {
                    alg: "a".into(),
                    crv: "P-256".into(),
                    x: "x".into(),
                    y: "y".into(),
                },
            },
            tee_evidence: CompositeEvidence {
                primary_evidence: Value::Null,
                additional_evidence: String::new(),
            },
        };
        assert_eq!(
            serde_json::to_string(&attestation).unwrap(),
            concat!(
                r#"{"init-data":null,"runtime-data":{"nonce":"n","tee-pubkey":{"kty":"EC","#,
                r#""alg":"a","crv":"P-256","x":"x","y":"y"}},"#,
                r#""tee-evidence":{"primary_evidence":null,"additional_evidence":""}}"#
            )
        );
    }

    #[test]
    fn every_tee_has_one_name() {
        for name in "az-snp-vtpm az-tdx-vtpm nvidia sgx snp tdx cca csv se hygondcu nvidia-dpu tpm \
            sample sampledevice"
            .split(' ')
        {
            let tee: Tee = serde_json::from_value(name.into()).unwrap();
            assert_eq!(tee.name(), name);
            assert_eq!(serde_json::to_value(tee).unwrap(), name);
        }
    }

    #[test]
    fn extra_params_must_be_present() {
        assert!(serde_json::from_str::<AuthRequest>(r#"{"version":"0.4.0","tee":"snp"}"#).is_err());
    }
}
