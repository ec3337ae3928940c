//! What path validation found, in words.

use cvm_base::time::rfc3339;
use rustls_pki_types::UnixTime;

/// What path validation found, without the names of its variants.
pub(crate) fn in_words(error: &webpki::Error) -> String {
    use webpki::Error;
    let at = |time: &UnixTime| rfc3339(time.as_secs());
    match error {
        Error::CertExpired { time, not_after } => {
            format!("it was valid until {}, not at {}", at(not_after), at(time))
        }
        Error::CertNotValidYet { time, not_before } => {
            format!("it is valid from {}, not at {}", at(not_before), at(time))
        }
        Error::CrlExpired { time, next_update } => {
            format!(
                "the revocation list was due for renewal at {}, before {}",
                at(next_update),
                at(time)
            )
        }
        Error::CertRevoked => "it is revoked".into(),
        Error::UnknownIssuer => {
            "nobody among the intermediates and the roots that are trusted issued it".into()
        }
        Error::UnknownRevocationStatus => "no revocation list says whether it is revoked".into(),
        Error::InvalidSignatureForPublicKey => "its issuer's key did not sign it".into(),
        Error::InvalidCrlSignatureForPublicKey => {
            "its issuer's key did not sign the revocation list".into()
        }
        Error::EndEntityUsedAsCa => "an authority was expected, and it is not one".into(),
        Error::CaUsedAsEndEntity => {
            "an authority's certificate is there in place of a device's or a signer's".into()
        }
        Error::UnsupportedCriticalExtension => "a critical extension is not known here".into(),
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "it is signed with an algorithm that is not believed (SHA-1 is not)".into()
        }
        // The names of the rest are words (`MaximumPathDepthExceeded`).
        other => {
            let name = format!("{other:?}");
            let name = name.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
            let mut words = String::new();
            for letter in name.chars() {
                if letter.is_uppercase() && !words.is_empty() {
                    words.push(' ');
                }
                words.push(letter.to_ascii_lowercase());
            }
            words
        }
    }
}
