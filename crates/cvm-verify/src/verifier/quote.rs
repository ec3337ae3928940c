//! A quote's signature, nonce, selection and values.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA256, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use cvm_base::Bytes32;

use cvm_evidence::{
    AttestError,
    tpm::{HashAlg, Key, PcrSelection, Public, Quote, REQUIRED_PCRS, Signature},
};

const SHA256: u16 = 0x000b;
const SHA384: u16 = 0x000c;

/// Verifies a quote's signature with the key's own scheme; another scheme or hash is a bad
/// signature.
pub(super) fn check_signature(
    ak: &Public,
    message: &[u8],
    signature: &Signature,
) -> Result<(), AttestError> {
    let (scheme, _) = ak.scheme();
    match (ak.key(), scheme, signature) {
        (Key::P256 { point }, 0x0018, Signature::Ecdsa(SHA256, r, s)) => {
            let fixed = fixed::<32>(r, s).ok_or(AttestError::QuoteSignature)?;
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, uncompressed(point))
                .verify(message, &fixed)
        }
        (Key::P384 { point }, 0x0018, Signature::Ecdsa(SHA384, r, s)) => {
            let fixed = fixed::<48>(r, s).ok_or(AttestError::QuoteSignature)?;
            UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, uncompressed(point))
                .verify(message, &fixed)
        }
        (Key::Rsa { modulus, exponent }, 0x0014, Signature::RsaSsa(SHA256, bytes)) => {
            rsa(modulus, *exponent, &RSA_PKCS1_2048_8192_SHA256, message, bytes)
        }
        (Key::Rsa { modulus, exponent }, 0x0016, Signature::RsaPss(SHA256, bytes)) => {
            rsa(modulus, *exponent, &RSA_PSS_2048_8192_SHA256, message, bytes)
        }
        _ => return Err(AttestError::QuoteSignature),
    }
    .map_err(|_| AttestError::QuoteSignature)
}

/// Checks a parsed quote against the session and returns the values it covers.
///
/// `hash` is the signature's: a TPM makes the quote's digest over the values with the same one
/// (part 3, §18.4).
pub(super) fn check(
    quote: &Quote,
    nonce: &[u8],
    shown: &[Bytes32],
    hash: HashAlg,
) -> Result<[Bytes32; REQUIRED_PCRS], AttestError> {
    if quote.nonce != nonce {
        return Err(AttestError::Nonce {
            expected: hex::encode(nonce),
            found: hex::encode(&quote.nonce),
        });
    }
    // The digest alone does not say which registers it covers: a quote over PCR 16 to 23 could pose
    // as one over 0 to 7.
    if quote.selection != [PcrSelection::required()] {
        let found = quote.selection.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
        return Err(AttestError::Selection {
            found: if found.is_empty() { "nothing".into() } else { found },
        });
    }
    // Stock clients show all 24 registers; nobody claims those after the quoted ones.
    if shown.len() != REQUIRED_PCRS && shown.len() != 24 {
        return Err(AttestError::malformed(
            "tpm evidence",
            format!("{} PCR values, expected 16 or 24", shown.len()),
        ));
    }
    let pcrs: [Bytes32; REQUIRED_PCRS] =
        shown.get(..REQUIRED_PCRS).and_then(|s| s.try_into().ok()).ok_or(AttestError::PcrDigest)?;
    if hash.digest(pcrs.iter().map(|pcr| &pcr.0[..])).as_bytes() != quote.pcr_digest {
        return Err(AttestError::PcrDigest);
    }
    Ok(pcrs)
}

fn rsa(
    modulus: &[u8],
    exponent: u32,
    parameters: &RsaParameters,
    message: &[u8],
    signature: &[u8],
) -> Result<(), aws_lc_rs::error::Unspecified> {
    let e = exponent.to_be_bytes();
    let e = e.split_at(e.iter().take_while(|b| **b == 0).count()).1;
    RsaPublicKeyComponents { n: modulus, e }.verify(parameters, message, signature)
}

fn uncompressed(point: &[u8]) -> Vec<u8> {
    [&[4], point].concat()
}

/// r ‖ s, each padded to `N` bytes.
fn fixed<const N: usize>(r: &[u8], s: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0; 2 * N];
    for (half, value) in out.chunks_exact_mut(N).zip([r, s]) {
        half.get_mut(N.checked_sub(value.len())?..)?.copy_from_slice(value);
    }
    Some(out)
}
