//! The key holder's TLS certificate, which images pin by its digest.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cvm_base::{Bytes32, sha256};
use cvm_ceremony::{Date, Url};
use cvm_layout::names::Name;
use zeroize::Zeroizing;

use crate::error::CustodyError;

/// How long the certificate says that it is valid. The image pins it, so that only a new ceremony
/// can replace it.
const CERTIFICATE_YEARS: u16 = 20;

/// A key holder's TLS key with its certificate.
pub(crate) struct TlsIdentity {
    pub certificate_pem: String,
    pub key_pem: Zeroizing<String>,
    /// SHA-256 of the certificate's DER.
    pub sha256: Bytes32,
}

/// A self-signed P-256 server certificate for the URL's host.
pub(crate) fn self_signed(
    name: &Name,
    url: &Url,
    today: &Date,
) -> Result<TlsIdentity, CustodyError> {
    let fail = |error: rcgen::Error| CustodyError::Certificate(error.to_string());
    let (year, month, day) = today.parts();
    // 29 February may not exist twenty years on.
    let date = |year: u16| rcgen::date_time_ymd(year.into(), month, day.min(28));
    let mut params = rcgen::CertificateParams::new([url.host().to_owned()]).map_err(fail)?;
    params.not_before = date(year);
    params.not_after = date(year + CERTIFICATE_YEARS);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, format!("flare-cvm key holder of {name}"));
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = rcgen::KeyPair::generate().map_err(fail)?;
    let certificate = params.self_signed(&key).map_err(fail)?;
    Ok(TlsIdentity {
        certificate_pem: certificate.pem(),
        key_pem: Zeroizing::new(key.serialize_pem()),
        sha256: sha256(certificate.der()),
    })
}

/// SHA-256 of the DER of the one certificate in a PEM text.
pub(crate) fn pem_digest(pem: &str) -> Option<Bytes32> {
    let inner = pem
        .trim()
        .strip_prefix("-----BEGIN CERTIFICATE-----")?
        .strip_suffix("-----END CERTIFICATE-----")?;
    let compact: String = inner.split_ascii_whitespace().collect();
    Some(sha256(&STANDARD.decode(compact).ok()?))
}
