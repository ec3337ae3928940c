//! The SEV-SNP launch digest of an image from its files alone, and which input a wrong digest is
//! due to.
//!
//! The firmware (AMD-SP) hashes each page that the VMM adds before launch into a running digest
//! (SEV-SNP ABI 56860, §8.17, table `PAGE_INFO`). What a VMM adds for OVMF, in this order: the
//! firmware image; the pages that its SEV metadata names, among them the hashes of kernel, initrd
//! and command line; one VMSA, the initial registers, for each vCPU. Checked against
//! `sev-snp-measure` 0.0.13, whose rules for EC2 and GCE these are (the `sev` crate 8.0.0 has older
//! ones for EC2, and none for GCE).

mod digest;
mod error;
mod explain;
mod firmware;
mod igvm;
mod vcpu;

use cvm_base::{Bytes, sha256};
use serde::{Deserialize, Serialize};

pub use error::LaunchError;
pub use explain::{LaunchDifference, explain, variants};
pub use igvm::launch_igvm;
pub use vcpu::VcpuType;

use digest::LaunchDigest;
use firmware::{Firmware, Section};

/// More vCPUs than any machine gives to one guest.
const MAX_VCPUS: u32 = 1024;

/// Who launches the guest: VMMs differ in the initial registers and in the order of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Vmm {
    /// QEMU with KVM.
    Qemu,
    /// Amazon EC2.
    Ec2,
    /// Google Compute Engine.
    Gce,
}

impl Vmm {
    const ALL: [Self; 3] = [Self::Qemu, Self::Ec2, Self::Gce];

    fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Ec2 => "ec2",
            Self::Gce => "gce",
        }
    }
}

/// What QEMU's `kernel-hashes=on` puts into the hashes table.
#[derive(Debug, Clone, Copy)]
pub struct Kernel<'a> {
    /// The kernel's file.
    pub image: &'a [u8],
    /// The initrd's file; empty without one.
    pub initrd: &'a [u8],
    /// The command line, without a NUL.
    pub command_line: &'a str,
}

/// What determines a launch digest.
#[derive(Debug, Clone, Copy)]
pub struct LaunchInputs<'a> {
    /// The firmware's file, as it is mapped below 4 GiB.
    pub firmware: &'a [u8],
    /// With direct kernel boot; needs a firmware that measures it (OVMF's AmdSev build).
    pub kernel: Option<Kernel<'a>>,
    /// How many vCPUs the guest starts with.
    pub vcpus: u32,
    /// Their type; only its CPUID signature is measured, and by QEMU only.
    pub vcpu_type: VcpuType,
    /// SEV_FEATURES of the VMSA: bit 0 is SNP itself, bit 5 debug swap (Linux 6.11 and newer set it
    /// by default).
    pub guest_features: u64,
    /// Who launches the guest.
    pub vmm: Vmm,
}

/// An input of the prediction, named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchInput {
    /// `firmware`, `kernel`, `initrd`, `command_line`, `vcpus`, `vcpu_type`, `guest_features`,
    /// `vmm`.
    pub name: String,
    /// The value; of files the SHA-256.
    pub value: String,
}

/// A predicted launch digest and everything that it was computed from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchPrediction {
    /// `MEASUREMENT` of the report.
    pub measurement: Bytes<48>,
    /// In a fixed order.
    pub inputs: Vec<LaunchInput>,
}

/// Predicts the launch digest.
///
/// # Errors
/// [`LaunchError`] when the firmware has no SEV-SNP metadata, or none for a kernel, and for absurd
/// inputs.
pub fn launch(inputs: &LaunchInputs<'_>) -> Result<LaunchPrediction, LaunchError> {
    let measurement = Bytes(measure(inputs)?);
    Ok(LaunchPrediction { measurement, inputs: inputs.named() })
}

impl LaunchInputs<'_> {
    fn named(&self) -> Vec<LaunchInput> {
        let file = |bytes: &[u8]| format!("sha256:{}", sha256(bytes));
        let kernel =
            |of: fn(&Kernel<'_>) -> String| self.kernel.as_ref().map_or("none".to_owned(), of);
        [
            ("firmware", file(self.firmware)),
            ("kernel", self.kernel.map_or("none".to_owned(), |kernel| file(kernel.image))),
            ("initrd", self.kernel.map_or("none".to_owned(), |kernel| file(kernel.initrd))),
            ("command_line", kernel(|kernel| kernel.command_line.to_owned())),
            ("vcpus", self.vcpus.to_string()),
            ("vcpu_type", self.vcpu_type.to_string()),
            ("guest_features", format!("{:#x}", self.guest_features)),
            ("vmm", self.vmm.name().to_owned()),
        ]
        .map(|(name, value)| LaunchInput { name: name.into(), value })
        .into()
    }
}

fn measure(inputs: &LaunchInputs<'_>) -> Result<[u8; 48], LaunchError> {
    if !(1..=MAX_VCPUS).contains(&inputs.vcpus) {
        return Err(LaunchError::Vcpus { found: inputs.vcpus });
    }
    let firmware = Firmware::parse(inputs.firmware)?;
    let memory = firmware.memory(LaunchDigest::default());
    let pages = metadata(&firmware, memory, inputs.kernel.as_ref(), inputs.vmm)?;
    Ok(vcpu::add(pages, &firmware, inputs, inputs.vcpus).finish())
}

/// The pages that the firmware's metadata names.
fn metadata(
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
            // EC2 adds it behind all others.
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
    const TABLE: [u8; 16] = firmware::guid(0x9438d606, 0x4f22, 0x4cc9, 0xb479_a793d411fd21);
    const COMMAND_LINE: [u8; 16] = firmware::guid(0x97d02dd8, 0xbd20, 0x4c94, 0xaa78_e7714d36ab2a);
    const INITRD: [u8; 16] = firmware::guid(0x44baf731, 0x3a2f, 0x4bd7, 0x9af1_41e29169781d);
    const IMAGE: [u8; 16] = firmware::guid(0x4de79437, 0xabd2, 0x427f, 0xb835_d5b172d2045b);
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
