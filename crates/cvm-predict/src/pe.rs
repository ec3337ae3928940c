//! Signed PE32+ images: the Authenticode digest and sections (Microsoft PE format; Windows
//! Authenticode Portable Executable Signature Format 1.0).

use std::ops::Range;

use cvm_base::{Bytes, Bytes32};
use sha2::{Digest as _, Sha256, Sha384};

use crate::error::PredictError;
use cvm_evidence::{rtmr::Bytes48, tpm::Reader};

const MAX_SECTIONS: usize = 96;
/// The length of a section header.
const SECTION_HEADER: usize = 40;
const PAST_END: &str = "a header lies past the end";

/// Name, range in the file, bytes in memory.
type Section<'a> = (&'a [u8], Range<usize>, usize);

/// A parsed image; every range lies inside its bytes.
pub(crate) struct Pe<'a> {
    pub(crate) image: &'static str,
    bytes: &'a [u8],
    checksum: usize,
    security_entry: usize,
    headers_end: usize,
    sections: Vec<Section<'a>>,
    certificates: Range<usize>,
}

impl<'a> Pe<'a> {
    pub(crate) fn parse(image: &'static str, bytes: &'a [u8]) -> Result<Self, PredictError> {
        parse(image, bytes)
            .map_err(|problem| PredictError::Image { image, problem: problem.into() })
    }

    /// The Authenticode digest, SHA-256.
    pub(crate) fn digest(&self) -> Bytes32 {
        Bytes(self.hash::<Sha256>().finalize().into())
    }

    /// The Authenticode digest, SHA-384: what a TD extends.
    pub(crate) fn digest384(&self) -> Bytes48 {
        Bytes(self.hash::<Sha384>().finalize().into())
    }

    /// Everything but the checksum, the security directory's entry and the certificates.
    fn hash<D: sha2::Digest>(&self) -> D {
        let part = |range| self.bytes.get::<Range<usize>>(range).unwrap_or_default();
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
        // The bytes between the sections and the certificates.
        let end = self.bytes.len().saturating_sub(self.certificates.len());
        hash.update(part(hashed..end.max(hashed)));
        hash
    }

    /// The digest, checked against the one that the signature states.
    pub(crate) fn signed_digest(&self) -> Result<Bytes32, PredictError> {
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
    pub(crate) fn certificates(&self) -> &'a [u8] {
        self.bytes.get(self.certificates.clone()).unwrap_or_default()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// A section's content as it lies in memory.
    pub(crate) fn section(&self, name: &str) -> Result<&'a [u8], PredictError> {
        let missing = || PredictError::Section { image: self.image, section: name.into() };
        let (_, range, size) = self.find(name).ok_or_else(missing)?;
        self.bytes.get(range.start..range.start + size).ok_or_else(missing)
    }

    fn find(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|(found, ..)| *found == name.as_bytes())
    }
}

fn parse<'a>(image: &'static str, bytes: &'a [u8]) -> Result<Pe<'a>, &'static str> {
    let headers = Headers::read(bytes)?;
    let certificates = file_range(bytes, headers.certificates)?;
    if !certificates.is_empty() && certificates.end != bytes.len() {
        return Err("the certificates are not last");
    }
    let sections = (0..headers.section_count)
        .map(|index| section(bytes, headers.section_table + SECTION_HEADER * index))
        .collect::<Result<_, _>>()?;
    Ok(Pe {
        image,
        bytes,
        checksum: headers.optional + 64,
        security_entry: headers.security_entry,
        headers_end: headers.headers_end,
        sections,
        certificates,
    })
}

/// Where an image's parts lie, as its headers say.
struct Headers {
    /// Offset of the optional header.
    optional: usize,
    /// Offset of the security directory's entry.
    security_entry: usize,
    /// The length of all headers.
    headers_end: usize,
    section_count: usize,
    /// Offset of the first section header.
    section_table: usize,
    /// Offset and length of the certificates, not checked yet.
    certificates: (usize, usize),
}

impl Headers {
    fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        if !bytes.starts_with(b"MZ") {
            return Err("no MZ header");
        }
        let coff = u32_at(bytes, 0x3c)?;
        if coff > bytes.len() || bytes.get(coff..coff + 4) != Some(b"PE\0\0") {
            return Err("no PE header");
        }
        let (section_count, optional_size) = (u16_at(bytes, coff + 6)?, u16_at(bytes, coff + 20)?);
        let optional = coff + 24;
        if u16_at(bytes, optional)? != 0x20b || optional_size < 112 + 5 * 8 {
            return Err("not PE32+ with a security directory");
        }
        if section_count > MAX_SECTIONS {
            return Err("too many sections");
        }
        let headers_end = u32_at(bytes, optional + 60)?;
        let security_entry = optional + 112 + 4 * 8;
        if security_entry + 8 > headers_end || headers_end > bytes.len() {
            return Err("the headers' size is wrong");
        }
        Ok(Self {
            optional,
            security_entry,
            headers_end,
            section_count,
            section_table: optional + optional_size,
            certificates: (u32_at(bytes, security_entry)?, u32_at(bytes, security_entry + 4)?),
        })
    }
}

/// A section by its header: name, range in the file, bytes in memory.
fn section(bytes: &[u8], header: usize) -> Result<Section<'_>, &'static str> {
    let name = bytes.get(header..header + 8).ok_or(PAST_END)?;
    let name = name.split(|b| *b == 0).next().unwrap_or_default();
    let (size, raw_size) = (u32_at(bytes, header + 8)?, u32_at(bytes, header + 16)?);
    let start = u32_at(bytes, header + 20)?;
    let raw = if raw_size == 0 { 0..0 } else { file_range(bytes, (start, raw_size))? };
    Ok((name, raw, size.min(raw_size)))
}

fn file_range(bytes: &[u8], (start, size): (usize, usize)) -> Result<Range<usize>, &'static str> {
    let range = start..start + size;
    match range.end > bytes.len() {
        true => Err("a section or certificate lies past the end"),
        false => Ok(range),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<usize, &'static str> {
    Reader::at("PE image", bytes, at).u16_le().map(usize::from).map_err(|_| PAST_END)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<usize, &'static str> {
    Reader::at("PE image", bytes, at).u32_le().map(|n| n as usize).map_err(|_| PAST_END)
}

pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
