//! PEM texts.

use std::borrow::Cow;

/// PEM files joined without a newline between them, with one: readers look for boundaries where
/// lines begin (RFC 7468 §2), and would silently pass over what follows such a seam.
pub(crate) fn pem_apart(pem: &[u8]) -> Cow<'_, [u8]> {
    const SEAM: &str = "----------BEGIN ";
    match std::str::from_utf8(pem) {
        Ok(text) if text.contains(SEAM) => {
            Cow::Owned(text.replace(SEAM, "-----\n-----BEGIN ").into_bytes())
        }
        _ => Cow::Borrowed(pem),
    }
}
