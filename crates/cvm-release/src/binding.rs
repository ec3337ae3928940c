//! The digest that ties evidence to the challenge and to the client's key.

use serde::Serialize;
use sha2::{Digest, Sha384};

use crate::messages::{RuntimeData, TeePubKey};

/// `SHA-384(JCS({"additional-evidence", "nonce", "tee-pubkey"}))`, 48 bytes.
///
/// SNP and TDX carry all 48 (zero-padded to 64) in REPORT_DATA; a TPM quote carries the first 32
/// as its qualifying data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding(pub [u8; 48]);

impl Binding {
    /// Computes the digest for primary evidence. `additional_evidence` is the JSON text of the
    /// additional evidence, `""` if none.
    pub fn new(runtime_data: &RuntimeData, additional_evidence: &str) -> Self {
        let canonical = Canonical {
            additional_evidence,
            nonce: &runtime_data.nonce,
            tee_pubkey: CanonicalKey::from(&runtime_data.tee_pubkey),
        };
        // A struct of strings always serialises.
        Self(Sha384::digest(serde_json::to_vec(&canonical).unwrap_or_default()).into())
    }

    /// The digest for devices beside the primary TEE: `SHA-384(JCS({"nonce", "tee-pubkey"}))`. It
    /// leaves the additional evidence out, which is made of theirs; the primary evidence binds
    /// that.
    pub fn of_devices(runtime_data: &RuntimeData) -> Self {
        let canonical = CanonicalOfDevices {
            nonce: &runtime_data.nonce,
            tee_pubkey: CanonicalKey::from(&runtime_data.tee_pubkey),
        };
        Self(Sha384::digest(serde_json::to_vec(&canonical).unwrap_or_default()).into())
    }
}

// RFC 8785 orders members by name, and the fields below stand in that order; for strings its
// escapes are exactly those of serde_json. No number ever appears, so no other rule applies.

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Canonical<'a> {
    additional_evidence: &'a str,
    nonce: &'a str,
    tee_pubkey: CanonicalKey<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct CanonicalOfDevices<'a> {
    nonce: &'a str,
    tee_pubkey: CanonicalKey<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum CanonicalKey<'a> {
    Ec { alg: &'a str, crv: &'a str, kty: &'a str, x: &'a str, y: &'a str },
    Rsa { alg: &'a str, e: &'a str, kty: &'a str, n: &'a str },
}

impl<'a> From<&'a TeePubKey> for CanonicalKey<'a> {
    fn from(key: &'a TeePubKey) -> Self {
        match key {
            TeePubKey::EC { alg, crv, x, y } => Self::Ec { alg, crv, kty: "EC", x, y },
            TeePubKey::RSA { alg, e, n } => Self::Rsa { alg, e, kty: "RSA", n },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> RuntimeData {
        serde_json::from_str(
            r#"{"nonce":"bm9uY2U=","tee-pubkey":{"y":"eQ","x":"eA","kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","kid":"dropped"}}"#,
        )
        .unwrap()
    }

    /// The digest is Python's `hashlib.sha384` over the text written out by hand.
    #[test]
    fn the_binding_is_the_digest_of_the_canonical_json() {
        let expected = "412a2cd46689a873a3606a62cc5dadd837d33a7dfe3706531ba537d4c21eb3dfb6a4639a2302472555aa3430cee0bc4e";
        let binding = Binding::new(&data(), "");
        assert_eq!(hex::encode(binding.0), expected);
    }

    #[test]
    fn devices_bind_nonce_and_key_alone() {
        let text = r#"{"nonce":"bm9uY2U=","tee-pubkey":{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"eA","y":"eQ"}}"#;
        assert_eq!(Binding::of_devices(&data()).0.as_slice(), Sha384::digest(text).as_slice());
    }

    #[test]
    fn strings_are_escaped_as_rfc_8785_says() {
        let text = r#"{"additional-evidence":"{\"a\":\"\u0001ü\n\"}","nonce":"bm9uY2U=","tee-pubkey":{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"eA","y":"eQ"}}"#;
        let binding = Binding::new(&data(), "{\"a\":\"\u{1}ü\n\"}");
        assert_eq!(binding.0.as_slice(), Sha384::digest(text).as_slice());
    }
}
