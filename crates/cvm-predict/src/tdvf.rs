//! A TD's firmware image: its TDX metadata (Intel TDX Virtual Firmware Design Guide, §11) and what
//! follows from it: MRTD, the TD HOB that the host writes, the configuration volume.

use cvm_base::Bytes;
use sha2::{Digest as _, Sha384};

use crate::{
    error::PredictError,
    ovmf::{Guid, GuidTable, guid},
};
use cvm_evidence::{AttestError, rtmr::Bytes48, tpm::Reader};

/// How the host adds firmware's pages to the TD; MRTD depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageOrder {
    /// Each page is added, then measured: KVM as of Linux 6.16.
    PageByPage,
    /// All pages of a section are added, then all are measured: hosts before that.
    SectionBySection,
}

/// The largest image that is read, in bytes.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// The most sections that are read; OVMF has six.
const MAX_SECTIONS: u32 = 64;
/// The most memory that all sections together may ask for, in bytes.
const MAX_MEMORY: u64 = 128 * 1024 * 1024;
const PAGE: u64 = 4096;
/// TDH.MR.EXTEND measures this much.
const CHUNK: u64 = 256;

// Section types and attributes (table 11-2).
const CFV: u32 = 1;
const TD_HOB: u32 = 2;
const TEMP_MEM: u32 = 3;
const MR_EXTEND: u32 = 1;
const PAGE_AUG: u32 = 2;

/// OVMF's entry that leads to the metadata.
const METADATA: Guid = guid(0xe47a6535, 0x984a, 0x4798, 0x865e_4685a7bf8ec2);

/// A parsed image.
pub(crate) struct Tdvf<'a> {
    sections: Vec<Section<'a>>,
}

struct Section<'a> {
    /// As long as the memory where it is measured, or what the image holds of it.
    data: &'a [u8],
    address: u64,
    size: u64,
    kind: u32,
    attributes: u32,
}

impl<'a> Tdvf<'a> {
    pub(crate) fn parse(image: &'a [u8]) -> Result<Self, PredictError> {
        parse(image).map_err(|problem| PredictError::Firmware { problem: problem.into() })
    }

    /// MRTD: SHA-384 over what the host tells the TDX module to add and to measure (Intel TDX
    /// Module Base Architecture Specification, TDH.MEM.PAGE.ADD, TDH.MR.EXTEND).
    pub(crate) fn mrtd(&self, order: PageOrder) -> Bytes48 {
        let mut hash = Sha384::new();
        for section in &self.sections {
            let pages = (0..section.size / PAGE).map(|page| page * PAGE);
            match order {
                PageOrder::PageByPage => pages.for_each(|page| {
                    section.add(&mut hash, page);
                    section.extend(&mut hash, page);
                }),
                PageOrder::SectionBySection => {
                    pages.clone().for_each(|page| section.add(&mut hash, page));
                    pages.for_each(|page| section.extend(&mut hash, page));
                }
            }
        }
        Bytes(hash.finalize().into())
    }

    /// The configuration volume (variables), as firmware measures it.
    pub(crate) fn configuration(&self) -> Option<&'a [u8]> {
        self.sections.iter().find(|section| section.kind == CFV).map(|section| section.data)
    }

    /// The hand-off blocks with which QEMU (q35) describes `memory` bytes to the TD (PI 1.7 vol. 3
    /// §5).
    pub(crate) fn hob(&self, memory: u64) -> Result<Vec<u8>, PredictError> {
        /// Memory from here on moves above 4 GiB when there is at least `SPLIT_AT` of it.
        const BELOW_4G: u64 = 0x8000_0000;
        const SPLIT_AT: u64 = 0xb000_0000;
        const MEMORY: u32 = 0;
        const UNACCEPTED: u32 = 7;
        let fail = |problem: &str| PredictError::Firmware { problem: problem.into() };
        let base = self
            .sections
            .iter()
            .find(|section| section.kind == TD_HOB)
            .ok_or_else(|| fail("no TD HOB"))?
            .address;
        let mut given: Vec<_> =
            self.sections.iter().filter(|s| matches!(s.kind, TD_HOB | TEMP_MEM)).collect();
        given.sort_by_key(|section| section.address);

        let mut resources = Vec::new();
        let mut end = 0;
        for section in given {
            if section.address < end {
                return Err(fail("memory sections overlap"));
            }
            if section.address > end {
                resources.push((UNACCEPTED, end, section.address));
            }
            end = section.address + section.size;
            resources.push((MEMORY, section.address, end));
        }
        let low = if memory >= SPLIT_AT { BELOW_4G } else { memory };
        if end > low {
            return Err(fail("less memory than the firmware itself uses"));
        }
        resources.push((UNACCEPTED, end, low));
        if memory >= SPLIT_AT {
            let high = 0x1_0000_0000u64;
            resources.push((
                UNACCEPTED,
                high,
                high.checked_add(memory - low).ok_or_else(|| fail("too much memory"))?,
            ));
        }

        // PHIT: type 1, 56 bytes, version 9; its last field is the end of the list.
        let size = 56 + 48 * resources.len() as u64;
        let mut hob: Vec<u8> = [&[1, 0, 56, 0, 0, 0, 0, 0, 9, 0, 0, 0][..], &[0; 36]].concat();
        hob.extend((base + size + 8).to_le_bytes());
        for (kind, start, end) in resources {
            // Resource descriptor: type 3, 48 bytes, owner; present, initialized and tested.
            hob.extend([&[3, 0, 48, 0, 0, 0, 0, 0][..], &[0; 16]].concat());
            hob.extend(
                [&kind.to_le_bytes()[..], &7u32.to_le_bytes(), &start.to_le_bytes()].concat(),
            );
            hob.extend((end - start).to_le_bytes());
        }
        Ok(hob)
    }
}

impl Section<'_> {
    fn add(&self, hash: &mut Sha384, page: u64) {
        if self.attributes & PAGE_AUG == 0 {
            hash.update(operation(b"MEM.PAGE.ADD", self.address + page));
        }
    }

    fn extend(&self, hash: &mut Sha384, page: u64) {
        if self.attributes & MR_EXTEND == 0 {
            return;
        }
        for chunk in (page..page + PAGE).step_by(CHUNK as usize) {
            hash.update(operation(b"MR.EXTEND", self.address + chunk));
            // `parse` checked that a measured section's data is as long as its memory.
            hash.update(
                self.data.get(chunk as usize..(chunk + CHUNK) as usize).unwrap_or_default(),
            );
        }
    }
}

/// What the TDX module hashes for an operation on a page: name, address, zeros.
fn operation(name: &[u8], address: u64) -> [u8; 128] {
    let mut block = [0; 128];
    block[..name.len()].copy_from_slice(name);
    block[16..24].copy_from_slice(&address.to_le_bytes());
    block
}

fn parse(image: &[u8]) -> Result<Tdvf<'_>, &'static str> {
    const CUT: &str = "its TDX metadata lies past its end";
    if image.len() > MAX_BYTES {
        return Err("more than 64 MiB");
    }
    let start = image.len().checked_sub(metadata_offset(image)?).ok_or(CUT)?;
    let mut r = Reader::at("TDX metadata", image, start);
    let mut header = || Ok::<_, AttestError>((r.array()?, r.u32_le()?, r.u32_le()?, r.u32_le()?));
    let (signature, _length, version, count) = header().map_err(|_| CUT)?;
    if signature != *b"TDVF" || version != 1 {
        return Err("no TDVF descriptor of version 1");
    }
    if count == 0 || count > MAX_SECTIONS {
        return Err("too many sections, or none");
    }
    let mut sections = Vec::new();
    let mut memory = 0;
    for _ in 0..count {
        let section = Fields::read(&mut r).map_err(|_| CUT)?.section(image)?;
        memory += section.size;
        if memory > MAX_MEMORY {
            return Err("its sections take more than 128 MiB");
        }
        sections.push(section);
    }
    Ok(Tdvf { sections })
}

/// A section as the metadata describe it.
struct Fields {
    data_offset: u32,
    data_size: u32,
    address: u64,
    size: u64,
    kind: u32,
    attributes: u32,
}

impl Fields {
    fn read(r: &mut Reader<'_>) -> Result<Self, AttestError> {
        Ok(Self {
            data_offset: r.u32_le()?,
            data_size: r.u32_le()?,
            address: r.u64_le()?,
            size: r.u64_le()?,
            kind: r.u32_le()?,
            attributes: r.u32_le()?,
        })
    }

    fn section<'a>(&self, image: &'a [u8]) -> Result<Section<'a>, &'static str> {
        let Self { data_offset, data_size, address, size, kind, attributes } = *self;
        let data = image
            .get(data_offset as usize..)
            .and_then(|bytes| bytes.get(..data_size as usize))
            .ok_or("a section lies past its end: is this the code without its variables?")?;
        if !address.is_multiple_of(PAGE)
            || !size.is_multiple_of(PAGE)
            || size > MAX_MEMORY
            || address.checked_add(size).is_none()
        {
            return Err("a section's address or size is wrong");
        }
        if u64::from(data_size) > size
            || (attributes & MR_EXTEND != 0 && u64::from(data_size) != size)
        {
            return Err("a section's data does not fit its memory");
        }
        Ok(Section { data, address, size, kind, attributes })
    }
}

/// Where the metadata starts, counted from the image's end.
fn metadata_offset(image: &[u8]) -> Result<usize, &'static str> {
    const NONE: &str = "no TDX metadata: this build is not for TDs";
    let table = GuidTable::read(image).map_err(|_| NONE)?;
    let offset = table.find(&METADATA).and_then(|data| data.try_into().ok()).ok_or(NONE)?;
    Ok(u32::from_le_bytes(offset) as usize)
}
