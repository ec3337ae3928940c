//! The running digest (SEV-SNP ABI 56860, §8.17, `SNP_LAUNCH_UPDATE`).

use sha2::{Digest as _, Sha384};

/// KVM measures every VMSA at this address (the RMP's all ones, page aligned, 52 bits).
const VMSA_GPA: u64 = 0xffff_ffff_f000;
const PAGE: u64 = 4096;

/// What has been measured so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaunchDigest([u8; 48]);

impl Default for LaunchDigest {
    fn default() -> Self {
        Self([0; 48])
    }
}

impl LaunchDigest {
    pub(super) fn finish(self) -> [u8; 48] {
        self.0
    }

    /// Whole pages; what is left over at the end of `content` is not measured, so callers check its
    /// length.
    pub(super) fn normal(self, gpa: u64, content: &[u8]) -> Self {
        let pages = (0..).step_by(4096).zip(content.chunks_exact(4096));
        pages.fold(self, |digest, (offset, page)| {
            digest.add(1, gpa.wrapping_add(offset), sha384(page))
        })
    }

    /// A VMSA whose page has this digest.
    pub(super) fn vmsa(self, content: [u8; 48]) -> Self {
        self.add(2, VMSA_GPA, content)
    }

    pub(super) fn zero(self, gpa: u64, size: u64) -> Self {
        self.without_content(3, gpa, size)
    }

    pub(super) fn unmeasured(self, gpa: u64, size: u64) -> Self {
        self.without_content(4, gpa, size)
    }

    pub(super) fn secrets(self, gpa: u64) -> Self {
        self.without_content(5, gpa, PAGE)
    }

    pub(super) fn cpuid(self, gpa: u64) -> Self {
        self.without_content(6, gpa, PAGE)
    }

    fn without_content(self, kind: u8, gpa: u64, size: u64) -> Self {
        let pages = (0..size / PAGE).map(|page| gpa.wrapping_add(page * PAGE));
        pages.fold(self, |digest, gpa| digest.add(kind, gpa, [0; 48]))
    }

    /// Table `PAGE_INFO`: digest so far, content's digest, length 70h, type, no migration image, no
    /// permissions for VMPL 1 to 3, address.
    fn add(self, kind: u8, gpa: u64, content: [u8; 48]) -> Self {
        let hash = Sha384::new()
            .chain_update(self.0)
            .chain_update(content)
            .chain_update([0x70, 0, kind, 0, 0, 0, 0, 0])
            .chain_update(gpa.to_le_bytes());
        Self(hash.finalize().into())
    }
}

pub(super) fn sha384(bytes: &[u8]) -> [u8; 48] {
    Sha384::digest(bytes).into()
}
