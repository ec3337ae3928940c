//! Types of vCPUs.

use std::fmt;

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

/// A vCPU's type: EAX of its CPUID leaf 1, and QEMU's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VcpuType {
    signature: u32,
    name: &'static str,
}

impl VcpuType {
    /// The type of one of QEMU's models, such as `EPYC-v4`.
    pub fn from_model(name: &str) -> Option<Self> {
        Self::models().find(|model| model.name == name)
    }

    /// The types of all of QEMU's models.
    pub fn models() -> impl Iterator<Item = Self> {
        MODELS.iter().map(|(name, family, model, stepping)| {
            let (low, extended) = if *family > 15 { (15, *family - 15) } else { (*family, 0) };
            let signature =
                extended << 20 | (model >> 4) << 16 | low << 8 | (model & 15) << 4 | stepping;
            Self { signature, name }
        })
    }

    pub(super) fn signature(self) -> u32 {
        self.signature
    }
}

impl fmt::Display for VcpuType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (CPUID {:#010x})", self.name, self.signature)
    }
}
