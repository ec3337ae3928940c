//! One certificate.

use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_cert::{
    certificate::CertificateInner,
    der::{Decode, oid::ObjectIdentifier},
};

use super::{MAX_CERTIFICATE_BYTES, MAX_CERTIFICATES, X509Error, pem::pem_apart};

/// A certificate that was read, and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub(super) der: CertificateDer<'static>,
    parsed: CertificateInner,
}

impl Certificate {
    /// Reads one DER certificate with nothing after it.
    ///
    /// # Errors
    /// [`X509Error::Malformed`].
    pub fn from_der(der: &[u8]) -> Result<Self, X509Error> {
        let malformed =
            |problem: String| X509Error::Malformed { what: "a certificate".into(), problem };
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(malformed(format!(
                "{} bytes, at most {MAX_CERTIFICATE_BYTES} allowed",
                der.len()
            )));
        }
        let parsed = <CertificateInner>::from_der(der).map_err(|e| malformed(e.to_string()))?;
        Ok(Self { der: CertificateDer::from(der.to_vec()), parsed })
    }

    /// Reads one DER certificate, or any number of PEM ones up to [`MAX_CERTIFICATES`], in their
    /// order.
    ///
    /// # Errors
    /// [`X509Error::Malformed`], also when there is none.
    pub fn read_all(bytes: &[u8]) -> Result<Vec<Self>, X509Error> {
        let malformed =
            |problem: String| X509Error::Malformed { what: "certificates".into(), problem };
        if bytes.first() == Some(&0x30) {
            return Ok(vec![Self::from_der(bytes)?]);
        }
        let mut found = Vec::new();
        for der in CertificateDer::pem_slice_iter(&pem_apart(bytes)) {
            if found.len() == MAX_CERTIFICATES {
                return Err(malformed(format!("more than {MAX_CERTIFICATES}")));
            }
            found.push(Self::from_der(&der.map_err(|e| malformed(e.to_string()))?)?);
        }
        if found.is_empty() {
            return Err(malformed("neither DER nor PEM".into()));
        }
        Ok(found)
    }

    /// Its DER bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate in PEM.
    pub fn to_pem(&self) -> String {
        use base64::{Engine, engine::general_purpose::STANDARD};
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            STANDARD.encode(&self.der)
        )
    }

    /// The certified key with its algorithm: SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> Vec<u8> {
        use x509_cert::der::Encode as _;
        // It was decoded from DER, so it can be encoded.
        self.parsed.tbs_certificate().subject_public_key_info().to_der().unwrap_or_default()
    }

    /// Its subject, as RFC 4514 writes names.
    pub fn subject(&self) -> String {
        self.parsed.tbs_certificate().subject().to_string()
    }

    /// Its issuer, as RFC 4514 writes names.
    pub fn issuer(&self) -> String {
        self.parsed.tbs_certificate().issuer().to_string()
    }

    /// The common name in its subject; empty without one.
    pub fn subject_cn(&self) -> String {
        common_name(self.parsed.tbs_certificate().subject())
    }

    /// The common name in its issuer; empty without one.
    pub fn issuer_cn(&self) -> String {
        common_name(self.parsed.tbs_certificate().issuer())
    }

    /// The first and the last second (since 1970 UTC) at which it is valid.
    pub fn validity(&self) -> (u64, u64) {
        let dates = self.parsed.tbs_certificate().validity();
        (
            dates.not_before.to_unix_duration().as_secs(),
            dates.not_after.to_unix_duration().as_secs(),
        )
    }

    /// Whether it names itself as its issuer: a root, if anything vouches for it.
    pub fn is_self_issued(&self) -> bool {
        self.parsed.tbs_certificate().subject() == self.parsed.tbs_certificate().issuer()
    }

    /// Its serial number: the INTEGER's bytes.
    pub fn serial(&self) -> &[u8] {
        self.parsed.tbs_certificate().serial_number().as_bytes()
    }

    /// The certified key: the BIT STRING of the SubjectPublicKeyInfo. For EC keys the uncompressed
    /// point.
    pub fn public_key(&self) -> &[u8] {
        self.parsed.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes()
    }

    /// The value of an extension, if it is there once.
    ///
    /// # Errors
    /// [`X509Error::Malformed`] when it is there twice.
    pub fn extension(&self, oid: &str) -> Result<Option<&[u8]>, X509Error> {
        let malformed = |problem: &str| X509Error::Malformed {
            what: format!("extension {oid}"),
            problem: problem.into(),
        };
        let oid = ObjectIdentifier::new(oid).map_err(|_| malformed("not an object identifier"))?;
        let all = self.parsed.tbs_certificate().extensions().map(Vec::as_slice).unwrap_or_default();
        let mut found = all.iter().filter(|extension| extension.extn_id == oid);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(malformed("given twice")),
            (first, None) => Ok(first.map(|extension| extension.extn_value.as_bytes())),
        }
    }
}

pub(super) fn common_name(name: &x509_cert::name::Name) -> String {
    name.common_name().ok().flatten().map(|cn| cn.value().into_owned()).unwrap_or_default()
}
