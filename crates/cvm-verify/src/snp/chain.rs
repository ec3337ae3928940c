//! From an endorsement key's certificate to AMD's root key, once for many reports.

use std::sync::OnceLock;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, ParsedPublicKey};
use cvm_base::{Bytes32, sha256, time::rfc3339};
use x509_cert::{certificate::CertificateInner, crl::CertificateList, der::Decode};

use super::{
    SigningKey, SnpError,
    endorsement::{Endorsement, names},
};
use crate::{
    NotChecked,
    x509::{Certificate, MAX_CRL_BYTES, Path, X509Error},
};

/// AMD's certificates as its KDS serves them: ASK (or ASVK) and ARK of each product line.
pub const KDS_CERTIFICATES: [&[u8]; 6] = [
    include_bytes!("../../../../keys/roots/amd/ask_ark_milan.pem"),
    include_bytes!("../../../../keys/roots/amd/ask_ark_milan_vlek.pem"),
    include_bytes!("../../../../keys/roots/amd/ask_ark_genoa.pem"),
    include_bytes!("../../../../keys/roots/amd/ask_ark_genoa_vlek.pem"),
    include_bytes!("../../../../keys/roots/amd/ask_ark_turin_vcek.pem"),
    include_bytes!("../../../../keys/roots/amd/ask_ark_turin_vlek.pem"),
];

/// The root keys (ARK) that are trusted, and the intermediates (ASK, ASVK) that are known.
#[derive(Debug, Clone)]
pub struct SnpRoots {
    roots: Vec<Certificate>,
    intermediates: Vec<Certificate>,
}

impl SnpRoots {
    /// AMD's, of Milan, Genoa (also for Siena and Bergamo) and Turin, as they are in
    /// `keys/roots/amd`.
    ///
    /// # Errors
    /// [`SnpError::Chain`] if the embedded certificates cannot be read, which a test excludes.
    pub fn amd() -> Result<&'static Self, SnpError> {
        static ROOTS: OnceLock<Result<SnpRoots, SnpError>> = OnceLock::new();
        ROOTS
            .get_or_init(|| SnpRoots::from_pem(&KDS_CERTIFICATES.concat()))
            .as_ref()
            .map_err(Clone::clone)
    }

    /// Others: PEM (or one DER), in any order. Self-issued certificates become roots, the others
    /// are intermediates.
    ///
    /// # Errors
    /// [`SnpError::Chain`] for what is not a certificate, [`SnpError::Certificates`] without a
    /// root.
    pub fn from_pem(bytes: &[u8]) -> Result<Self, SnpError> {
        let (roots, intermediates): (Vec<_>, Vec<_>) = distinct(Certificate::read_all(bytes)?)
            .into_iter()
            .partition(Certificate::is_self_issued);
        match roots.is_empty() {
            true => Err(SnpError::certificates("no self-issued one among the roots")),
            false => Ok(Self { roots, intermediates }),
        }
    }
}

/// An endorsement key whose certificate led to a trusted root: checks any number of reports.
#[derive(Debug)]
pub struct VerifiedChain {
    pub(super) endorsement: Endorsement,
    pub(super) key: ParsedPublicKey,
    pub(super) root_sha256: Bytes32,
    pub(super) certificate_sha256: Bytes32,
    pub(super) revocation: Option<NotChecked>,
    /// The first and last second at which every certificate and list of the path is valid.
    validity: (u64, u64),
}

impl VerifiedChain {
    /// Finds the path from the only certificate of this kind among `certificates` to a root, valid
    /// at `now`.
    ///
    /// `certificates` may hold others too, in any order. An ARK among them is never trusted: only
    /// `roots` are. `crls` are DER lists; AMD's are issued by the ARK of each product line and
    /// revoke ASKs and ASVKs.
    ///
    /// # Errors
    /// [`SnpError`], for the first check that fails.
    pub fn verify(
        certificates: &[Certificate],
        kind: SigningKey,
        roots: &SnpRoots,
        crls: &[Vec<u8>],
        now: u64,
    ) -> Result<Self, SnpError> {
        let leaf = leaf(certificates, kind)?;
        let endorsement = Endorsement::read(leaf, kind)?;
        let issuer = leaf.issuer();
        if !names(&issuer, &endorsement.issuer()) {
            let (product, expected) = (&endorsement.product_name, endorsement.issuer());
            return Err(SnpError::product(format!(
                "the {kind} of a {product} must be issued by {expected}, and is by {issuer}"
            )));
        }
        // Exactly leaf, intermediate, root: tried one by one, so that their dates are known and
        // nothing can loop.
        let known = certificates
            .iter()
            .chain(&roots.intermediates)
            .filter(|c| c.subject() == issuer)
            .cloned();
        let mut refused = None;
        for intermediate in distinct(known.collect()) {
            let path = |crls| Path {
                intermediates: std::slice::from_ref(&intermediate),
                roots: &roots.roots,
                crls,
            };
            // Each list alone: of two by one issuer only the first would be asked.
            let listed = || {
                crls.iter().try_for_each(|list| {
                    path(std::slice::from_ref(list)).verify(leaf, now).map(|_| ())
                })
            };
            match path(&[]).verify(leaf, now).and_then(|root| listed().map(|()| root)) {
                Ok(root) => return Self::found(leaf, endorsement, &intermediate, root, crls),
                // Those that are known here come last, and their reason says more than that of one
                // that came along.
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.map_or_else(
            || SnpError::certificates(format!("{issuer} is missing")),
            SnpError::Chain,
        ))
    }

    fn found(
        leaf: &Certificate,
        endorsement: Endorsement,
        intermediate: &Certificate,
        root: &Certificate,
        crls: &[Vec<u8>],
    ) -> Result<Self, SnpError> {
        let expected = format!("ARK-{}", endorsement.product.line());
        if !names(&root.subject(), &expected) {
            let problem = format!(
                "the root of {} must be {expected}, and is {}",
                endorsement.product,
                root.subject()
            );
            return Err(SnpError::product(problem));
        }
        let dates = |certificate: &Certificate| certificate.validity();
        let mut validity = intersect(dates(leaf), intersect(dates(intermediate), dates(root)));
        let mut covered = false;
        for der in crls {
            if let Some(dates) = crl_dates(der, root)? {
                validity = intersect(validity, dates);
                covered = true;
            }
        }
        let key =
            ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, endorsement.point).map_err(|_| {
                SnpError::certificates(format!(
                    "the {}'s key is not a point of P-384",
                    endorsement.kind
                ))
            })?;
        let revocation = (!covered).then(|| {
            NotChecked::new(
                "certificate-revocation",
                &format!("no revocation list of {} was given", root.subject()),
            )
        });
        let (root_sha256, certificate_sha256) = (sha256(root.der()), sha256(leaf.der()));
        Ok(Self { endorsement, key, root_sha256, certificate_sha256, revocation, validity })
    }

    /// Which kind of key was endorsed.
    pub fn signing_key(&self) -> SigningKey {
        self.endorsement.kind
    }

    /// The chain was verified at another time; its dates must allow this one too.
    pub(super) fn check_dates(&self, now: u64) -> Result<(), SnpError> {
        let (from, until) = self.validity;
        if (from..=until).contains(&now) {
            return Ok(());
        }
        let problem = format!(
            "it and those above it are valid from {} to {}, not at {}",
            rfc3339(from),
            rfc3339(until),
            rfc3339(now)
        );
        Err(X509Error::Path { subject: format!("this {}", self.endorsement.kind), problem }.into())
    }
}

/// Two certificates of one kind leave open which is meant, and an attacker would choose.
fn leaf(certificates: &[Certificate], kind: SigningKey) -> Result<&Certificate, SnpError> {
    let mut of_kind = certificates.iter().filter(|c| Endorsement::kind(c) == Some(kind));
    match of_kind.next() {
        // The same certificate may come with the evidence and from a cache.
        Some(leaf) if of_kind.all(|other| other.der() == leaf.der()) => Ok(leaf),
        Some(_) => Err(SnpError::certificates(format!("more than one {kind}"))),
        None => match certificates.iter().find_map(Endorsement::kind) {
            Some(certificate) => Err(SnpError::KeyKind { report: kind, certificate }),
            None => Err(SnpError::certificates(format!("no {kind} among them"))),
        },
    }
}

fn distinct(certificates: Vec<Certificate>) -> Vec<Certificate> {
    let mut found: Vec<Certificate> = Vec::new();
    for certificate in certificates {
        if !found.iter().any(|known| known.der() == certificate.der()) {
            found.push(certificate);
        }
    }
    found
}

fn intersect(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0.max(b.0), a.1.min(b.1))
}

/// RFC 5280 §5.2.5: the list is about a part of the issuer's certificates only.
const ISSUING_DISTRIBUTION_POINT: &str = "2.5.29.28";

/// When a list of this root is current; `None` for another issuer's, and for one that states a
/// scope, because path validation passes over a list that it takes to be about others. For the rest
/// it checked the signature.
fn crl_dates(der: &[u8], root: &Certificate) -> Result<Option<(u64, u64)>, SnpError> {
    let unreadable = |problem: String| SnpError::Chain(X509Error::Crl { problem });
    if der.len() > MAX_CRL_BYTES {
        return Err(unreadable(format!("{} bytes, at most {MAX_CRL_BYTES} allowed", der.len())));
    }
    let list =
        <CertificateList>::from_der(der).map_err(|e| unreadable(e.to_string()))?.tbs_cert_list;
    let root = <CertificateInner>::from_der(root.der()).map_err(|e| unreadable(e.to_string()))?;
    let extensions = list.crl_extensions.as_deref().unwrap_or_default();
    let scoped = extensions
        .iter()
        .any(|extension| extension.extn_id.to_string() == ISSUING_DISTRIBUTION_POINT);
    if &list.issuer != root.tbs_certificate().subject() || scoped {
        return Ok(None);
    }
    let until = list.next_update.ok_or_else(|| unreadable("it has no nextUpdate".into()))?;
    Ok(Some((list.this_update.to_unix_duration().as_secs(), until.to_unix_duration().as_secs())))
}
