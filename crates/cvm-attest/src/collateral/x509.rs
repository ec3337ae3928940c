//! What filing needs of certificates and revocation lists: names, dates, AMD's and Intel's extensions.
//!
//! Nothing is verified here: verifiers do that, with the vendors' roots. Filing needs no crypto library.

use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_cert::{
    certificate::CertificateInner,
    crl::CertificateList,
    der::{Decode, oid::ObjectIdentifier},
    name::Name,
};

/// The longest chain known is NVIDIA's, of five.
const MAX_CERTIFICATES: usize = 16;
/// More than any certificate has.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// A certificate that was read, and not believed.
pub(super) struct Certificate(CertificateInner);

impl Certificate {
    pub(super) fn from_der(der: &[u8]) -> Result<Self, String> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(format!("a certificate of {} bytes, at most {MAX_CERTIFICATE_BYTES} allowed", der.len()));
        }
        <CertificateInner>::from_der(der).map(Self).map_err(|e| format!("no certificate: {e}"))
    }

    /// PEM certificates in their order, at least one.
    pub(super) fn from_pem(pem: &[u8]) -> Result<Vec<Self>, String> {
        let mut found = Vec::new();
        for der in CertificateDer::pem_slice_iter(pem) {
            if found.len() == MAX_CERTIFICATES {
                return Err(format!("more than {MAX_CERTIFICATES} certificates"));
            }
            found.push(Self::from_der(&der.map_err(|e| format!("no PEM: {e}"))?)?);
        }
        if found.is_empty() { Err("no PEM certificate".into()) } else { Ok(found) }
    }

    pub(super) fn subject_cn(&self) -> String {
        common_name(self.0.tbs_certificate().subject())
    }

    pub(super) fn issuer_cn(&self) -> String {
        common_name(self.0.tbs_certificate().issuer())
    }

    pub(super) fn not_after(&self) -> u64 {
        self.0.tbs_certificate().validity().not_after.to_unix_duration().as_secs()
    }

    /// The value of the first extension with this OID.
    pub(super) fn extension(&self, oid: &str) -> Option<&[u8]> {
        let oid = ObjectIdentifier::new(oid).ok()?;
        let all = self.0.tbs_certificate().extensions().map(Vec::as_slice).unwrap_or_default();
        all.iter().find(|extension| extension.extn_id == oid).map(|extension| extension.extn_value.as_bytes())
    }
}

/// The earliest end among certificates; `None` without any.
pub(super) fn earliest(certificates: &[Certificate]) -> Option<u64> {
    certificates.iter().map(Certificate::not_after).min()
}

/// A revocation list's issuer, and when the next one is due.
pub(super) fn crl(der: &[u8]) -> Result<(String, u64), String> {
    let list = <CertificateList>::from_der(der).map_err(|e| format!("no revocation list: {e}"))?;
    let next = list.tbs_cert_list.next_update.ok_or("a revocation list that does not say when the next is due")?;
    Ok((common_name(&list.tbs_cert_list.issuer), next.to_unix_duration().as_secs()))
}

fn common_name(name: &Name) -> String {
    name.common_name().ok().flatten().map(|cn| cn.value().into_owned()).unwrap_or_default()
}
