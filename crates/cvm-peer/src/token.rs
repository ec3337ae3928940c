//! The token: what one site shows to another. Python carries it and never looks inside.
//!
//! `base64url(JSON)` without padding. The JSON holds a [`Statement`], evidence whose nonce is the
//! statement's SHA-384, and everything that a verifier needs to judge the evidence: the image's
//! signed documents and the certificates of its attestation key. Nothing in it is believed because
//! it is in it.
//!
//! Where a machine has GPUs, their evidence goes beside the CPU's (module `devices`).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cvm_base::{Bytes16, Bytes32, json::check_shape};
use cvm_evidence::wire::Base64;
use cvm_layout::{
    agent_conf, manifest,
    names::{Name, Role},
    p1,
};
use cvm_verify::ak_certificate::{AkCertificate, MAX_CERTIFICATES};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha384};

use crate::{error::AgentRefusal, evidence::Evidence};

/// The one version this program reads and writes.
pub const VERSION: u32 = 1;
/// The longest token, in characters. Longer ones are refused unread. p1's collateral, the image's
/// documents and the evidence of sixteen GPUs together take less.
/// `flare_cvm.agent_client.MAX_TOKEN` is the same number.
pub const MAX_BYTES: usize = 1536 * 1024;
const _: () = assert!(
    // Documents are in base64 in the JSON; all of the JSON is again.
    (p1::MAX_COLLATERAL_BYTES + 2 * manifest::MAX_BYTES * 4 / 3 + 2 * 150 * 1024) * 4 / 3
        < MAX_BYTES as u64
        && MAX_BYTES + 64 * 1024 < crate::limits::MAX_MESSAGE
);
/// The longest window that a verifier accepts.
pub const MAX_LIFETIME_S: u64 = *agent_conf::TOKEN_LIFETIME_S.end();

/// To whom a token is shown. One for an auditor, who chooses any challenge, does not count between
/// sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// Another site of the federation.
    Peer,
    /// This CVM's own agent.
    Own,
    /// Whoever asks the node's port.
    Audit,
}

impl Use {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Own => "own",
            Self::Audit => "audit",
        }
    }
}

/// What the token says; the evidence is bound to it.
///
/// The members are in the order of RFC 8785, and are numbers below 2^53, hex and names. So their
/// serialization is the canonical one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// SHA-256 of the text of [`Token::additional_evidence`]; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_evidence_sha256: Option<Bytes32>,
    /// The verifier's.
    pub challenge: Option<Bytes32>,
    /// Seconds since 1970 UTC.
    pub expires_at: u64,
    /// Random: no two statements are equal.
    pub id: Bytes16,
    /// The image that runs.
    pub image_id: Bytes16,
    /// Seconds since 1970 UTC, of the issuer's clock.
    pub issued_at: u64,
    /// SHA-256 of a report that is shown with it.
    pub report_sha256: Option<Bytes32>,
    /// What the site does.
    pub role: Role,
    /// The site.
    pub site: Name,
    /// SHA-256 of the certificate (DER) that the site uses in NVFLARE.
    pub tls_cert_sha256: Option<Bytes32>,
    /// T of the federation's agreement.
    pub transcript: Bytes32,
    /// To whom it is shown.
    #[serde(rename = "use")]
    pub use_: Use,
}

impl Statement {
    /// SHA-384 of the canonical JSON: what evidence carries as its nonce.
    pub fn digest(&self) -> [u8; 48] {
        // A struct of strings and integers always serialises.
        Sha384::digest(serde_json::to_vec(self).unwrap_or_default()).into()
    }

    /// What the devices beside the CPU carry as their nonce: all of the statement but the digest of
    /// their own evidence.
    pub fn device_digest(&self) -> [u8; 48] {
        Self { additional_evidence_sha256: None, ..self.clone() }.digest()
    }
}

/// The image's documents, as the builder signed them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageDocuments {
    /// `manifest.json`.
    pub manifest: Base64,
    /// 64 bytes.
    pub manifest_sig: Base64,
    /// `reference.json`.
    pub reference: Base64,
    /// 64 bytes.
    pub reference_sig: Base64,
}

/// A parsed token: well formed, and not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What it says.
    pub statement: Statement,
    /// What proves it.
    pub evidence: Evidence,
    /// The GPUs': the text of the release protocol's `additional_evidence`.
    pub additional_evidence: Option<String>,
    /// What judges the evidence.
    pub documents: ImageDocuments,
    /// Who vouches for its attestation key.
    pub ak_certificates: Vec<AkCertificate>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: u32,
    statement: Statement,
    kind: String,
    evidence: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    additional_evidence: Option<String>,
    documents: ImageDocuments,
    ak_certificates: Vec<AkCertificate>,
}

impl Token {
    /// Reads a token's text.
    ///
    /// # Errors
    /// [`AgentRefusal::Malformed`] or [`AgentRefusal::Kind`].
    pub fn parse(text: &str) -> Result<Self, AgentRefusal> {
        if text.len() > MAX_BYTES {
            return Err(AgentRefusal::malformed(format!(
                "{} characters, at most {MAX_BYTES} are read",
                text.len()
            )));
        }
        let json = URL_SAFE_NO_PAD.decode(text).map_err(AgentRefusal::malformed)?;
        check_shape(&json).map_err(AgentRefusal::malformed)?;
        let wire: Wire = serde_json::from_slice(&json).map_err(AgentRefusal::malformed)?;
        if wire.v != VERSION {
            return Err(AgentRefusal::malformed(format!(
                "version {}, this program reads {VERSION}",
                wire.v
            )));
        }
        if wire.ak_certificates.len() > MAX_CERTIFICATES {
            return Err(AgentRefusal::malformed(format!(
                "more than {MAX_CERTIFICATES} certificates"
            )));
        }
        // Above, RFC 8785 would write numbers in another form.
        if wire.statement.expires_at >= 1 << 53 || wire.statement.issued_at >= 1 << 53 {
            return Err(AgentRefusal::malformed("its times are out of range"));
        }
        let evidence = Evidence::from_json(&wire.kind, &wire.evidence)?;
        let Wire { statement, additional_evidence, documents, ak_certificates, .. } = wire;
        Ok(Self { statement, evidence, additional_evidence, documents, ak_certificates })
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`AgentRefusal::NoEvidence`] when it is longer than [`MAX_BYTES`],
    /// [`AgentRefusal::Malformed`] for a body that is not JSON.
    pub fn text(&self) -> Result<String, AgentRefusal> {
        let wire = Wire {
            v: VERSION,
            statement: self.statement.clone(),
            kind: self.evidence.kind().into(),
            evidence: self.evidence.to_json().map_err(AgentRefusal::malformed)?,
            additional_evidence: self.additional_evidence.clone(),
            documents: self.documents.clone(),
            ak_certificates: self.ak_certificates.clone(),
        };
        // String keys only: serialization cannot fail.
        let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default());
        if text.len() > MAX_BYTES {
            let problem = format!(
                "the token would have {} characters, at most {MAX_BYTES} allowed",
                text.len()
            );
            return Err(AgentRefusal::NoEvidence { problem });
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use cvm_base::Bytes;

    use super::*;

    fn statement() -> Statement {
        Statement {
            additional_evidence_sha256: None,
            challenge: None,
            expires_at: 1_800_000_300,
            id: Bytes([1; 16]),
            image_id: Bytes([2; 16]),
            issued_at: 1_800_000_000,
            report_sha256: None,
            role: Role::Client,
            site: "site-1".parse().unwrap(),
            tls_cert_sha256: Some(Bytes([3; 32])),
            transcript: Bytes([4; 32]),
            use_: Use::Peer,
        }
    }

    /// RFC 8785 sorts members; a field in another place would change the digest silently.
    #[test]
    fn a_statement_serialises_canonically() {
        let with_gpus =
            Statement { additional_evidence_sha256: Some(Bytes([5; 32])), ..statement() };
        for statement in [statement(), with_gpus.clone()] {
            let text = serde_json::to_string(&statement).unwrap();
            let members: std::collections::BTreeMap<String, serde_json::Value> =
                serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&members).unwrap(), text);
        }
        let other = Statement { use_: Use::Audit, ..statement() };
        assert_ne!(statement().digest(), other.digest());
        assert_ne!(statement().digest(), with_gpus.digest());
        assert_eq!(
            with_gpus.device_digest(),
            statement().digest(),
            "devices answer before their evidence is there"
        );
    }

    #[test]
    fn attack_a_huge_token() {
        // The length is looked at before anything is decoded or allocated.
        let huge = "A".repeat(64 << 20);
        assert!(matches!(Token::parse(&huge), Err(AgentRefusal::Malformed { .. })));
        let nested = URL_SAFE_NO_PAD.encode("[".repeat(150_000));
        assert!(matches!(Token::parse(&nested), Err(AgentRefusal::Malformed { .. })));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        let long = URL_SAFE_NO_PAD.encode("{}");
        for text in ["", "=", "e30=", "é", "a b", "eyJ2IjoxfQ", &long] {
            assert!(matches!(Token::parse(text), Err(AgentRefusal::Malformed { .. })), "{text}");
        }
    }
}
