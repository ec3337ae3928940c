//! NVIDIA's certificate chains: put in order by who issued whom, then validated to a trusted root.
//!
//! Senders list a chain leaf first; nothing here relies on it. The leaf is the one certificate that
//! issued no other one, and every certificate given must lie on the path from it: a second leaf
//! would let a reader choose, and a certificate beside the path says that evidence was mixed.

use super::{
    GpuError,
    der::{self, Reader},
};
use crate::x509::{Certificate, Path};

/// NVIDIA's chains have five certificates and some 5 KiB of PEM.
pub(super) const MAX_CHAIN_BYTES: usize = 64 * 1024;

/// id-at-commonName and id-at-serialNumber (X.520), as content of an OBJECT IDENTIFIER.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SERIAL_NUMBER: &[u8] = &[0x55, 0x04, 0x05];

/// A certificate and the raw fields of it that chains, claims and OCSP need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub certificate: Certificate,
    /// TBSCertificate, signed by the issuer with `signature` (DER).
    pub tbs: Vec<u8>,
    pub signature: Vec<u8>,
    /// Object identifier of the algorithm of `signature`.
    pub algorithm: Vec<u8>,
    /// Content of the INTEGER.
    pub serial: Vec<u8>,
    /// Names, as DER.
    pub issuer: Vec<u8>,
    pub subject: Vec<u8>,
    /// Seconds since 1970 UTC, both inclusive.
    pub not_before: u64,
    pub not_after: u64,
}

impl Link {
    pub(super) fn new(certificate: Certificate) -> Result<Self, GpuError> {
        Self::read(certificate).map_err(|problem| GpuError::malformed("certificate", problem))
    }

    /// RFC 5280 §4.1.
    fn read(certificate: Certificate) -> Result<Self, der::Problem> {
        let mut outer = Reader::sequence(certificate.der())?;
        let tbs = outer.next()?;
        let algorithm = Reader::new(outer.read(der::SEQUENCE)?).read(der::OBJECT_IDENTIFIER)?;
        let signature = der::bits(outer.read(der::BIT_STRING)?)?;
        outer.end()?;
        let mut fields = Reader::new(tbs.value);
        fields.optional(der::context(0))?;
        let serial = fields.read(der::INTEGER)?;
        fields.read(der::SEQUENCE)?;
        let issuer = fields.next()?.whole;
        let mut validity = Reader::new(fields.read(der::SEQUENCE)?);
        let (not_before, not_after) = (der::time(validity.next()?)?, der::time(validity.next()?)?);
        let subject = fields.next()?.whole;
        Ok(Self {
            tbs: tbs.whole.to_vec(),
            signature: signature.to_vec(),
            algorithm: algorithm.to_vec(),
            serial: serial.to_vec(),
            issuer: issuer.to_vec(),
            subject: subject.to_vec(),
            not_before,
            not_after,
            certificate,
        })
    }

    pub(super) fn common_name(&self) -> Option<String> {
        name_attribute(&self.subject, COMMON_NAME)
    }

    pub(super) fn serial_number(&self) -> Option<String> {
        name_attribute(&self.subject, SERIAL_NUMBER)
    }

    fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }
}

/// The first attribute of this type in a Name.
fn name_attribute(name: &[u8], oid: &[u8]) -> Option<String> {
    let mut sets = Reader::sequence(name).ok()?;
    while let Ok(set) = sets.read(der::SET) {
        let mut attributes = Reader::new(set);
        while let Ok(attribute) = attributes.read(der::SEQUENCE) {
            let mut attribute = Reader::new(attribute);
            if attribute.read(der::OBJECT_IDENTIFIER) == Ok(oid) {
                let text = attribute.next().ok()?.value;
                return String::from_utf8(text.to_vec()).ok().filter(|text| text.len() <= 128);
            }
        }
    }
    None
}

/// A chain in its order, not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub leaf: Link,
    /// Each issued the one before it.
    pub above: Vec<Link>,
}

impl Chain {
    /// Orders certificates by who issued whom.
    pub(super) fn new(of: &str, certificates: Vec<Certificate>) -> Result<Self, GpuError> {
        let fail = |problem: String| GpuError::Chain { of: of.into(), problem };
        let mut rest = certificates.into_iter().map(Link::new).collect::<Result<Vec<_>, _>>()?;
        let issued_none = |link: &Link| {
            !rest
                .iter()
                .any(|other| other.issuer == link.subject && other.certificate != link.certificate)
        };
        let leaves: Vec<usize> =
            (0..rest.len()).filter(|at| rest.get(*at).is_some_and(issued_none)).collect();
        let &[leaf] = leaves.as_slice() else {
            return Err(fail(format!(
                "{} certificates that issued no other, one expected",
                leaves.len()
            )));
        };
        let leaf = rest.swap_remove(leaf);
        let mut above: Vec<Link> = Vec::new();
        while let Some(last) =
            Some(above.last().unwrap_or(&leaf)).filter(|last| !last.is_self_issued())
        {
            let mut issuers = (0..rest.len())
                .filter(|at| rest.get(*at).is_some_and(|l| l.subject == last.issuer));
            match (issuers.next(), issuers.next()) {
                (Some(issuer), None) => above.push(rest.swap_remove(issuer)),
                (None, _) => break,
                (Some(_), Some(_)) => return Err(fail("two certificates of one name".into())),
            }
        }
        match rest.first() {
            None => Ok(Self { leaf, above }),
            Some(beside) => {
                Err(fail(format!("{} is not on the path", beside.certificate.subject())))
            }
        }
    }

    pub(super) fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        [&self.leaf].into_iter().chain(&self.above).map(|link| &link.certificate)
    }

    /// Validates the path at `now`. What comes back ends in the trusted root, whatever was at the
    /// end.
    pub(super) fn verify(
        &self,
        of: &str,
        roots: &[Certificate],
        crls: &[Vec<u8>],
        now: u64,
    ) -> Result<TrustedPath, GpuError> {
        let fail = |problem: String| GpuError::Chain { of: of.into(), problem };
        let above: Vec<Certificate> =
            self.above.iter().map(|link| link.certificate.clone()).collect();
        let path = Path { intermediates: &above, roots, crls };
        let root = path.verify(&self.leaf.certificate, now).map_err(|e| fail(e.to_string()))?;
        let mut links = vec![self.leaf.clone()];
        links.extend(self.above.iter().filter(|link| !link.is_self_issued()).cloned());
        links.push(Link::new(root.clone())?);
        // webpki found some path among these; that it is this one follows from each name being
        // there once.
        for pair in links.windows(2) {
            if let [issued, issuer] = pair
                && issued.issuer != issuer.subject
            {
                return Err(fail(format!(
                    "{} was not issued by the next one",
                    issued.certificate.subject()
                )));
            }
        }
        let mut window = Window::ALWAYS;
        for link in &links {
            window = window.and(Window { from: link.not_before, until: link.not_after });
        }
        for crl in crls {
            window = window.and(
                crl_window(crl).map_err(|problem| fail(format!("revocation list: {problem}")))?,
            );
        }
        let expires = links.iter().map(|link| link.not_after).min().unwrap_or(0);
        Ok(TrustedPath { links, window, expires })
    }
}

/// A validated path, leaf first, the trusted root last.
#[derive(Debug, Clone)]
pub(super) struct TrustedPath {
    pub links: Vec<Link>,
    /// When all of it and the revocation lists are valid: within it, nothing needs to be checked
    /// again.
    pub window: Window,
    /// The earliest end of a certificate's validity.
    pub expires: u64,
}

/// From and until, seconds since 1970 UTC, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub from: u64,
    pub until: u64,
}

impl Window {
    pub(super) const ALWAYS: Self = Self { from: 0, until: u64::MAX };

    pub(super) fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }

    pub(super) fn contains(self, now: u64) -> bool {
        self.from <= now && now <= self.until
    }
}

/// RFC 5280 §5.1: thisUpdate and nextUpdate, which webpki enforces when it reads the list.
fn crl_window(crl: &[u8]) -> Result<Window, der::Problem> {
    let mut list = Reader::new(Reader::sequence(crl)?.read(der::SEQUENCE)?);
    list.optional(der::INTEGER)?;
    list.read(der::SEQUENCE)?;
    list.read(der::SEQUENCE)?;
    let (from, until) = (der::time(list.next()?)?, der::time(list.next()?)?);
    Ok(Window { from, until })
}
