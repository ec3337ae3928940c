//! Signed PE32+ images: the Authenticode digest and sections (Microsoft PE format; Windows
//! Authenticode Portable Executable Signature Format 1.0).

use cvm_base::{Bytes, Bytes32};
use sha2::{Digest as _, Sha256, Sha384};

use super::PredictError;
use cvm_evidence::rtmr::Bytes48;

const MAX_SECTIONS: usize = 96;

/// A parsed image; every range lies inside its bytes.
pub(super) struct Pe<'a> {
    pub(super) image: &'static str,
    bytes: &'a [u8],
    checksum: usize,
    security_entry: usize,
    headers_end: usize,
    /// Name, file range, bytes in memory.
    sections: Vec<(&'a [u8], std::ops::Range<usize>, usize)>,
    certificates: std::ops::Range<usize>,
}

impl<'a> Pe<'a> {
    pub(super) fn parse(image: &'static str, bytes: &'a [u8]) -> Result<Self, PredictError> {
        parse(image, bytes)
            .map_err(|problem| PredictError::Image { image, problem: problem.into() })
    }

    /// The Authenticode digest, SHA-256.
    pub(super) fn digest(&self) -> Bytes32 {
        Bytes(self.hash::<Sha256>().finalize().into())
    }

    /// The Authenticode digest, SHA-384: what a TD extends.
    pub(super) fn digest384(&self) -> Bytes48 {
        Bytes(self.hash::<Sha384>().finalize().into())
    }

    /// Everything but the checksum, the security directory's entry and the certificates.
    fn hash<D: sha2::Digest>(&self) -> D {
        let part = |range| self.bytes.get::<std::ops::Range<usize>>(range).unwrap_or_default();
        let mut hash = D::new();
        hash.update(part(0..self.checksum));
        hash.update(part(self.checksum + 4..self.security_entry));
        hash.update(part(self.security_entry + 8..self.headers_end));
        let mut sections: Vec<_> =
            self.sections.iter().map(|(_, range, _)| range.clone()).collect();
        sections.sort_by_key(|range| range.start);
        let mut hashed = self.headers_end;
        for range in sections {
            hashed += range.len();
            hash.update(part(range));
        }
        // What follows the sections, up to the certificates.
        let end = self.bytes.len().saturating_sub(self.certificates.len());
        hash.update(part(hashed..end.max(hashed)));
        hash
    }

    /// The digest, checked against the one that the signature states.
    pub(super) fn signed_digest(&self) -> Result<Bytes32, PredictError> {
        let image = self.image;
        let signature = self.certificates();
        if signature.is_empty() {
            return Err(PredictError::Unsigned { image });
        }
        let digest = self.digest();
        match contains(signature, &digest.0) {
            true => Ok(digest),
            false => Err(PredictError::Changed { image }),
        }
    }

    /// The attribute certificate table: PKCS #7 signatures and the certificates in them.
    pub(super) fn certificates(&self) -> &'a [u8] {
        self.bytes.get(self.certificates.clone()).unwrap_or_default()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// A section's content as it lies in memory.
    pub(super) fn section(&self, name: &str) -> Result<&'a [u8], PredictError> {
        let missing = || PredictError::Section { image: self.image, section: name.into() };
        let (_, range, size) = self.find(name).ok_or_else(missing)?;
        self.bytes.get(range.start..range.start + size).ok_or_else(missing)
    }

    fn find(&self, name: &str) -> Option<&(&'a [u8], std::ops::Range<usize>, usize)> {
        self.sections.iter().find(|(found, ..)| *found == name.as_bytes())
    }
}

fn parse<'a>(image: &'static str, bytes: &'a [u8]) -> Result<Pe<'a>, &'static str> {
    let u16_at = |at: usize| {
        let field = bytes
            .get(at..at + 2)
            .and_then(|b| b.try_into().ok())
            .ok_or("a header lies past the end")?;
        Ok::<_, &str>(usize::from(u16::from_le_bytes(field)))
    };
    let u32_at = |at: usize| {
        let field = bytes
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .ok_or("a header lies past the end")?;
        Ok::<_, &str>(u32::from_le_bytes(field) as usize)
    };
    if !bytes.starts_with(b"MZ") {
        return Err("no MZ header");
    }
    let coff = u32_at(0x3c)?;
    if coff > bytes.len() || bytes.get(coff..coff + 4) != Some(b"PE\0\0") {
        return Err("no PE header");
    }
    let (section_count, optional_size) = (u16_at(coff + 6)?, u16_at(coff + 20)?);
    let optional = coff + 24;
    if u16_at(optional)? != 0x20b || optional_size < 112 + 5 * 8 {
        return Err("not PE32+ with a security directory");
    }
    if section_count > MAX_SECTIONS {
        return Err("too many sections");
    }
    let headers_end = u32_at(optional + 60)?;
    let security_entry = optional + 112 + 4 * 8;
    let table = optional + optional_size;
    if security_entry + 8 > headers_end || headers_end > bytes.len() {
        return Err("the headers' size is wrong");
    }
    let range = |start: usize, size: usize| {
        let range = start..start + size;
        if range.end > bytes.len() {
            Err("a section or certificate lies past the end")
        } else {
            Ok(range)
        }
    };
    let certificates = range(u32_at(security_entry)?, u32_at(security_entry + 4)?)?;
    if !certificates.is_empty() && certificates.end != bytes.len() {
        return Err("the certificates are not last");
    }
    let mut sections = Vec::new();
    for index in 0..section_count {
        let header = table + 40 * index;
        let name = bytes.get(header..header + 8).ok_or("a header lies past the end")?;
        let name = name.split(|b| *b == 0).next().unwrap_or_default();
        let (size, raw_size, start) =
            (u32_at(header + 8)?, u32_at(header + 16)?, u32_at(header + 20)?);
        let raw = if raw_size == 0 { 0..0 } else { range(start, raw_size)? };
        sections.push((name, raw, size.min(raw_size)));
    }
    Ok(Pe {
        image,
        bytes,
        checksum: optional + 64,
        security_entry,
        headers_end,
        sections,
        certificates,
    })
}

pub(super) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
