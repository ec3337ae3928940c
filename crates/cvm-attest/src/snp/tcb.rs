//! Products and their trusted computing bases.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::SnpError;

/// A family of processors that runs SEV-SNP guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Product {
    /// EPYC 7003: CPUID family 19h, models 00h to 0Fh.
    Milan,
    /// EPYC 9004 with Zen 4 cores: family 19h, models 10h to 1Fh.
    Genoa,
    /// EPYC 8004 and 97x4, with Zen 4c cores (Siena and Bergamo, which CPUID does not tell apart):
    /// family 19h, models A0h to AFh. They share Genoa's root key.
    Siena,
    /// EPYC 9005: family 1Ah, models 00h to 11h.
    Turin,
}

impl Product {
    /// The product with this CPUID family and model, both combined with their extended fields.
    pub(crate) fn from_cpuid(family: u8, model: u8) -> Result<Self, SnpError> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Ok(Self::Milan),
            (0x19, 0x10..=0x1f) => Ok(Self::Genoa),
            (0x19, 0xa0..=0xaf) => Ok(Self::Siena),
            (0x1a, 0x00..=0x11) => Ok(Self::Turin),
            _ => Err(SnpError::product(format!(
                "the report's CPUID family {family:#04x}, model {model:#04x} is none that this program knows"
            ))),
        }
    }

    /// The product that a certificate names: `Milan-B0` in a VCEK, `Milan` in a VLEK.
    pub(crate) fn from_name(name: &str) -> Result<Self, SnpError> {
        match name.split_once('-').map_or(name, |(product, _stepping)| product) {
            "Milan" => Ok(Self::Milan),
            "Genoa" => Ok(Self::Genoa),
            "Siena" | "Bergamo" => Ok(Self::Siena),
            "Turin" => Ok(Self::Turin),
            _ => Err(SnpError::product(format!("the certificate names {name:?}, which this program does not know"))),
        }
    }

    /// The product line whose ARK vouches for it, as certificates' names spell it.
    pub(super) fn line(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa | Self::Siena => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// How many bytes of the chip id are used; the others are zero.
    pub(super) fn chip_id_bytes(self) -> usize {
        match self {
            Self::Turin => 8,
            _ => 64,
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A part of the TCB that has a security version of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcbComponent {
    /// The first mutable code on the chip; Turin only.
    Fmc,
    /// The PSP's boot loader.
    Bootloader,
    /// The PSP's operating system.
    Tee,
    /// The SNP firmware.
    Snp,
    /// The lowest microcode patch level of all cores.
    Microcode,
}

impl fmt::Display for TcbComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fmc => "fmc",
            Self::Bootloader => "bootloader",
            Self::Tee => "tee",
            Self::Snp => "snp",
            Self::Microcode => "microcode",
        })
    }
}

/// Security versions of a machine's firmware (SEV-SNP ABI 56860, §2.2, `TCB_VERSION`).
///
/// Numbers of different products cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tcb {
    /// Turin only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fmc: Option<u8>,
    /// The PSP's boot loader.
    pub bootloader: u8,
    /// The PSP's operating system.
    pub tee: u8,
    /// The SNP firmware.
    pub snp: u8,
    /// The lowest microcode patch level of all cores.
    pub microcode: u8,
}

impl Tcb {
    /// Reads a `TCB_VERSION` in the product's layout.
    pub(super) fn from_bytes(bytes: [u8; 8], product: Product) -> Self {
        match (product, bytes) {
            (Product::Turin, [fmc, bootloader, tee, snp, .., microcode]) => {
                Self { fmc: Some(fmc), bootloader, tee, snp, microcode }
            }
            (_, [bootloader, tee, .., snp, microcode]) => Self { fmc: None, bootloader, tee, snp, microcode },
        }
    }

    /// The bytes that the product's layout leaves out, where they are not zero: `REPORTED_TCB byte 4`.
    pub(super) fn unknown(field: &str, bytes: [u8; 8], product: Product) -> impl Iterator<Item = String> {
        let reserved = if product == Product::Turin { 4..7 } else { 2..6 };
        let set = move |at: &usize| bytes.get(*at).is_some_and(|byte| *byte != 0);
        reserved.filter(set).map(move |at| format!("{field} byte {at}"))
    }

    /// Each component's version, in a fixed order.
    pub(super) fn components(&self) -> [(TcbComponent, u8); 5] {
        [
            (TcbComponent::Fmc, self.fmc.unwrap_or(0)),
            (TcbComponent::Bootloader, self.bootloader),
            (TcbComponent::Tee, self.tee),
            (TcbComponent::Snp, self.snp),
            (TcbComponent::Microcode, self.microcode),
        ]
    }
}
