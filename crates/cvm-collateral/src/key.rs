//! What a piece of collateral is filed under, and how that is written. `spelling` reads it back.

use std::fmt;

use cvm_verify::snp;

/// A product line as AMD's key distribution service names it (Siena and Bergamo are `Genoa` there).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 and 8004.
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl Product {
    /// Its name in AMD's URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// From a product name, with or without a stepping: `Milan`, `Milan-B0`, `Siena-A0`.
    pub fn from_name(name: &str) -> Option<Self> {
        snp::Product::from_name(name).map(Self::from)
    }

    /// From the CPUID family and model in a report of version 3 and later (AMD 56860, table 23).
    pub fn from_cpuid(family: u8, model: u8) -> Option<Self> {
        snp::Product::from_cpuid(family, model).map(Self::from)
    }

    /// How many bytes identify a chip: 64, and 8 on Turin (AMD 57230).
    pub fn hwid_bytes(self) -> usize {
        if self == Self::Turin { 8 } else { 64 }
    }
}

impl From<snp::Product> for Product {
    fn from(product: snp::Product) -> Self {
        match product {
            snp::Product::Milan => Self::Milan,
            snp::Product::Genoa | snp::Product::Siena => Self::Genoa,
            snp::Product::Turin => Self::Turin,
        }
    }
}

/// The security patch levels that a VCEK or VLEK belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tcb {
    /// Firmware of the boot media controller; only Turin has it.
    pub fmc: Option<u8>,
    /// Boot loader.
    pub boot_loader: u8,
    /// Trusted OS of the secure processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

impl Tcb {
    /// From a report's `TCB_VERSION` (AMD 56860, tables 4 and 5: another order on Turin).
    pub fn from_version(product: Product, version: [u8; 8]) -> Self {
        let [a, b, c, d, _, _, e, f] = version;
        match product {
            Product::Turin => Self { fmc: Some(a), boot_loader: b, tee: c, snp: d, microcode: f },
            _ => Self { fmc: None, boot_loader: a, tee: b, snp: e, microcode: f },
        }
    }
}

impl From<snp::Tcb> for Tcb {
    fn from(tcb: snp::Tcb) -> Self {
        let snp::Tcb { fmc, bootloader, tee, snp, microcode } = tcb;
        Self { fmc, boot_loader: bootloader, tee, snp, microcode }
    }
}

/// `fmc1-bl2-tee0-snp6-ucode72`; only Turin has `fmc`.
impl fmt::Display for Tcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc{fmc}-")?;
        }
        write!(f, "bl{}-tee{}-snp{}-ucode{}", self.boot_loader, self.tee, self.snp, self.microcode)
    }
}

/// Which key of AMD's a chain or a revocation list is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signer {
    /// A chip's own key, under the ASK.
    Vcek,
    /// A cloud provider's key, under the ASVK.
    Vlek,
}

impl Signer {
    /// Its name in AMD's URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vcek => "vcek",
            Self::Vlek => "vlek",
        }
    }
}

/// Whose TCB a piece of DCAP collateral states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DcapTee {
    /// SGX enclaves.
    Sgx,
    /// TDX domains.
    Tdx,
}

impl DcapTee {
    /// Its name in Intel's URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sgx => "sgx",
            Self::Tdx => "tdx",
        }
    }
}

/// Which of Intel's intermediate authorities signed a platform's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PckCa {
    /// `Intel SGX PCK Platform CA`: servers with several packages.
    Platform,
    /// `Intel SGX PCK Processor CA`.
    Processor,
}

impl PckCa {
    /// Its name in Intel's URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Processor => "processor",
        }
    }
}

/// What a piece of collateral is filed under. Its content must agree: see
/// [`crate::content::check`].
///
/// Written as `KIND NAME`, such as `amd-crl vcek/Milan`; an index holds the two apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A chip's certificate at one TCB (DER).
    Vcek {
        /// The product line.
        product: Product,
        /// The chip: [`Product::hwid_bytes`] bytes.
        hwid: Vec<u8>,
        /// The TCB.
        tcb: Tcb,
    },
    /// A cloud provider's certificate at one TCB (DER). Only the provider can get it, and sends it
    /// with evidence.
    Vlek {
        /// The product line.
        product: Product,
        /// The provider, as the certificate names it: `CN=cc-us-east-2.amazonaws.com`.
        csp: String,
        /// The TCB.
        tcb: Tcb,
    },
    /// ASK (or ASVK), then ARK (PEM).
    AmdChain(Signer, Product),
    /// What AMD revoked (DER).
    AmdCrl(Signer, Product),
    /// TCB info, QE identity, both CRLs and their chains for one family of platforms (JSON).
    Dcap {
        /// Enclaves or domains.
        tee: DcapTee,
        /// The family of platforms.
        fmspc: [u8; 6],
        /// Who signed the platform's certificate.
        ca: PckCa,
    },
    /// An NVIDIA reference manifest, by its name at NVIDIA's service (XML).
    Rim(String),
}

impl Key {
    /// Its kind, as an index writes it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Vcek { .. } => "vcek",
            Self::Vlek { .. } => "vlek",
            Self::AmdChain(..) => "amd-chain",
            Self::AmdCrl(..) => "amd-crl",
            Self::Dcap { .. } => "dcap",
            Self::Rim(_) => "rim",
        }
    }

    /// Its name among its kind.
    pub fn name(&self) -> String {
        match self {
            Self::Vcek { product, hwid, tcb } => {
                format!("{}/{}/{tcb}", product.as_str(), hex::encode(hwid))
            }
            Self::Vlek { product, csp, tcb } => format!("{}/{csp}/{tcb}", product.as_str()),
            Self::AmdChain(signer, product) | Self::AmdCrl(signer, product) => {
                format!("{}/{}", signer.as_str(), product.as_str())
            }
            Self::Dcap { tee, fmspc, ca } => {
                format!("{}/{}/{}", tee.as_str(), hex::encode(fmspc), ca.as_str())
            }
            Self::Rim(id) => id.clone(),
        }
    }

    /// The suffix of its file's name.
    pub(crate) fn suffix(&self) -> &'static str {
        match self {
            Self::Vcek { .. } | Self::Vlek { .. } => "der",
            Self::AmdChain(..) => "pem",
            Self::AmdCrl(..) => "crl",
            Self::Dcap { .. } => "json",
            Self::Rim(_) => "xml",
        }
    }

    /// The most bytes that its content may have.
    pub fn limit(&self) -> u64 {
        match self {
            Self::Vcek { .. } | Self::Vlek { .. } => 16 * 1024,
            Self::AmdChain(..) => 64 * 1024,
            Self::AmdCrl(..) => 1024 * 1024,
            // Two CRLs of at most 1 MiB each, in hex, and some 100 KiB more.
            Self::Dcap { .. } => 4 * 1024 * 1024 + 512 * 1024,
            Self::Rim(_) => 2 * 1024 * 1024,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

/// Whether a provider's name may be part of a key.
pub(crate) fn is_csp(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name.bytes().all(|b| b.is_ascii_graphic() && !b"/\"\\".contains(&b))
}

/// Whether this may be a manifest's name, which becomes part of a URL.
pub fn is_rim_id(id: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    !id.is_empty() && id.len() <= 128 && id.bytes().all(allowed) && !id.starts_with('.')
}
