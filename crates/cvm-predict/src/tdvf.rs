//! A TD's firmware image: its TDX metadata (Intel TDX Virtual Firmware Design Guide, §11) and what
//! follows from it: MRTD, the TD HOB that the host writes, the configuration volume.

use cvm_base::Bytes;
use sha2::{Digest as _, Sha384};

use super::{PredictError, tdx::PageOrder};
use cvm_evidence::rtmr::Bytes48;

/// More than any firmware.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// More than any firmware has.
const MAX_SECTIONS: u32 = 64;
/// More memory than any firmware asks for, all sections together.
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

// EFI_GUIDs in memory order: OVMF's table footer, and its entry that leads to the metadata.
const FOOTER: [u8; 16] = [
    0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d,
];
const METADATA: [u8; 16] = [
    0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2,
];

/// A parsed image.
pub(super) struct Tdvf<'a> {
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
    pub(super) fn parse(image: &'a [u8]) -> Result<Self, PredictError> {
        parse(image).map_err(|problem| PredictError::Firmware { problem: problem.into() })
    }

    /// MRTD: SHA-384 over what the host tells the TDX module to add and to measure (Intel TDX
    /// Module Base Architecture Specification, TDH.MEM.PAGE.ADD, TDH.MR.EXTEND).
    pub(super) fn mrtd(&self, order: PageOrder) -> Bytes48 {
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
    pub(super) fn configuration(&self) -> Option<&'a [u8]> {
        self.sections.iter().find(|section| section.kind == CFV).map(|section| section.data)
    }

    /// The hand-off blocks with which QEMU (q35) describes `memory` bytes to the TD (PI 1.7 vol. 3
    /// §5).
    pub(super) fn hob(&self, memory: u64) -> Result<Vec<u8>, PredictError> {
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
    let offset = metadata_offset(image)?;
    let start = image.len().checked_sub(offset).ok_or(CUT)?;
    let metadata = image.get(start..).ok_or(CUT)?;
    let u32_at = |at: usize| {
        let field = metadata.get(at..).and_then(|bytes| bytes.first_chunk()).ok_or(CUT)?;
        Ok::<u32, &str>(u32::from_le_bytes(*field))
    };
    let u64_at = |at: usize| {
        let field = metadata.get(at..).and_then(|bytes| bytes.first_chunk()).ok_or(CUT)?;
        Ok::<u64, &str>(u64::from_le_bytes(*field))
    };
    if !metadata.starts_with(b"TDVF") || u32_at(8)? != 1 {
        return Err("no TDVF descriptor of version 1");
    }
    let count = u32_at(12)?;
    if count == 0 || count > MAX_SECTIONS {
        return Err("too many sections, or none");
    }
    let mut sections = Vec::new();
    let mut memory = 0;
    for index in 0..count as usize {
        let at = 16 + 32 * index;
        let (data_offset, data_size) = (u32_at(at)? as usize, u32_at(at + 4)?);
        let (address, size) = (u64_at(at + 8)?, u64_at(at + 16)?);
        let (kind, attributes) = (u32_at(at + 24)?, u32_at(at + 28)?);
        let data = image.get(data_offset..).and_then(|bytes| bytes.get(..data_size as usize));
        let data =
            data.ok_or("a section lies past its end: is this the code without its variables?")?;
        if address % PAGE != 0
            || size % PAGE != 0
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
        memory += size;
        if memory > MAX_MEMORY {
            return Err("its sections take more than 128 MiB");
        }
        sections.push(Section { data, address, size, kind, attributes });
    }
    Ok(Tdvf { sections })
}

/// Where the metadata starts, counted from the image's end: in OVMF's table of GUIDs, which is read
/// backwards from 32 bytes before the end; each entry is data, length of all three, GUID.
fn metadata_offset(image: &[u8]) -> Result<usize, &'static str> {
    const NONE: &str = "no TDX metadata: this build is not for TDs";
    let table = image.get(..image.len().saturating_sub(32)).unwrap_or_default();
    let (guid, length, rest) = entry(table).ok_or(NONE)?;
    if guid != FOOTER {
        return Err(NONE);
    }
    let mut table = rest.get(rest.len().saturating_sub(length)..).unwrap_or_default();
    while let Some((guid, length, rest)) = entry(table) {
        let (before, data) =
            rest.split_at_checked(rest.len().saturating_sub(length)).ok_or(NONE)?;
        if guid == METADATA {
            let offset = data.first_chunk().filter(|_| length == 4).ok_or(NONE)?;
            return Ok(u32::from_le_bytes(*offset) as usize);
        }
        table = before;
    }
    Err(NONE)
}

/// The last entry of a table: its GUID, the length of its data, and everything before its length.
fn entry(table: &[u8]) -> Option<([u8; 16], usize, &[u8])> {
    let (rest, guid) = table.split_last_chunk::<16>()?;
    let (rest, length) = rest.split_last_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length)).checked_sub(18)?;
    Some((*guid, length, rest))
}
