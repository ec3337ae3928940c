//! TPMT_SIGNATURE (TPM 2.0 part 2, §11.3.4).

use super::Reader;
use crate::AttestError;

/// A signature as a TPM marshals it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// RSASSA-PKCS1-v1_5; the hash's TPM_ALG_ID and the signature, big-endian.
    RsaSsa(u16, Vec<u8>),
    /// RSASSA-PSS.
    RsaPss(u16, Vec<u8>),
    /// ECDSA: the hash's TPM_ALG_ID, r and s, big-endian, at most 48 bytes each.
    Ecdsa(u16, Vec<u8>, Vec<u8>),
}

/// Reads a marshalled TPMT_SIGNATURE: RSASSA, RSAPSS or ECDSA.
///
/// # Errors
/// [`AttestError::Malformed`] for another scheme, a size out of bounds, or trailing bytes.
pub fn parse_signature(bytes: &[u8]) -> Result<Signature, AttestError> {
    let mut r = Reader::new("TPMT_SIGNATURE", bytes);
    let scheme = r.u16()?;
    let hash = r.u16()?;
    let signature = match scheme {
        0x0014 => Signature::RsaSsa(hash, r.sized(512)?.to_vec()),
        0x0016 => Signature::RsaPss(hash, r.sized(512)?.to_vec()),
        0x0018 => Signature::Ecdsa(hash, r.sized(48)?.to_vec(), r.sized(48)?.to_vec()),
        other => {
            return Err(r.error(format!("scheme {other:#06x}, expected RSASSA, RSAPSS or ECDSA")));
        }
    };
    r.end()?;
    Ok(signature)
}
