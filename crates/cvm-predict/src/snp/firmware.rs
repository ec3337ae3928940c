//! What OVMF says about itself: the table of GUIDs at its end and the SEV metadata (edk2,
//! `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`, `OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm`).

use super::{LaunchError, digest::LaunchDigest};

/// QEMU maps at most 16 MiB of flash; a margin.
const MAX_FIRMWARE_BYTES: usize = 64 * 1024 * 1024;
/// OVMF has six to eight sections.
const MAX_SECTIONS: u32 = 64;
/// OVMF names some 2 MiB; a bound on the time that a false size costs.
const MAX_SECTION_BYTES: u64 = 16 * 1024 * 1024;

const FOOTER: [u8; 16] = guid(0x96b582de, 0x1fb2, 0x45f7, 0xbaea_a366c55a082d);
const HASH_TABLE: [u8; 16] = guid(0x7255371f, 0x3a3b, 0x4b04, 0x927b_1da6efa8d454);
const RESET_BLOCK: [u8; 16] = guid(0x00f771de, 0x1a7e, 0x4fcb, 0x890e_68c77e2fb44e);
const METADATA: [u8; 16] = guid(0xdc886566, 0x984a, 0x4798, 0xa75e_5585a7bf67cc);

/// Pages that the VMM adds for the firmware.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section {
    pub gpa: u64,
    pub size: u64,
    pub kind: u32,
}

impl Section {
    pub(super) const MEMORY: u32 = 1;
    pub(super) const SECRETS: u32 = 2;
    pub(super) const CPUID: u32 = 3;
    pub(super) const SVSM_CALLING_AREA: u32 = 4;
    pub(super) const KERNEL_HASHES: u32 = 0x10;
}

/// A firmware image that was read.
#[derive(Debug)]
pub(super) struct Firmware<'a> {
    image: &'a [u8],
    /// Where the application processors start.
    pub reset: u32,
    /// Where the kernel's hashes are expected, if the firmware measures them.
    pub hash_table: Option<u32>,
    pub sections: Vec<Section>,
}

impl<'a> Firmware<'a> {
    pub(super) fn parse(image: &'a [u8]) -> Result<Self, LaunchError> {
        if image.starts_with(b"IGVM") {
            return Err(LaunchError::firmware(
                "it is an IGVM file, which is predicted as one (`launch_igvm`)",
            ));
        }
        if !image.len().is_multiple_of(4096) || image.len() > MAX_FIRMWARE_BYTES {
            let problem = format!("{} bytes are not whole pages up to 64 MiB", image.len());
            return Err(LaunchError::firmware(problem));
        }
        let table = table(image)?;
        let word = |guid| {
            table.iter().find(|(found, _)| *found == guid).and_then(|(_, data)| u32_at(data, 0))
        };
        let reset = word(&RESET_BLOCK)
            .ok_or_else(|| LaunchError::firmware("it has no SEV-ES reset block"))?;
        let metadata =
            word(&METADATA).ok_or_else(|| LaunchError::firmware("it has no SEV metadata"))?;
        let hash_table = word(&HASH_TABLE).filter(|place| *place != 0);
        Ok(Self { image, reset, hash_table, sections: sections(image, metadata)? })
    }

    /// The image itself, which ends at 4 GiB.
    pub(super) fn memory(&self, digest: LaunchDigest) -> LaunchDigest {
        digest.normal((1 << 32) - self.image.len() as u64, self.image)
    }
}

/// A GUID's first three groups are little endian.
pub(super) const fn guid(a: u32, b: u16, c: u16, rest: u64) -> [u8; 16] {
    let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) =
        (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    let [d0, d1, d2, d3, d4, d5, d6, d7] = rest.to_be_bytes();
    [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7]
}

type Entry<'a> = (&'a [u8; 16], &'a [u8]);

/// The table ends 32 bytes before the image does and is read from its end: each entry is data, its
/// length with these 18 bytes, GUID. The last one's length is the table's.
fn table(image: &[u8]) -> Result<Vec<Entry<'_>>, LaunchError> {
    let none = || LaunchError::firmware("it has no table of GUIDs at its end");
    let end = image.len().checked_sub(32).and_then(|end| image.get(..end)).ok_or_else(none)?;
    let (before, length, _) =
        entry(end).filter(|(_, _, guid)| *guid == &FOOTER).ok_or_else(none)?;
    let start = before
        .len()
        .checked_sub(length)
        .ok_or_else(|| LaunchError::firmware("its table is longer than it"))?;
    let mut rest = before.get(start..).unwrap_or_default();
    let mut found = Vec::new();
    while let Some((before, length, guid)) = entry(rest) {
        let (next, data) = before
            .len()
            .checked_sub(length)
            .and_then(|start| before.split_at_checked(start))
            .ok_or_else(|| {
                LaunchError::firmware("an entry of its table is longer than the table")
            })?;
        found.push((guid, data));
        rest = next;
    }
    Ok(found)
}

/// What is before the last entry's length and GUID, the length of its data, its GUID.
fn entry(bytes: &[u8]) -> Option<(&[u8], usize, &[u8; 16])> {
    let (rest, guid) = bytes.split_last_chunk::<16>()?;
    let (rest, length) = rest.split_last_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length)).checked_sub(18)?;
    Some((rest, length, guid))
}

fn sections(image: &[u8], offset_from_end: u32) -> Result<Vec<Section>, LaunchError> {
    let fail = |problem: &str| LaunchError::firmware(format!("its SEV metadata {problem}"));
    let start =
        usize::try_from(offset_from_end).ok().and_then(|offset| image.len().checked_sub(offset));
    let header =
        start.and_then(|start| image.get(start..)).ok_or_else(|| fail("begins before it"))?;
    let word = |at| u32_at(header, at).ok_or_else(|| fail("ends behind it"));
    let (signature, size, version, count) = (word(0)?, word(4)?, word(8)?, word(12)?);
    if signature.to_le_bytes() != *b"ASEV" || version != 1 {
        return Err(fail("is not of version 1"));
    }
    if count > MAX_SECTIONS || u64::from(size) < 16 + 12 * u64::from(count) {
        return Err(fail("has more sections than fit"));
    }
    (0..count as usize)
        .map(|index| {
            let at = 16 + 12 * index;
            let (gpa, size, kind) = (u64::from(word(at)?), u64::from(word(at + 4)?), word(at + 8)?);
            match kind {
                Section::MEMORY
                | Section::SECRETS
                | Section::CPUID
                | Section::SVSM_CALLING_AREA
                | Section::KERNEL_HASHES => {}
                _ => return Err(fail(&format!("has a section of the unknown type {kind}"))),
            }
            match size.is_multiple_of(4096) && size <= MAX_SECTION_BYTES {
                true => Ok(Section { gpa, size, kind }),
                false => Err(fail(&format!("has a section of {size} bytes"))),
            }
        })
        .collect()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map(|word| u32::from_le_bytes(*word))
}
