//! What a piece of collateral is filed under, and how that is written.

use std::{fmt, str::FromStr};

use super::CollateralError;
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

    /// How many bytes name a chip: 64, and 8 on Turin (AMD 57230).
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

/// `fmc1-bl2-tee0-snp6-ucode72`, without `fmc` but on Turin.
impl fmt::Display for Tcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc{fmc}-")?;
        }
        write!(f, "bl{}-tee{}-snp{}-ucode{}", self.boot_loader, self.tee, self.snp, self.microcode)
    }
}

impl FromStr for Tcb {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('-').peekable();
        let mut level = |name: &str, optional: bool| match parts
            .peek()
            .and_then(|part| part.strip_prefix(name))
        {
            None if optional => Ok(None),
            None => Err(()),
            Some(digits) => {
                let level = digits.parse().map_err(|_| ());
                parts.next();
                level.map(Some)
            }
        };
        let fmc = level("fmc", true)?;
        let mut needed = |name| level(name, false)?.ok_or(());
        let tcb = Self {
            fmc,
            boot_loader: needed("bl")?,
            tee: needed("tee")?,
            snp: needed("snp")?,
            microcode: needed("ucode")?,
        };
        if parts.next().is_none() && tcb.to_string() == text { Ok(tcb) } else { Err(()) }
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
/// [`super::content::check`].
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
    /// A cloud provider's certificate at one TCB (DER). Only the provider can get it: it comes with
    /// evidence.
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

    /// Reads what [`Key::kind`] and [`Key::name`] wrote; nothing else.
    ///
    /// # Errors
    /// [`CollateralError::Unknown`].
    pub fn parse(kind: &str, name: &str) -> Result<Self, CollateralError> {
        let shown = |text: &str| text.chars().take(200).collect::<String>();
        let fail =
            || CollateralError::unknown("a key", format!("{:?} {:?}", shown(kind), shown(name)));
        let key = Self::read(kind, name).ok_or_else(fail)?;
        // One key, one spelling.
        if key.kind() == kind && key.name() == name { Ok(key) } else { Err(fail()) }
    }

    fn read(kind: &str, name: &str) -> Option<Self> {
        let product = |name: &str| Product::from_name(name);
        let parts: Vec<&str> = name.splitn(4, '/').collect();
        Some(match (kind, parts.as_slice()) {
            ("vcek", [line, hwid, tcb]) => {
                let (product, hwid) = (product(line)?, hex::decode(hwid).ok()?);
                let tcb: Tcb = tcb.parse().ok()?;
                let fits = hwid.len() == product.hwid_bytes()
                    && tcb.fmc.is_some() == (product == Product::Turin);
                fits.then_some(Self::Vcek { product, hwid, tcb })?
            }
            ("vlek", [line, csp, tcb]) => {
                let (product, tcb) = (product(line)?, tcb.parse::<Tcb>().ok()?);
                let fits = is_csp(csp) && tcb.fmc.is_some() == (product == Product::Turin);
                fits.then(|| Self::Vlek { product, csp: (*csp).into(), tcb })?
            }
            ("amd-chain", [who, line]) => Self::AmdChain(signer(who)?, product(line)?),
            ("amd-crl", [who, line]) => Self::AmdCrl(signer(who)?, product(line)?),
            ("dcap", [tee, fmspc, ca]) => {
                let mut bytes = [0; 6];
                hex::decode_to_slice(fmspc, &mut bytes).ok()?;
                let tee = match *tee {
                    "sgx" => DcapTee::Sgx,
                    "tdx" => DcapTee::Tdx,
                    _ => return None,
                };
                let ca = match *ca {
                    "platform" => PckCa::Platform,
                    "processor" => PckCa::Processor,
                    _ => return None,
                };
                Self::Dcap { tee, fmspc: bytes, ca }
            }
            ("rim", [id]) if is_rim_id(id) => Self::Rim((*id).into()),
            _ => return None,
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

fn signer(name: &str) -> Option<Signer> {
    match name {
        "vcek" => Some(Signer::Vcek),
        "vlek" => Some(Signer::Vlek),
        _ => None,
    }
}

/// A provider's name that can stand in a key.
pub(crate) fn is_csp(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name.bytes().all(|b| b.is_ascii_graphic() && !b"/\"\\".contains(&b))
}

/// A manifest's name: it becomes part of a URL.
pub fn is_rim_id(id: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    !id.is_empty() && id.len() <= 128 && id.bytes().all(allowed) && !id.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_reads_back_and_has_one_spelling() {
        let hwid = "d4".repeat(64);
        for (kind, name) in [
            ("vcek", format!("Milan/{hwid}/bl3-tee0-snp8-ucode115")),
            ("vcek", "Turin/1e550a8ee5cf9f4d/fmc0-bl0-tee0-snp0-ucode9".into()),
            ("vlek", "Milan/CN=cc-us-east-2.amazonaws.com/bl4-tee0-snp24-ucode217".into()),
            ("amd-chain", "vlek/Turin".into()),
            ("amd-crl", "vcek/Genoa".into()),
            ("dcap", "tdx/50806f000000/platform".into()),
            ("rim", "NV_GPU_DRIVER_GH100_545.00".into()),
        ] {
            let key = Key::parse(kind, &name).unwrap();
            assert_eq!(key.to_string(), format!("{kind} {name}"));
        }
        for (kind, name) in [
            ("vcek", format!("Milan/{hwid}/fmc0-bl3-tee0-snp8-ucode115")),
            ("vcek", format!("Milan/{hwid}/bl03-tee0-snp8-ucode115")),
            ("vcek", format!("Milan/{}/bl3-tee0-snp8-ucode115", hwid.to_uppercase())),
            ("vcek", "Milan/1e550a8ee5cf9f4d/bl3-tee0-snp8-ucode115".into()),
            ("vcek", format!("Milan/{hwid}/bl3-tee0-snp8-ucode256")),
            ("amd-crl", "vcek/Siena".into()),
            ("amd-crl", "vcek/Milan/x".into()),
            ("dcap", "tdx/50806F000000/platform".into()),
            ("dcap", "tdx/50806f/platform".into()),
            ("rim", "../x".into()),
            ("rim", "a/b".into()),
            ("rim", "a?b".into()),
            ("ocsp", "x".into()),
        ] {
            assert!(Key::parse(kind, &name).is_err(), "{kind} {name}");
        }
    }
}
