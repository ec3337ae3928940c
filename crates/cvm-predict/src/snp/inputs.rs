//! What determines a launch digest, and the prediction that names all of it.

use cvm_base::{Bytes, sha256};
use serde::{Deserialize, Serialize};

use super::vcpu_type::VcpuType;

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
    pub(super) const ALL: [Self; 3] = [Self::Qemu, Self::Ec2, Self::Gce];

    pub(super) fn name(self) -> &'static str {
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

impl LaunchInputs<'_> {
    /// Every input by name, in a fixed order.
    pub(super) fn named(&self) -> Vec<LaunchInput> {
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
