//! vCPUs: their types, and the VMSA with their initial registers (AMD APM volume 2, appendix B,
//! table B-4).

use std::fmt;

use super::{
    LaunchInputs, Vmm,
    digest::{LaunchDigest, sha384},
    firmware::Firmware,
};

/// Where the first vCPU starts: x86's reset vector.
const RESET_VECTOR: u32 = 0xffff_fff0;

/// QEMU's models (`target/i386/cpu.c`, `builtin_x86_defs`): family, model, stepping.
const MODELS: [(&str, u32, u32, u32); 18] = [
    ("EPYC", 23, 1, 2),
    ("EPYC-v1", 23, 1, 2),
    ("EPYC-v2", 23, 1, 2),
    ("EPYC-IBPB", 23, 1, 2),
    ("EPYC-v3", 23, 1, 2),
    ("EPYC-v4", 23, 1, 2),
    ("EPYC-Rome", 23, 49, 0),
    ("EPYC-Rome-v1", 23, 49, 0),
    ("EPYC-Rome-v2", 23, 49, 0),
    ("EPYC-Rome-v3", 23, 49, 0),
    ("EPYC-Milan", 25, 1, 1),
    ("EPYC-Milan-v1", 25, 1, 1),
    ("EPYC-Milan-v2", 25, 1, 1),
    ("EPYC-Genoa", 25, 17, 0),
    ("EPYC-Genoa-v1", 25, 17, 0),
    ("EPYC-Turin", 26, 0, 0),
    ("EPYC-Turin-v1", 26, 0, 0),
    ("EPYC-Turin-v2", 26, 0, 0),
];

/// A vCPU's type: what its CPUID leaf 1 says in EAX, and how QEMU calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VcpuType {
    signature: u32,
    name: Option<&'static str>,
}

impl VcpuType {
    /// The type of one of QEMU's models, such as `EPYC-v4`.
    pub fn from_model(name: &str) -> Option<Self> {
        Self::models().find(|model| model.name == Some(name))
    }

    /// A type that has no name here, by CPUID leaf 1, EAX (`-cpu host` shows the machine's).
    pub fn from_signature(signature: u32) -> Self {
        Self { signature, name: None }
    }

    /// Every type with a name.
    pub fn models() -> impl Iterator<Item = Self> {
        MODELS.iter().map(|(name, family, model, stepping)| {
            let (low, extended) = if *family > 15 { (15, *family - 15) } else { (*family, 0) };
            let signature =
                extended << 20 | (model >> 4) << 16 | low << 8 | (model & 15) << 4 | stepping;
            Self { signature, name: Some(name) }
        })
    }

    pub(super) fn signature(self) -> u32 {
        self.signature
    }
}

impl fmt::Display for VcpuType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(f, "{name} (CPUID {:#010x})", self.signature),
            None => write!(f, "CPUID {:#010x}", self.signature),
        }
    }
}

/// Adds as many vCPUs.
pub(super) fn add(
    digest: LaunchDigest,
    firmware: &Firmware<'_>,
    inputs: &LaunchInputs<'_>,
    vcpus: u32,
) -> LaunchDigest {
    let mut all = each(digest, firmware, inputs);
    (0..vcpus).filter_map(|_| all.next()).last().unwrap_or(digest)
}

/// The digests with one vCPU, with two, and so on.
pub(super) fn each(
    digest: LaunchDigest,
    firmware: &Firmware<'_>,
    inputs: &LaunchInputs<'_>,
) -> impl Iterator<Item = LaunchDigest> {
    let [first, others] = [RESET_VECTOR, firmware.reset].map(|entry| sha384(&vmsa(entry, inputs)));
    let first = digest.vmsa(first);
    std::iter::successors(Some(first), move |digest| Some(digest.vmsa(others)))
}

/// The page with a vCPU's initial registers.
fn vmsa(entry: u32, inputs: &LaunchInputs<'_>) -> [u8; 4096] {
    struct Initial {
        code: u16,
        stack: u16,
        task: u16,
        pat: u64,
        rdx: u32,
        mxcsr: u32,
        fcw: u16,
    }
    let initial = match inputs.vmm {
        Vmm::Qemu => Initial {
            code: 0x9b,
            stack: 0x93,
            task: 0x8b,
            pat: 0x0007_0406_0007_0406,
            // The reset value of RDX is the processor's signature.
            rdx: inputs.vcpu_type.signature(),
            mxcsr: 0x1f80,
            fcw: 0x37f,
        },
        Vmm::Ec2 => Initial {
            code: if entry == RESET_VECTOR { 0x9a } else { 0x9b },
            stack: 0x92,
            task: 0x83,
            pat: 0x0007_0406_0007_0406,
            rdx: 0x600,
            mxcsr: 0,
            fcw: 0,
        },
        Vmm::Gce => Initial {
            code: 0x9b,
            stack: 0x93,
            task: 0x8b,
            pat: 0x0007_0106,
            rdx: 0x600,
            mxcsr: 0,
            fcw: 0,
        },
    };
    let mut page = [0; 4096];
    let mut put = |at: usize, value: &[u8]| {
        if let Some(target) = page.get_mut(at..).and_then(|rest| rest.get_mut(..value.len())) {
            target.copy_from_slice(value);
        }
    };
    // Segments: selector, attributes, limit, base.
    let base = entry & 0xffff_0000;
    for (at, selector, attributes, base) in [
        (0x00, 0u16, 0x93u16, 0u32), // ES
        (0x10, 0xf000, initial.code, base),
        (0x20, 0, initial.stack, 0),
        (0x30, 0, 0x93, 0), // DS, FS, GS
        (0x40, 0, 0x93, 0),
        (0x50, 0, 0x93, 0),
        (0x60, 0, 0, 0),    // GDTR
        (0x70, 0, 0x82, 0), // LDTR
        (0x80, 0, 0, 0),    // IDTR
        (0x90, 0, initial.task, 0),
    ] {
        put(at, &selector.to_le_bytes());
        put(at + 2, &attributes.to_le_bytes());
        put(at + 4, &0xffffu32.to_le_bytes());
        put(at + 8, &u64::from(base).to_le_bytes());
    }
    put(0xd0, &0x1000u64.to_le_bytes()); // EFER: KVM sets SVME
    put(0x148, &0x40u64.to_le_bytes()); // CR4: KVM sets MCE
    put(0x158, &0x10u64.to_le_bytes()); // CR0
    put(0x160, &0x400u64.to_le_bytes()); // DR7
    put(0x168, &0xffff_0ff0u64.to_le_bytes()); // DR6
    put(0x170, &2u64.to_le_bytes()); // RFLAGS
    put(0x178, &u64::from(entry & 0xffff).to_le_bytes()); // RIP
    put(0x268, &initial.pat.to_le_bytes());
    put(0x310, &u64::from(initial.rdx).to_le_bytes());
    put(0x3b0, &inputs.guest_features.to_le_bytes());
    put(0x3e8, &1u64.to_le_bytes()); // XCR0
    put(0x408, &initial.mxcsr.to_le_bytes());
    put(0x410, &initial.fcw.to_le_bytes());
    page
}
