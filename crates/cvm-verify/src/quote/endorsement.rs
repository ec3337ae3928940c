//! A certificate of the attestation key.

use cvm_base::{Bytes32, sha256};

use super::{AttestationKey, TpmError};
use crate::{
    NotChecked,
    x509::{self, Certificate},
};

/// tcg-kp-AIKCertificate (TCG EK Credential Profile §3.2.16): what attestation keys' certificates
/// are for.
const AK_USAGE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x03];

/// What binds an attestation key to a TPM that somebody made: its certificate and the way to a
/// root.
#[derive(Debug, Clone, Copy)]
pub struct AkEndorsement<'a> {
    /// The attestation key's certificate.
    pub certificate: &'a Certificate,
    /// Intermediates, roots and revocation lists.
    pub path: x509::Path<'a>,
}

pub(super) fn check(
    ak: &AttestationKey,
    endorsement: &AkEndorsement<'_>,
    now: u64,
    not_checked: &mut Vec<NotChecked>,
) -> Result<Bytes32, TpmError> {
    if endorsement.certificate.public_key() != ak.public_key_bits() {
        return Err(TpmError::Endorsement { problem: "the certificate is another key's".into() });
    }
    let root = endorsement.path.verify_for(endorsement.certificate, AK_USAGE, now)?;
    if endorsement.path.crls.is_empty() {
        not_checked.push(NotChecked::new("certificate-revocation", "no revocation list was given"));
    }
    Ok(sha256(root.der()))
}
