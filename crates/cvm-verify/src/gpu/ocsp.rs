//! OCSP responses (RFC 6960) that travel with the evidence: nothing here asks a responder.
//!
//! Believed is a response signed by the issuer of the certificate in question, or by a responder
//! whose certificate that issuer signed for OCSP (§4.2.2.2), as NVIDIA's responder is; over P-384
//! or P-256. RustCrypto's `x509-ocsp` still needs the previous generation of `der` and `x509-cert`,
//! so the six structures are read here.

use aws_lc_rs::{
    digest,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1,
        ECDSA_P384_SHA384_ASN1, EcdsaVerificationAlgorithm, UnparsedPublicKey,
    },
};
use cvm_base::time::rfc3339;

use super::{
    GpuError,
    chain::{Link, TrustedPath, Window},
    der::{self, Problem, Reader},
};
use crate::x509::Certificate;

/// A response has some 2 KiB; longer ones are refused unread.
pub const MAX_OCSP_BYTES: usize = 64 * 1024;
/// How far the responder's clock may be ahead of ours.
const SKEW: u64 = 300;
/// How long a response without nextUpdate is believed, as NVIDIA's SDK does.
const DEFAULT_LIFE: u64 = 24 * 3600;
const MAX_CERTIFICATES: usize = 8;

/// id-pkix-ocsp-basic and id-pkix-ocsp-nonce.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
const NONCE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2];
/// id-kp-OCSPSigning, in an extended key usage.
const OCSP_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 9];
/// ecdsa-with-SHA256 and -SHA384.
const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const ECDSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
/// SHA-1, SHA-256 and SHA-384, which name certificates in responses.
const SHA1: &[u8] = &[0x2b, 0x0e, 3, 2, 0x1a];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
const SHA384: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];

/// A response that was read, and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspResponse {
    /// What was asked with, if the one who asked still knows.
    asked: Option<Vec<u8>>,
    /// ResponseData, and what its signature says.
    signed: Vec<u8>,
    algorithm: Vec<u8>,
    signature: Vec<u8>,
    responder: Responder,
    certificates: Vec<Link>,
    nonce: Option<Vec<u8>>,
    answers: Vec<Answer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Responder {
    Name(Vec<u8>),
    KeySha1(Vec<u8>),
}

/// A SingleResponse.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    hash: Vec<u8>,
    issuer_name: Vec<u8>,
    issuer_key: Vec<u8>,
    serial: Vec<u8>,
    status: Status,
    window: Window,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Good,
    Revoked { since: u64, reason: Option<u8> },
    Unknown,
}

/// What responses said of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChainStatus {
    /// Every certificate that OCSP is about was said to be good.
    pub good: bool,
    /// Every one of those answers repeats the nonce it was asked with.
    pub nonce_matches: bool,
    /// Subjects of certificates without an answer.
    pub missing: Vec<String>,
    pub window: Window,
}

impl OcspResponse {
    /// Reads a DER response. `nonce` is what was asked with; without it the response is believed
    /// for its validity, and the claims say that nobody compared a nonce.
    ///
    /// # Errors
    /// [`GpuError::Malformed`], also for a response that says that the request failed.
    pub fn parse(der: &[u8], nonce: Option<&[u8]>) -> Result<Self, GpuError> {
        if der.len() > MAX_OCSP_BYTES {
            let problem = format!("{} bytes, at most {MAX_OCSP_BYTES} allowed", der.len());
            return Err(GpuError::malformed("OCSP response", problem));
        }
        let mut response =
            read(der).map_err(|problem| GpuError::malformed("OCSP response", problem))?;
        response.asked = nonce.map(<[u8]>::to_vec);
        Ok(response)
    }

    fn answer_for(&self, subject: &Link, issuer: &Link) -> Option<&Answer> {
        let key = issuer.certificate.public_key();
        self.answers.iter().find(|answer| {
            answer.serial == subject.serial
                && hash(&answer.hash, &issuer.subject)
                    .is_some_and(|name| name.as_ref() == answer.issuer_name)
                && hash(&answer.hash, key).is_some_and(|key| key.as_ref() == answer.issuer_key)
        })
    }

    /// Signed by the issuer, or by a responder that the issuer appointed.
    fn check_signature(&self, issuer: &Link, now: u64) -> Result<(), Problem> {
        if self.is_signer(issuer) {
            return Ok(());
        }
        let signer = self.certificates.iter().find(|link| self.is_signer(link));
        let signer = signer
            .ok_or("its signature verifies under no certificate in it, nor under the issuer's")?;
        if signer.issuer != issuer.subject
            || !verifies(issuer, &signer.algorithm, &signer.tbs, &signer.signature)
            || !is_appointed(&signer.certificate)?
        {
            return Err("its signer is not appointed by the certificate's issuer");
        }
        let window = Window { from: signer.not_before, until: signer.not_after };
        if window.contains(now) {
            Ok(())
        } else {
            Err("its signer's certificate is not valid at this time")
        }
    }

    fn is_signer(&self, link: &Link) -> bool {
        let named = match &self.responder {
            Responder::Name(name) => *name == link.subject,
            Responder::KeySha1(key) => hash(SHA1, link.certificate.public_key())
                .is_some_and(|found| found.as_ref() == key.as_slice()),
        };
        named && verifies(link, &self.algorithm, &self.signed, &self.signature)
    }

    fn nonce_matches(&self) -> Result<bool, Problem> {
        match (&self.asked, &self.nonce) {
            (None, _) => Ok(false),
            (Some(asked), Some(found)) if asked == found => Ok(true),
            (Some(_), None) => Err("it does not repeat the nonce it was asked with"),
            (Some(_), Some(_)) => Err("it answers another nonce"),
        }
    }
}

/// What the responses say of the path from its link `from` up, the root excepted.
pub(super) fn check(
    path: &TrustedPath,
    from: usize,
    responses: &[OcspResponse],
    now: u64,
) -> Result<ChainStatus, GpuError> {
    let mut status = ChainStatus {
        good: true,
        nonce_matches: true,
        missing: Vec::new(),
        window: Window::ALWAYS,
    };
    for pair in path.links.windows(2).skip(from) {
        let [subject, issuer] = pair else { continue };
        let name = subject.certificate.subject();
        let found = responses
            .iter()
            .find_map(|response| Some((response, response.answer_for(subject, issuer)?)));
        let Some((response, answer)) = found else {
            status.missing.push(name);
            continue;
        };
        let refuse = |problem: String| GpuError::Ocsp { subject: name.clone(), problem };
        response.check_signature(issuer, now).map_err(|problem| refuse(problem.into()))?;
        status.nonce_matches &=
            response.nonce_matches().map_err(|problem| refuse(problem.into()))?;
        if !answer.window.contains(now) {
            let Window { from, until } = answer.window;
            let dates = format!("it is valid from {} to {}", rfc3339(from), rfc3339(until));
            return Err(refuse(format!("{dates}, not at {}", rfc3339(now))));
        }
        match answer.status {
            Status::Good => status.window = status.window.and(answer.window),
            Status::Unknown => {
                return Err(refuse("the responder does not know the certificate".into()));
            }
            Status::Revoked { since, reason } => {
                let since = rfc3339(since);
                let reason = reason.map_or_else(String::new, |reason| {
                    format!(", reason {reason} of RFC 5280 §5.3.1")
                });
                return Err(refuse(format!("revoked since {since}{reason}")));
            }
        }
    }
    status.good = status.missing.is_empty();
    status.nonce_matches &= status.good;
    Ok(status)
}

/// The extended key usage names OCSP signing.
fn is_appointed(certificate: &Certificate) -> Result<bool, Problem> {
    let usage =
        certificate.extension("2.5.29.37").map_err(|_| "its signer's key usage is there twice")?;
    let Some(usage) = usage else { return Ok(false) };
    let mut usages = Reader::sequence(usage)?;
    while !usages.is_empty() {
        if usages.read(der::OBJECT_IDENTIFIER)? == OCSP_SIGNING {
            return Ok(true);
        }
    }
    Ok(false)
}

fn verifies(by: &Link, algorithm: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = by.certificate.public_key();
    // An uncompressed point has one byte and two coordinates.
    let algorithm: &'static EcdsaVerificationAlgorithm = match (algorithm, key.len()) {
        (ECDSA_SHA384, 97) => &ECDSA_P384_SHA384_ASN1,
        (ECDSA_SHA256, 97) => &ECDSA_P384_SHA256_ASN1,
        (ECDSA_SHA384, 65) => &ECDSA_P256_SHA384_ASN1,
        (ECDSA_SHA256, 65) => &ECDSA_P256_SHA256_ASN1,
        _ => return false,
    };
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
}

fn hash(algorithm: &[u8], bytes: &[u8]) -> Option<digest::Digest> {
    let algorithm = match algorithm {
        SHA1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        SHA256 => &digest::SHA256,
        SHA384 => &digest::SHA384,
        _ => return None,
    };
    Some(digest::digest(algorithm, bytes))
}

/// RFC 6960 §4.2.1: OCSPResponse, ResponseBytes, BasicOCSPResponse.
fn read(der: &[u8]) -> Result<OcspResponse, Problem> {
    let mut response = Reader::sequence(der)?;
    if response.read(der::ENUMERATED)? != [0] {
        return Err("the responder says that the request failed");
    }
    let mut bytes = Reader::sequence(response.read(der::context(0))?)?;
    response.end()?;
    if bytes.read(der::OBJECT_IDENTIFIER)? != BASIC {
        return Err("not a basic response");
    }
    let mut basic = Reader::sequence(bytes.read(der::OCTET_STRING)?)?;
    bytes.end()?;
    let data = basic.next()?;
    let algorithm = Reader::new(basic.read(der::SEQUENCE)?).read(der::OBJECT_IDENTIFIER)?;
    let signature = der::bits(basic.read(der::BIT_STRING)?)?;
    let mut certificates = Vec::new();
    if let Some(given) = basic.optional(der::context(0))? {
        let mut given = Reader::sequence(given)?;
        while !given.is_empty() && certificates.len() < MAX_CERTIFICATES {
            let certificate = Certificate::from_der(given.next()?.whole)
                .map_err(|_| "something that is not a certificate")?;
            certificates
                .push(Link::new(certificate).map_err(|_| "something that is not a certificate")?);
        }
        given.end()?;
    }
    basic.end()?;
    let mut data_fields = Reader::new(data.value);
    data_fields.optional(der::context(0))?;
    let responder = data_fields.next()?;
    let responder = match responder.tag {
        0xa1 => Responder::Name(responder.value.to_vec()),
        0xa2 => Responder::KeySha1(Reader::only(responder.value, der::OCTET_STRING)?.to_vec()),
        _ => return Err("a responder without name or key"),
    };
    der::time(data_fields.next()?)?;
    let mut singles = Reader::new(data_fields.read(der::SEQUENCE)?);
    let nonce = data_fields.optional(der::context(1))?.map(nonce).transpose()?.flatten();
    data_fields.end()?;
    let mut answers = Vec::new();
    while !singles.is_empty() {
        answers.push(answer(Reader::new(singles.read(der::SEQUENCE)?))?);
    }
    Ok(OcspResponse {
        asked: None,
        signed: data.whole.to_vec(),
        algorithm: algorithm.to_vec(),
        signature: signature.to_vec(),
        responder,
        certificates,
        nonce,
        answers,
    })
}

/// SingleResponse.
fn answer(mut single: Reader<'_>) -> Result<Answer, Problem> {
    let mut id = Reader::new(single.read(der::SEQUENCE)?);
    let hash = Reader::new(id.read(der::SEQUENCE)?).read(der::OBJECT_IDENTIFIER)?.to_vec();
    let issuer_name = id.read(der::OCTET_STRING)?.to_vec();
    let issuer_key = id.read(der::OCTET_STRING)?.to_vec();
    let serial = id.read(der::INTEGER)?.to_vec();
    id.end()?;
    let status = single.next()?;
    let status = match status.tag {
        0x80 => Status::Good,
        0xa1 => {
            let mut revoked = Reader::new(status.value);
            let since = der::time(revoked.next()?)?;
            let reason = revoked
                .optional(der::context(0))?
                .map(|reason| Reader::only(reason, der::ENUMERATED));
            Status::Revoked {
                since,
                reason: reason.transpose()?.and_then(|reason| reason.first().copied()),
            }
        }
        0x82 => Status::Unknown,
        _ => return Err("a status that does not exist"),
    };
    let from = der::time(single.next()?)?;
    let until = single
        .optional(der::context(0))?
        .map(|until| der::time(Reader::new(until).next()?))
        .transpose()?;
    // Read only to refuse critical ones: they would change what this says.
    single.optional(der::context(1))?.map(nonce).transpose()?;
    single.end()?;
    let until = until.unwrap_or_else(|| from.saturating_add(DEFAULT_LIFE));
    let window = Window { from: from.saturating_sub(SKEW), until };
    Ok(Answer { hash, issuer_name, issuer_key, serial, status, window })
}

/// The nonce among the response's extensions; RFC 8954 wraps it in an OCTET STRING of its own.
fn nonce(extensions: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
    let mut extensions = Reader::sequence(extensions)?;
    let mut found = None;
    while !extensions.is_empty() {
        let mut extension = Reader::new(extensions.read(der::SEQUENCE)?);
        let oid = extension.read(der::OBJECT_IDENTIFIER)?;
        let critical = extension.optional(0x01)?.is_some();
        let value = extension.read(der::OCTET_STRING)?;
        match oid {
            NONCE if found.is_none() => {
                found = Some(Reader::only(value, der::OCTET_STRING).unwrap_or(value).to_vec());
            }
            NONCE => return Err("two nonces"),
            _ if critical => return Err("a critical extension of no known meaning"),
            _ => {}
        }
    }
    Ok(found)
}
