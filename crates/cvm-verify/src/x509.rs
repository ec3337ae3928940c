//! Certificates of every vendor: bounded reading, extensions, and one path validation.
//!
//! rustls-webpki validates the path (RFC 5280 §6: signatures, dates, CA and usage, unknown critical
//! extensions, no loops); x509-cert reads the extensions in which vendors state what a key belongs
//! to.

use std::{borrow::Cow, time::Duration};

use cvm_base::{Explain, time::rfc3339};
use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, CertificateRevocationListDer, InvalidSignature,
    SignatureVerificationAlgorithm, UnixTime, alg_id, pem::PemObject,
};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
    aws_lc_rs::{
        ECDSA_P256_SHA256, ECDSA_P384_SHA384, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA384, RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    },
};
use x509_cert::{
    certificate::CertificateInner,
    der::{Decode, oid::ObjectIdentifier},
};

/// More than any certificate of a device or a vendor; longer ones are refused unread.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// The longest chain known is NVIDIA's, of five.
pub const MAX_CERTIFICATES: usize = 32;
/// The longest CRL known (Intel's platform CA) has some 100 KiB.
pub const MAX_CRL_BYTES: usize = 1024 * 1024;

/// What vendors of evidence sign certificates with; nothing else is believed.
const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    ECDSA_P384_SHA384,
    ECDSA_P256_SHA256,
    &AmdRsaPss,
    RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384,
];

/// RSASSA-PSS with SHA-384 as AMD writes it: with the default trailer field spelled out, against
/// DER.
#[derive(Debug)]
struct AmdRsaPss;

impl SignatureVerificationAlgorithm for AmdRsaPss {
    fn verify_signature(
        &self,
        key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        RSA_PSS_2048_8192_SHA384_LEGACY_KEY.verify_signature(key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_ENCRYPTION
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        // RFC 4055 §3.1: id-RSASSA-PSS, SHA-384, MGF1 with SHA-384, salt of 48 bytes, trailer field
        // 1.
        AlgorithmIdentifier::from_slice(&[
            0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a, 0x30, 0x39, 0xa0,
            0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02,
            0x05, 0x00, 0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d,
            0x01, 0x01, 0x08, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04,
            0x02, 0x02, 0x05, 0x00, 0xa2, 0x03, 0x02, 0x01, 0x30, 0xa3, 0x03, 0x02, 0x01, 0x01,
        ])
    }
}

/// A certificate or a path was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum X509Error {
    /// Bytes that are no certificate, or more than the bound.
    #[error("{what} cannot be read: {problem}")]
    Malformed {
        /// Which one.
        what: String,
        /// Expected and found.
        problem: String,
    },
    /// The path to a root is broken.
    #[error("the certificate of {subject} leads to no trusted root at this time: {problem}")]
    Path {
        /// The end entity's subject.
        subject: String,
        /// What path validation found.
        problem: String,
    },
    /// A revocation list cannot be used.
    #[error("the revocation list cannot be used: {problem}")]
    Crl {
        /// What is wrong with it.
        problem: String,
    },
}

impl Explain for X509Error {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "ATT-201",
            Self::Path { .. } => "ATT-202",
            Self::Crl { .. } => "ATT-203",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Malformed { .. } => {
                "give certificates as their vendor issued them, DER or PEM, \
                with nothing around them"
            }
            Self::Path { .. } => {
                "check the time that was asked for against the certificates' dates, that every \
                 intermediate is there, and that the evidence is of the vendor whose roots were \
                 given"
            }
            Self::Crl { .. } => {
                "fetch the vendor's current revocation list (DER), or the one of \
                the time that is asked about"
            }
        }
        .into()
    }
}

/// A certificate that was read, and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    parsed: CertificateInner,
}

impl Certificate {
    /// Reads one DER certificate with nothing behind it.
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

/// What vouches for a key, and what revokes it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Path<'a> {
    /// Between the end entity and a root, in any order; more than needed does no harm.
    pub intermediates: &'a [Certificate],
    /// Trusted, each alone.
    pub roots: &'a [Certificate],
    /// DER lists. A certificate that no list covers stays valid; a list that is expired is refused.
    pub crls: &'a [Vec<u8>],
}

impl Path<'_> {
    /// Finds a path from `leaf` to one of the roots, valid at `now` (seconds since 1970 UTC): that
    /// root.
    ///
    /// # Errors
    /// [`X509Error::Path`] with what was wrong; [`X509Error::Crl`] for a list that cannot be read.
    pub fn verify(&self, leaf: &Certificate, now: u64) -> Result<&Certificate, X509Error> {
        // No vendor's device certificate carries a usage of its own.
        self.find(leaf, &[], now, UnknownStatusPolicy::Allow)
    }

    /// [`verify`](Self::verify), where a certificate that lists extended key usages must list this
    /// one (the OID's DER content).
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub fn verify_for(
        &self,
        leaf: &Certificate,
        usage: &'static [u8],
        now: u64,
    ) -> Result<&Certificate, X509Error> {
        self.find(leaf, usage, now, UnknownStatusPolicy::Allow)
    }

    /// As [`Path::verify`], and every certificate below the root must be covered by one of the
    /// lists.
    ///
    /// # Errors
    /// As [`Path::verify`]; [`X509Error::Path`] also for a certificate that no list covers.
    pub fn verify_unrevoked(
        &self,
        leaf: &Certificate,
        now: u64,
    ) -> Result<&Certificate, X509Error> {
        if self.crls.is_empty() {
            return Err(X509Error::Crl { problem: "none was given".into() });
        }
        self.find(leaf, &[], now, UnknownStatusPolicy::Deny)
    }

    fn find(
        &self,
        leaf: &Certificate,
        usage: &'static [u8],
        now: u64,
        unknown: UnknownStatusPolicy,
    ) -> Result<&Certificate, X509Error> {
        let fail = |problem: String| X509Error::Path { subject: leaf.subject(), problem };
        let certificate = EndEntityCert::try_from(&leaf.der).map_err(|e| fail(in_words(&e)))?;
        let intermediates: Vec<_> = self.intermediates.iter().map(|c| c.der.clone()).collect();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let lists = self.crls.iter().map(|der| read_crl(der)).collect::<Result<Vec<_>, _>>()?;
        let lists: Vec<&CertRevocationList<'_>> = lists.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(unknown)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        // Each root is tried alone, so that the answer says which one it was. The reason of the one
        // that got furthest stands.
        let mut refused = (0, "no root is trusted".to_owned());
        let mut refuse = |reached, problem| {
            if reached > refused.0 {
                refused = (reached, problem);
            }
        };
        for root in self.roots {
            let anchor = anchor_from_trusted_cert(&root.der)
                .map_err(|e| fail(format!("the root: {}", in_words(&e))))?;
            // A root that is out of date vouches for nothing; RFC 5280 leaves that to the one who
            // trusts it.
            let (from, until) = root.validity();
            if !(from..=until).contains(&now.as_secs()) {
                refuse(2, format!("the root {} is not valid at this time", root.subject()));
                continue;
            }
            let path = certificate.verify_for_usage(
                ALGORITHMS,
                std::slice::from_ref(&anchor),
                &intermediates,
                now,
                KeyUsage::required_if_present(usage),
                revocation,
                None,
            );
            match path {
                Ok(_) => return Ok(root),
                Err(error @ webpki::Error::UnknownIssuer) => refuse(1, in_words(&error)),
                Err(error) => refuse(3, in_words(&error)),
            }
        }
        Err(fail(refused.1))
    }
}

/// Reads a time: RFC 3339 in UTC (`2025-12-10T00:00:00Z`), a date alone (its first second), or
/// seconds since 1970.
pub fn parse_time(text: &str) -> Option<u64> {
    let date = |text: &str| {
        text.parse::<x509_cert::der::DateTime>().ok().map(|date| date.unix_duration().as_secs())
    };
    text.parse().ok().or_else(|| date(text)).or_else(|| date(&format!("{text}T00:00:00Z")))
}

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
        Error::EndEntityUsedAsCa => "an authority was expected, and it is none".into(),
        Error::CaUsedAsEndEntity => {
            "an authority's certificate stands where a device's or a signer's is due".into()
        }
        Error::UnsupportedCriticalExtension => "a critical extension is not known here".into(),
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "it is signed with an algorithm that is not believed (SHA-1 is none)".into()
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

/// PEM files joined without a newline between them, with one: readers look for boundaries where
/// lines begin (RFC 7468 §2), and would pass over what follows such a seam without a word.
pub(crate) fn pem_apart(pem: &[u8]) -> Cow<'_, [u8]> {
    const SEAM: &str = "----------BEGIN ";
    match std::str::from_utf8(pem) {
        Ok(text) if text.contains(SEAM) => {
            Cow::Owned(text.replace(SEAM, "-----\n-----BEGIN ").into_bytes())
        }
        _ => Cow::Borrowed(pem),
    }
}

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

fn common_name(name: &x509_cert::name::Name) -> String {
    name.common_name().ok().flatten().map(|cn| cn.value().into_owned()).unwrap_or_default()
}

/// A revocation list's issuer (its common name), and when the next one is due.
///
/// # Errors
/// [`X509Error::Crl`] for another structure, and for a list that does not say it.
pub fn crl_due(der: &[u8]) -> Result<(String, u64), X509Error> {
    let fail = |problem: String| X509Error::Crl { problem };
    let list = <x509_cert::crl::CertificateList>::from_der(der)
        .map_err(|e| fail(e.to_string()))?
        .tbs_cert_list;
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

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    const NOW: u64 = 1_760_000_000; // 2025-10-09

    fn read(name: &str) -> Vec<Certificate> {
        let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        Certificate::read_all(&fs::read(repository.join(name)).unwrap()).unwrap()
    }

    #[test]
    fn files_joined_without_a_newline_lose_nothing() {
        let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        let pem = fs::read_to_string(repository.join("keys/roots/amd/ask_ark_milan.pem")).unwrap();
        let joined = [pem.trim_end(), pem.trim_end()].concat();
        let subjects = |pem: &str| -> Vec<String> {
            Certificate::read_all(pem.as_bytes())
                .unwrap()
                .iter()
                .map(Certificate::subject)
                .collect()
        };
        assert_eq!(subjects(&joined), [subjects(&pem), subjects(&pem)].concat());
        assert_eq!(subjects(&joined).len(), 4);
    }

    #[test]
    fn every_vendors_chain_leads_to_its_root() {
        for (leaf, authority) in [
            ("milan-virtee/vcek.der", "milan"),
            ("trustee-vlek/vlek.der", "milan_vlek"),
            ("turin-virtee-vcek-only/vcek.der", "turin_vcek"),
        ] {
            let leaf = read(&format!("tests/vectors/evidence/snp/{leaf}"));
            let authority = read(&format!("keys/roots/amd/ask_ark_{authority}.pem"));
            let path = Path { intermediates: &authority[..1], roots: &authority[1..], crls: &[] };
            let root = path.verify(&leaf[0], NOW).unwrap();
            assert!(root.subject().contains("ARK"), "{}", root.subject());
        }
        let chain = read("tests/vectors/evidence/gpu/h100-545.00-e2e/chain.pem");
        let roots = read("keys/roots/nvidia/verifier_device_root.pem");
        Path { intermediates: &chain[1..], roots: &roots, crls: &[] }
            .verify(&chain[0], NOW)
            .unwrap();
    }

    #[test]
    fn attack_another_root_an_expired_leaf_a_chain_without_its_middle() {
        let leaf = read("tests/vectors/evidence/snp/trustee-vlek/vlek.der");
        let [milan, genoa] = ["milan_vlek", "genoa_vlek"]
            .map(|name| read(&format!("keys/roots/amd/ask_ark_{name}.pem")));
        let verify = |intermediates, roots, now| {
            Path { intermediates, roots, crls: &[] }.verify(&leaf[0], now).cloned()
        };
        assert!(verify(&milan[..1], &milan[1..], NOW).is_ok());
        assert!(verify(&milan[..1], &genoa[1..], NOW).is_err());
        assert!(verify(&genoa[..1], &milan[1..], NOW).is_err());
        assert!(verify(&[], &milan[1..], NOW).is_err());
        assert!(verify(&milan[..1], &[], NOW).is_err());
        assert!(verify(&milan[..1], &milan[1..], 1_766_000_000).is_err(), "a VLEK lives one year");
        assert!(verify(&milan[..1], &leaf, NOW).is_err(), "a leaf is no root of itself");
    }
}
