//! The launch digest of OVMF, with or without a kernel beside it.

use cvm_base::{Bytes, sha256};

use super::{
    digest::LaunchDigest,
    error::LaunchError,
    firmware::{Firmware, Section},
    inputs::{Kernel, LaunchInputs, LaunchPrediction, Vmm},
    vmsa,
};
use crate::ovmf::{Guid, guid};

/// More vCPUs than any machine gives to one guest.
const MAX_VCPUS: u32 = 1024;

/// Predicts the launch digest.
///
/// # Errors
/// [`LaunchError`] when the firmware has no SEV-SNP metadata, or none for a kernel, and for a
/// number of vCPUs that no guest has.
pub fn launch(inputs: &LaunchInputs<'_>) -> Result<LaunchPrediction, LaunchError> {
    let measurement = Bytes(measure(inputs)?);
    Ok(LaunchPrediction { measurement, inputs: inputs.named() })
}

/// The launch digest.
pub(super) fn measure(inputs: &LaunchInputs<'_>) -> Result<[u8; 48], LaunchError> {
    if !(1..=MAX_VCPUS).contains(&inputs.vcpus) {
        return Err(LaunchError::Vcpus { found: inputs.vcpus });
    }
    let firmware = Firmware::parse(inputs.firmware)?;
    let memory = firmware.memory(LaunchDigest::default());
    let pages = metadata(&firmware, memory, inputs.kernel.as_ref(), inputs.vmm)?;
    Ok(vmsa::add(pages, &firmware, inputs, inputs.vcpus).finish())
}

/// The pages that the firmware's metadata names.
pub(super) fn metadata(
    firmware: &Firmware<'_>,
    mut digest: LaunchDigest,
    kernel: Option<&Kernel<'_>>,
    vmm: Vmm,
) -> Result<LaunchDigest, LaunchError> {
    if kernel.is_some()
        && !firmware.sections.iter().any(|section| section.kind == Section::KERNEL_HASHES)
    {
        return Err(LaunchError::KernelHashes);
    }
    for section in &firmware.sections {
        digest = match section.kind {
            Section::SECRETS => digest.secrets(section.gpa),
            // EC2 adds it after all others.
            Section::CPUID if vmm == Vmm::Ec2 => digest,
            Section::CPUID => digest.cpuid(section.gpa),
            Section::KERNEL_HASHES => match kernel {
                Some(kernel) => {
                    digest.normal(section.gpa, &kernel_hashes(kernel, firmware, section)?)
                }
                None => digest.zero(section.gpa, section.size),
            },
            Section::MEMORY if vmm == Vmm::Gce => digest.unmeasured(section.gpa, section.size),
            _ => digest.zero(section.gpa, section.size),
        };
    }
    if vmm == Vmm::Ec2 {
        let cpuid = firmware.sections.iter().filter(|section| section.kind == Section::CPUID);
        digest = cpuid.fold(digest, |digest, section| digest.cpuid(section.gpa));
    }
    Ok(digest)
}

/// The page with the hashes table, as QEMU writes it (`target/i386/sev.c`, `SevHashTable`).
fn kernel_hashes(
    kernel: &Kernel<'_>,
    firmware: &Firmware<'_>,
    section: &Section,
) -> Result<[u8; 4096], LaunchError> {
    const TABLE: Guid = guid(0x9438d606, 0x4f22, 0x4cc9, 0xb479_a793d411fd21);
    const COMMAND_LINE: Guid = guid(0x97d02dd8, 0xbd20, 0x4c94, 0xaa78_e7714d36ab2a);
    const INITRD: Guid = guid(0x44baf731, 0x3a2f, 0x4bd7, 0x9af1_41e29169781d);
    const IMAGE: Guid = guid(0x4de79437, 0xabd2, 0x427f, 0xb835_d5b172d2045b);
    let place = firmware.hash_table.ok_or(LaunchError::KernelHashes)?;
    let command_line = [kernel.command_line.as_bytes(), &[0]].concat();
    let mut table = [&TABLE[..], &168u16.to_le_bytes()].concat();
    for (guid, content) in
        [(COMMAND_LINE, &command_line[..]), (INITRD, kernel.initrd), (IMAGE, kernel.image)]
    {
        table.extend(guid);
        table.extend(50u16.to_le_bytes());
        table.extend(sha256(content).0);
    }
    // It is padded to a multiple of 16 bytes, with zeros as the rest of the page is.
    let offset = usize::try_from(place % 4096).unwrap_or(usize::MAX);
    let mut page = [0; 4096];
    match page.get_mut(offset..).and_then(|rest| rest.get_mut(..table.len())) {
        Some(target) if section.size == 4096 => target.copy_from_slice(&table),
        _ => return Err(LaunchError::firmware("its hashes table does not fit into one page")),
    }
    Ok(page)
}
