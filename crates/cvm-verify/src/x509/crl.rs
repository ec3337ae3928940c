//! Revocation lists.

use rustls_pki_types::{CertificateRevocationListDer, pem::PemObject};
use webpki::{BorrowedCertRevocationList, CertRevocationList};
use x509_cert::{crl::CertificateList, der::Decode};

use super::{
    MAX_CERTIFICATES, MAX_CRL_BYTES, X509Error, certificate::common_name, pem::pem_apart,
    words::in_words,
};

/// Reads one DER revocation list, or any number of PEM ones up to [`MAX_CERTIFICATES`], as DER.
///
/// # Errors
/// [`X509Error::Crl`], also when there is none.
pub fn read_crls(bytes: &[u8]) -> Result<Vec<Vec<u8>>, X509Error> {
    let mut found = Vec::new();
    if bytes.first() == Some(&0x30) {
        found.push(bytes.to_vec());
    } else {
        for list in CertificateRevocationListDer::pem_slice_iter(&pem_apart(bytes)) {
            if found.len() == MAX_CERTIFICATES {
                return Err(X509Error::Crl { problem: format!("more than {MAX_CERTIFICATES}") });
            }
            found.push(list.map_err(|e| X509Error::Crl { problem: e.to_string() })?.to_vec());
        }
    }
    found.iter().try_for_each(|list| read_crl(list).map(drop))?;
    match found.is_empty() {
        true => Err(X509Error::Crl { problem: "neither DER nor PEM".into() }),
        false => Ok(found),
    }
}

/// A revocation list's issuer (its common name), and when the next one is due.
///
/// # Errors
/// [`X509Error::Crl`] for another structure, and for a list that does not say it.
pub fn crl_due(der: &[u8]) -> Result<(String, u64), X509Error> {
    let fail = |problem: String| X509Error::Crl { problem };
    let list = <CertificateList>::from_der(der).map_err(|e| fail(e.to_string()))?.tbs_cert_list;
    let next =
        list.next_update.ok_or_else(|| fail("it does not say when the next is due".into()))?;
    Ok((common_name(&list.issuer), next.to_unix_duration().as_secs()))
}

pub(crate) fn read_crl(der: &[u8]) -> Result<CertRevocationList<'_>, X509Error> {
    if der.len() > MAX_CRL_BYTES {
        let problem = format!("{} bytes, at most {MAX_CRL_BYTES} allowed", der.len());
        return Err(X509Error::Crl { problem });
    }
    BorrowedCertRevocationList::from_der(der)
        .map(CertRevocationList::from)
        .map_err(|e| X509Error::Crl { problem: in_words(&e) })
}
