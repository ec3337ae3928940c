//! Endorsement certificates: a path to a root that the policy names.
//!
//! rustls-webpki does the path: it takes an empty subject and a critical directoryName in the
//! subject's alternative names as EK certificates have them, and refuses critical extensions it
//! does not know.

use std::time::Duration;

use cvm_base::{Bytes32, sha256};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime, pem::PemObject};
use webpki::{
    ALL_VERIFICATION_ALGS, CertRevocationList, EndEntityCert, Error, ExpirationPolicy, KeyUsage,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};

use crate::x509::{in_words, read_crl};
use cvm_evidence::AttestError;

/// tcg-kp-EKCertificate, 2.23.133.8.1 (TCG EK Credential Profile §3.2.16).
const EK_USAGE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];
const MAX_CERTIFICATES: usize = 64;
/// More than any endorsement certificate; longer ones are refused unread.
const MAX_BYTES: usize = 8192;

/// What a policy trusts to endorse: for TPMs, certificates of roots and of what lies between.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    roots: Vec<(Bytes32, TrustAnchor<'static>)>,
    intermediates: Vec<CertificateDer<'static>>,
    crls: Vec<Vec<u8>>,
}

impl Roots {
    /// Reads PEM certificates. One that names itself as its issuer is a root; the others only link.
    ///
    /// # Errors
    /// [`AttestError::Roots`] for a certificate that cannot be read, more than 64, or none that is
    /// a root.
    pub fn from_pem(pem: &[u8]) -> Result<Self, AttestError> {
        let fail = |problem: String| AttestError::Roots { problem };
        let mut roots = Self::default();
        for (index, der) in CertificateDer::pem_slice_iter(&crate::x509::pem_apart(pem)).enumerate()
        {
            if index >= MAX_CERTIFICATES {
                return Err(fail(format!("more than {MAX_CERTIFICATES} certificates")));
            }
            let der = der.map_err(|e| fail(format!("certificate {}: {e}", index + 1)))?;
            let unreadable =
                |e: Error| fail(format!("certificate {}: {}", index + 1, in_words(&e)));
            let certificate = EndEntityCert::try_from(&der).map_err(unreadable)?;
            if certificate.issuer() == certificate.subject() {
                let anchor = anchor_from_trusted_cert(&der).map_err(unreadable)?.to_owned();
                roots.roots.push((sha256(&der), anchor));
            } else {
                roots.intermediates.push(der);
            }
        }
        if roots.roots.is_empty() {
            return Err(fail("no self-issued certificate among them, so no root".into()));
        }
        Ok(roots)
    }

    /// With revocation lists, DER. A certificate that no list covers stays valid; an expired list
    /// refuses all that it covers.
    ///
    /// # Errors
    /// [`AttestError::Roots`] for a list that cannot be read, or more than 64.
    pub fn with_crls(self, crls: &[Vec<u8>]) -> Result<Self, AttestError> {
        let fail = |problem: String| AttestError::Roots { problem };
        if crls.len() > MAX_CERTIFICATES {
            return Err(fail(format!("more than {MAX_CERTIFICATES} revocation lists")));
        }
        for crl in crls {
            read_crl(crl).map_err(|e| fail(e.to_string()))?;
        }
        Ok(Self { crls: crls.to_vec(), ..self })
    }

    /// SHA-256 of each root certificate's DER: what a policy names.
    pub fn ek_roots(&self) -> impl Iterator<Item = Bytes32> + '_ {
        self.roots.iter().map(|(digest, _)| *digest)
    }

    /// Verifies an endorsement certificate (DER) at `now` (seconds since 1970 UTC); the SHA-256 of
    /// the root it leads to.
    ///
    /// # Errors
    /// [`AttestError::EndorsementCertificate`], or [`AttestError::NotEndorsed`] by any of the
    /// roots.
    pub fn verify_ek(&self, der: &[u8], now: u64) -> Result<Bytes32, AttestError> {
        let der = CertificateDer::from(der);
        let certificate = parse(&der)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        // They were read before, in `with_crls`.
        let lists: Vec<_> = self.crls.iter().filter_map(|crl| read_crl(crl).ok()).collect();
        let lists: Vec<&CertRevocationList<'_>> = lists.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        // A root is named by its certificate, so each is tried alone: the answer says which one it
        // was.
        let mut last = AttestError::UnknownRoot;
        for (digest, anchor) in &self.roots {
            // Vendors' intermediates often carry no usage; the endorsement certificate itself must.
            let path = certificate.verify_for_usage(
                ALL_VERIFICATION_ALGS,
                std::slice::from_ref(anchor),
                &self.intermediates,
                now,
                KeyUsage::required_if_present(EK_USAGE),
                revocation,
                None,
            );
            let path = match path {
                Ok(path) => path,
                Err(Error::UnknownIssuer) => continue,
                Err(error) => {
                    last = AttestError::EndorsementCertificate { problem: in_words(&error) };
                    continue;
                }
            };
            let issuer = match path.intermediate_certificates().next() {
                Some(issuer) => anchor_from_trusted_cert(&issuer.der()).map(|a| a.to_owned()),
                None => Ok(anchor.clone()),
            };
            return issuer
                .and_then(|issuer| {
                    let usage = KeyUsage::required(EK_USAGE);
                    certificate.verify_for_usage(
                        ALL_VERIFICATION_ALGS,
                        &[issuer],
                        &[],
                        now,
                        usage,
                        None,
                        None,
                    )?;
                    Ok(*digest)
                })
                .map_err(|e| AttestError::EndorsementCertificate { problem: in_words(&e) });
        }
        Err(last)
    }
}

/// Whether the certificate certifies the key whose SubjectPublicKeyInfo ends with this BIT STRING.
///
/// The algorithm identifier is left out: some vendors write id-RSAES-OAEP for the same key.
pub(super) fn certifies(der: &[u8], bit_string: &[u8]) -> Result<bool, AttestError> {
    let der = CertificateDer::from(der);
    Ok(parse(&der)?.subject_public_key_info().ends_with(bit_string))
}

fn parse<'a>(der: &'a CertificateDer<'a>) -> Result<EndEntityCert<'a>, AttestError> {
    if der.len() > MAX_BYTES {
        let problem = format!("{} bytes, at most {MAX_BYTES} allowed", der.len());
        return Err(AttestError::malformed("endorsement certificate", problem));
    }
    EndEntityCert::try_from(der)
        .map_err(|e| AttestError::malformed("endorsement certificate", in_words(&e)))
}
