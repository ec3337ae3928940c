//! What OVMF says about itself for SEV: its table of GUIDs leads to its SEV metadata (edk2,
//! `OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm`).

use cvm_evidence::tpm::Reader;

use super::{digest::LaunchDigest, error::LaunchError};
use crate::ovmf::{Guid, GuidTable, guid};

/// The largest image that is read, in bytes. QEMU maps at most 16 MiB of flash.
const MAX_FIRMWARE_BYTES: usize = 64 * 1024 * 1024;
/// The most sections that are read; OVMF has six to eight.
const MAX_SECTIONS: u32 = 64;
/// The longest section, in bytes. OVMF names some 2 MiB. A false size costs bounded time.
const MAX_SECTION_BYTES: u64 = 16 * 1024 * 1024;

const HASH_TABLE: Guid = guid(0x7255371f, 0x3a3b, 0x4b04, 0x927b_1da6efa8d454);
const RESET_BLOCK: Guid = guid(0x00f771de, 0x1a7e, 0x4fcb, 0x890e_68c77e2fb44e);
const METADATA: Guid = guid(0xdc886566, 0x984a, 0x4798, 0xa75e_5585a7bf67cc);

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
        let table = GuidTable::read(image).map_err(LaunchError::firmware)?;
        let word = |guid| Reader::new("entry", table.find(guid)?).u32_le().ok();
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

fn sections(image: &[u8], offset_from_end: u32) -> Result<Vec<Section>, LaunchError> {
    let fail = |problem: &str| LaunchError::firmware(format!("its SEV metadata {problem}"));
    let start =
        usize::try_from(offset_from_end).ok().and_then(|offset| image.len().checked_sub(offset));
    let start = start.ok_or_else(|| fail("begins before it"))?;
    let mut r = Reader::at("SEV metadata", image, start);
    let mut word = || r.u32_le().map_err(|_| fail("ends after it"));
    let (signature, size, version, count) = (word()?, word()?, word()?, word()?);
    if signature.to_le_bytes() != *b"ASEV" || version != 1 {
        return Err(fail("is not of version 1"));
    }
    if count > MAX_SECTIONS || u64::from(size) < 16 + 12 * u64::from(count) {
        return Err(fail("has more sections than fit"));
    }
    (0..count)
        .map(|_| {
            let (gpa, size, kind) = (u64::from(word()?), u64::from(word()?), word()?);
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
