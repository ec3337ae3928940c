//! The hardware under Azure's vTPM.

/// The hardware under a vTPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardwareKind {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
}

impl HardwareKind {
    /// Trustee's name of the vTPM kind over this hardware: `az-snp-vtpm`, `az-tdx-vtpm`.
    pub fn tee(self) -> &'static str {
        match self {
            Self::Snp => "az-snp-vtpm",
            Self::Tdx => "az-tdx-vtpm",
        }
    }
}

impl std::fmt::Display for HardwareKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Snp => "SEV-SNP",
            Self::Tdx => "TDX",
        })
    }
}
