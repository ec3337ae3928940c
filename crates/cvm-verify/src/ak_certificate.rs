//! What a key holder states of an attestation key: that it lives in a TPM which the key holder saw
//! endorsed.
//!
//! RFC 9334's passport model. Credential activation proves to a key holder, once in each boot, that
//! an attestation key lives in an endorsed TPM; the key holder signs that, and peers who cannot
//! repeat the activation believe the parties of their own agreement. The statement says nothing of
//! the CVM's state: a fresh quote does. So it has no expiry, and a policy may bound its age.

use cvm_base::{Bytes, Bytes16, Bytes32, Explain};
use cvm_layout::{
    names::Name,
    signed::{self, Kind},
};
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use cvm_evidence::wire::Base64;

/// The one version this program reads and writes.
pub const VERSION: u32 = 1;
/// More than any certificate needs, in bytes; longer input is refused unread.
pub const MAX_BYTES: usize = 4096;
/// The most certificates of one CVM: a key holder gives one.
pub const MAX_CERTIFICATES: usize = 16;
/// TPM_ALG_SHA256, with which a TPM's Name begins.
const NAME_SHA256: [u8; 2] = [0x00, 0x0b];
/// Characters of [`AkStatement::trust`].
const MAX_TRUST: usize = 40;

/// What is stated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AkStatement {
    /// [`VERSION`].
    pub version: u32,
    /// The party whose key holder states it.
    pub party: Name,
    /// T of the agreement in which the party is one.
    pub transcript: Bytes32,
    /// The image whose boot showed the key.
    pub image_id: Bytes16,
    /// The key's TPM Name: `000b` and the SHA-256 of its TPMT_PUBLIC (TPM 2.0 part 1, §16).
    pub ak_name: Bytes<34>,
    /// SHA-256 of the root that endorses the TPM; null where evidence of another kind vouches for
    /// the key.
    pub ek_root_sha256: Option<Bytes32>,
    /// What the key holder's claims said of trust, as `untrusted-host`.
    pub trust: String,
    /// When, in seconds since 1970 UTC of the key holder's clock.
    pub issued_at: u64,
}

/// A statement's exact bytes, and the party's signature over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AkCertificate {
    statement: Base64,
    signature: Bytes<64>,
}

/// A certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AkCertificateError {
    /// Not of this form.
    #[error("the attestation key's certificate: {problem}")]
    Malformed {
        /// Expected and found.
        problem: String,
    },
    /// A statement of another party than the one whose key verifies it.
    #[error("the attestation key's certificate is party {found}'s, expected {expected}'s")]
    Party {
        /// Whose key was to verify it.
        expected: Name,
        /// Who it says it is from.
        found: Name,
    },
    /// The party did not sign it.
    #[error("the attestation key's certificate does not verify under party {party}'s identity")]
    Signature {
        /// Who it says it is from.
        party: Name,
    },
}

impl Explain for AkCertificateError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "ATT-501",
            Self::Party { .. } => "ATT-502",
            Self::Signature { .. } => "ATT-503",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Malformed { .. } => {
                "another program or version wrote it, or it was changed on the way"
            }
            Self::Party { .. } => {
                "use the certificate with the identity of the party that it names"
            }
            Self::Signature { .. } => {
                "it was changed, or is of another ceremony: boot the CVM again to get a new one"
            }
        }
        .into()
    }
}

fn malformed(problem: impl Into<String>) -> AkCertificateError {
    AkCertificateError::Malformed { problem: problem.into() }
}

fn check_length(bytes: &[u8]) -> Result<(), AkCertificateError> {
    if bytes.len() <= MAX_BYTES {
        Ok(())
    } else {
        Err(malformed(format!("{} bytes, at most {MAX_BYTES}", bytes.len())))
    }
}

impl AkStatement {
    /// Reads a statement's bytes. Nobody vouches for it before its signature is verified.
    ///
    /// # Errors
    /// [`AkCertificateError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, AkCertificateError> {
        check_length(bytes)?;
        let statement: Self =
            serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        if statement.version != VERSION {
            return Err(malformed(format!(
                "version {}, this program reads {VERSION}",
                statement.version
            )));
        }
        if !statement.ak_name.0.starts_with(&NAME_SHA256) {
            return Err(malformed(format!(
                "ak_name {} does not begin with 000b (SHA-256)",
                statement.ak_name
            )));
        }
        let word = |b: u8| b.is_ascii_lowercase() || b == b'-';
        if !(1..=MAX_TRUST).contains(&statement.trust.len()) || !statement.trust.bytes().all(word) {
            return Err(malformed(format!("trust is not 1 to {MAX_TRUST} of a-z and -")));
        }
        Ok(statement)
    }
}

impl AkCertificate {
    /// Signs a statement with the party's identity.
    pub fn sign(statement: &AkStatement, identity: &SigningKey) -> Self {
        // Serialization cannot fail: string keys only.
        let bytes = serde_json::to_vec(statement).unwrap_or_default();
        let signature = Bytes(signed::sign(identity, Kind::AttestationKey, &bytes));
        Self { statement: Base64(bytes), signature }
    }

    /// Reads one certificate.
    ///
    /// # Errors
    /// [`AkCertificateError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, AkCertificateError> {
        check_length(bytes)?;
        serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))
    }

    /// Reads a JSON array of certificates, as `cvm-init` leaves them in the running guest.
    ///
    /// # Errors
    /// [`AkCertificateError::Malformed`], also for more than [`MAX_CERTIFICATES`].
    pub fn parse_list(bytes: &[u8]) -> Result<Vec<Self>, AkCertificateError> {
        if bytes.len() > MAX_BYTES * MAX_CERTIFICATES {
            return Err(malformed(format!(
                "{} bytes, at most {}",
                bytes.len(),
                MAX_BYTES * MAX_CERTIFICATES
            )));
        }
        let list: Vec<Self> =
            serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        if list.len() > MAX_CERTIFICATES {
            return Err(malformed(format!("{} of them, at most {MAX_CERTIFICATES}", list.len())));
        }
        Ok(list)
    }

    /// Its JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Serialization cannot fail: string keys only.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What it claims before anybody verified it: whose key [`Self::verify`] needs.
    ///
    /// # Errors
    /// [`AkCertificateError::Malformed`].
    pub fn claimed(&self) -> Result<AkStatement, AkCertificateError> {
        AkStatement::parse(&self.statement.0)
    }

    /// The statement, once `identity`, which is `party`'s, is seen to have signed it.
    ///
    /// # Errors
    /// [`AkCertificateError`]: malformed, another party's, or not signed by it.
    pub fn verify(
        &self,
        party: &Name,
        identity: &VerifyingKey,
    ) -> Result<AkStatement, AkCertificateError> {
        check_length(&self.statement.0)?;
        signed::verify(identity, Kind::AttestationKey, &self.statement.0, &self.signature.0)
            .map_err(|_| AkCertificateError::Signature { party: party.clone() })?;
        let statement = self.claimed()?;
        if statement.party != *party {
            return Err(AkCertificateError::Party {
                expected: party.clone(),
                found: statement.party,
            });
        }
        Ok(statement)
    }

    /// SHA-256 over statement and signature: equal digests are equal certificates.
    pub fn digest(&self) -> Bytes32 {
        cvm_base::sha256(&[&self.statement.0[..], &self.signature.0].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> AkStatement {
        let mut name = [7; 34];
        name[..2].copy_from_slice(&NAME_SHA256);
        AkStatement {
            version: VERSION,
            party: "hospital-1".parse().unwrap(),
            transcript: Bytes([1; 32]),
            image_id: Bytes([2; 16]),
            ak_name: Bytes(name),
            ek_root_sha256: Some(Bytes([3; 32])),
            trust: "untrusted-host".into(),
            issued_at: 1_800_000_000,
        }
    }

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    #[test]
    fn what_was_signed_is_read_back() {
        let certificate = AkCertificate::sign(&statement(), &key());
        let read = AkCertificate::parse(&certificate.to_bytes()).unwrap();
        assert_eq!(read.verify(&statement().party, &key().verifying_key()).unwrap(), statement());
        let list = [b"[", &certificate.to_bytes()[..], b"]"].concat();
        assert_eq!(AkCertificate::parse_list(&list).unwrap(), [certificate]);
        assert_eq!(AkCertificate::parse_list(b"[]").unwrap(), []);
    }

    #[test]
    fn attack_a_certificate_of_another_party_or_key() {
        let certificate = AkCertificate::sign(&statement(), &key());
        let other: Name = "hospital-2".parse().unwrap();
        let found = certificate.verify(&other, &key().verifying_key());
        assert!(matches!(found, Err(AkCertificateError::Party { .. })), "{found:?}");
        let stranger = SigningKey::from_bytes(&[8; 32]).verifying_key();
        let found = certificate.verify(&statement().party, &stranger);
        assert!(matches!(found, Err(AkCertificateError::Signature { .. })), "{found:?}");
    }

    #[test]
    fn attack_a_signature_for_another_kind_of_document() {
        let bytes = serde_json::to_vec(&statement()).unwrap();
        let signature = Bytes(signed::sign(&key(), Kind::Reference, &bytes));
        let certificate = AkCertificate { statement: Base64(bytes), signature };
        assert!(certificate.verify(&statement().party, &key().verifying_key()).is_err());
    }

    #[test]
    fn attack_a_changed_statement() {
        let mut certificate = AkCertificate::sign(&statement(), &key());
        let at = certificate.statement.0.len() / 2;
        certificate.statement.0[at] ^= 1;
        let found = certificate.verify(&statement().party, &key().verifying_key());
        assert!(matches!(found, Err(AkCertificateError::Signature { .. })), "{found:?}");
    }

    #[test]
    fn other_forms_are_refused() {
        let good = serde_json::to_value(statement()).unwrap();
        for (member, value) in [
            ("version", 2.into()),
            ("ak_name", format!("000c{}", "07".repeat(32)).into()),
            ("trust", "".into()),
            ("trust", "a\nb".into()),
            ("more", 1.into()),
            ("issued_at", (-1).into()),
        ] {
            let mut other = good.clone();
            other[member] = value;
            let read = AkStatement::parse(other.to_string().as_bytes());
            assert!(
                matches!(read, Err(AkCertificateError::Malformed { .. })),
                "{member}: {read:?}"
            );
        }
        assert!(AkCertificate::parse(&[b' '; MAX_BYTES + 1]).is_err());
        assert!(AkCertificate::parse_list(&[b'['; 60_000]).is_err());
    }
}
