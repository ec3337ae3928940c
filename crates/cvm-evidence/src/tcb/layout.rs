//! Products and TCB versions as reports and certificates write them.

use super::{Product, Tcb};

impl Product {
    /// The product with this CPUID family and model, both combined with their extended fields;
    /// none for another.
    pub fn from_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f) => Some(Self::Genoa),
            (0x19, 0xa0..=0xaf) => Some(Self::Siena),
            (0x1a, 0x00..=0x11) => Some(Self::Turin),
            _ => None,
        }
    }

    /// The product that a certificate names: `Milan-B0` in a VCEK, `Milan` in a VLEK; none for
    /// another name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.split_once('-').map_or(name, |(product, _stepping)| product) {
            "Milan" => Some(Self::Milan),
            "Genoa" => Some(Self::Genoa),
            "Siena" | "Bergamo" => Some(Self::Siena),
            "Turin" => Some(Self::Turin),
            _ => None,
        }
    }

    /// The product line whose ARK vouches for it, as certificates' names spell it.
    pub fn line(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa | Self::Siena => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// How many bytes of the chip id are used; the others are zero.
    pub fn chip_id_bytes(self) -> usize {
        match self {
            Self::Turin => 8,
            _ => 64,
        }
    }
}

impl Tcb {
    /// Reads a `TCB_VERSION` in the product's layout.
    pub fn from_bytes(bytes: [u8; 8], product: Product) -> Self {
        match (product, bytes) {
            (Product::Turin, [fmc, bootloader, tee, snp, .., microcode]) => {
                Self { fmc: Some(fmc), bootloader, tee, snp, microcode }
            }
            (_, [bootloader, tee, .., snp, microcode]) => {
                Self { fmc: None, bootloader, tee, snp, microcode }
            }
        }
    }

    /// The bytes that the product's layout leaves out, where they are not zero: `REPORTED_TCB byte
    /// 4`.
    pub fn unknown(field: &str, bytes: [u8; 8], product: Product) -> impl Iterator<Item = String> {
        let reserved = if product == Product::Turin { 4..7 } else { 2..6 };
        let set = move |at: &usize| bytes.get(*at).is_some_and(|byte| *byte != 0);
        reserved.filter(set).map(move |at| format!("{field} byte {at}"))
    }
}
