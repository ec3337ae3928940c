//! The VMSA: the page with a vCPU's initial registers (AMD APM volume 2, appendix B, table B-4).

use super::{
    digest::{LaunchDigest, sha384},
    firmware::Firmware,
    inputs::{LaunchInputs, Vmm},
};

/// Where the first vCPU starts: x86's reset vector.
const RESET_VECTOR: u32 = 0xffff_fff0;

/// Adds this many vCPUs to a digest.
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

/// The registers in which VMMs differ.
struct Initial {
    /// Attributes of CS, SS and TR.
    code: u16,
    stack: u16,
    task: u16,
    pat: u64,
    rdx: u32,
    mxcsr: u32,
    fcw: u16,
}

impl Initial {
    fn of(entry: u32, inputs: &LaunchInputs<'_>) -> Self {
        match inputs.vmm {
            Vmm::Qemu => Self {
                code: 0x9b,
                stack: 0x93,
                task: 0x8b,
                pat: 0x0007_0406_0007_0406,
                // The reset value of RDX is the processor's signature.
                rdx: inputs.vcpu_type.signature(),
                mxcsr: 0x1f80,
                fcw: 0x37f,
            },
            Vmm::Ec2 => Self {
                code: if entry == RESET_VECTOR { 0x9a } else { 0x9b },
                stack: 0x92,
                task: 0x83,
                pat: 0x0007_0406_0007_0406,
                rdx: 0x600,
                mxcsr: 0,
                fcw: 0,
            },
            Vmm::Gce => Self {
                code: 0x9b,
                stack: 0x93,
                task: 0x8b,
                pat: 0x0007_0106,
                rdx: 0x600,
                mxcsr: 0,
                fcw: 0,
            },
        }
    }
}

/// The page with a vCPU's initial registers.
fn vmsa(entry: u32, inputs: &LaunchInputs<'_>) -> [u8; 4096] {
    let initial = Initial::of(entry, inputs);
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
