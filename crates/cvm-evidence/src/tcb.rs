//! AMD's processors, the security versions of their firmware, and the least of them that is
//! accepted.
//!
//! Versions of two products say nothing about each other: Siena's patched microcode has a lower
//! number than Genoa's unpatched one. Microcode even counts anew with each stepping, as its number
//! is the patch level's last byte. So a [`TcbFloor`] is stated for a product, or for one stepping
//! of it. A product that it does not name is refused.

mod layout;

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A family of processors that runs SEV-SNP guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A product's revision, as AMD's documents name it: `B1` is base model 1, stepping 1 of CPUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stepping {
    base: u8,
    stepping: u8,
}

impl Stepping {
    /// From CPUID's model, its extended field included, and stepping.
    pub fn from_cpuid(model: u8, stepping: u8) -> Self {
        Self { base: model & 0xf, stepping }
    }
}

impl fmt::Display for Stepping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", char::from(b'A' + self.base), self.stepping)
    }
}

impl FromStr for Stepping {
    type Err = InvalidFloor;

    fn from_str(text: &str) -> Result<Self, InvalidFloor> {
        let fail = || {
            InvalidFloor::new(format!(
                "{text:.20?} is not a stepping: a letter and a number, such as B1"
            ))
        };
        let (letter, number) = text.split_at_checked(1).ok_or_else(fail)?;
        let base = letter
            .bytes()
            .next()
            .map_or(u8::MAX, |letter| letter.to_ascii_uppercase().wrapping_sub(b'A'));
        let found = Self { base, stepping: decimal(number).ok_or_else(fail)? };
        if base <= 0xf { Ok(found) } else { Err(fail()) }
    }
}

/// The unit that security versions are counted for: a product, and its stepping if that is known.
/// `Milan`, `Milan-B1`.
///
/// A report states its stepping since version 3. Certificates name one too, and a wrong one:
/// `Milan-B0` for a B1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chip {
    /// The product.
    pub product: Product,
    /// Its stepping.
    pub stepping: Option<Stepping>,
}

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stepping {
            Some(stepping) => write!(f, "{}-{stepping}", self.product),
            None => self.product.fmt(f),
        }
    }
}

impl FromStr for Chip {
    type Err = InvalidFloor;

    fn from_str(text: &str) -> Result<Self, InvalidFloor> {
        let (name, stepping) =
            text.split_once('-').map_or((text, None), |(name, stepping)| (name, Some(stepping)));
        let product = match name.to_ascii_lowercase().as_str() {
            "milan" => Product::Milan,
            "genoa" => Product::Genoa,
            "siena" | "bergamo" => Product::Siena,
            "turin" => Product::Turin,
            _ => {
                return Err(InvalidFloor::new(format!(
                    "{name:.20?} is not a product; known: milan, genoa, siena, turin"
                )));
            }
        };
        Ok(Self { product, stepping: stepping.map(str::parse).transpose()? })
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
    /// Each component's version, in a fixed order.
    pub fn components(&self) -> [(TcbComponent, u8); 5] {
        [
            (TcbComponent::Fmc, self.fmc.unwrap_or(0)),
            (TcbComponent::Bootloader, self.bootloader),
            (TcbComponent::Tee, self.tee),
            (TcbComponent::Snp, self.snp),
            (TcbComponent::Microcode, self.microcode),
        ]
    }
}

/// What SEV-SNP claims say of the machine: read from claims of our own verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "TcbClaims")]
pub struct ShownTcb {
    /// The chip.
    pub chip: Chip,
    /// REPORTED_TCB: what the certificate vouches for.
    pub reported: Tcb,
    /// LAUNCH_TCB: the firmware that launched the guest and measured it.
    pub launch: Tcb,
}

/// As claims name them.
#[derive(Deserialize)]
struct TcbClaims {
    product: Product,
    #[serde(default)]
    stepping: Option<Stepping>,
    #[serde(default)]
    reported_tcb_fmc: Option<u8>,
    reported_tcb_bootloader: u8,
    reported_tcb_tee: u8,
    reported_tcb_snp: u8,
    reported_tcb_microcode: u8,
    launch_tcb: Tcb,
}

impl From<TcbClaims> for ShownTcb {
    fn from(claims: TcbClaims) -> Self {
        Self {
            chip: Chip { product: claims.product, stepping: claims.stepping },
            reported: Tcb {
                fmc: claims.reported_tcb_fmc,
                bootloader: claims.reported_tcb_bootloader,
                tee: claims.reported_tcb_tee,
                snp: claims.reported_tcb_snp,
                microcode: claims.reported_tcb_microcode,
            },
            launch: claims.launch_tcb,
        }
    }
}

/// The least TCB of each product, or of a stepping of it. An empty floor accepts nothing.
///
/// In JSON: `{"Milan-B1": {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219}}`. On a command
/// line: `milan-b1=4.0.24.219`, in that order; Turin's begins with its `fmc`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TcbFloor(BTreeMap<Chip, Tcb>);

/// Why a machine is below a floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shortfall {
    /// The floor is of other products or steppings.
    #[error("no TCB floor is stated for {chip}")]
    Unnamed {
        /// What the report is of.
        chip: Chip,
    },
    /// Older firmware than is asked for.
    #[error("the {version} TCB's {component} is {found}, at least {least} is asked for of {chip}")]
    Below {
        /// What the report is of.
        chip: Chip,
        /// `reported` or `launch`.
        version: &'static str,
        /// The first component that is too old.
        component: TcbComponent,
        /// Its version.
        found: u8,
        /// The floor's.
        least: u8,
    },
}

impl TcbFloor {
    /// A floor for one chip.
    ///
    /// # Errors
    /// [`InvalidFloor`] for another product's components, and for zeros alone, which would accept
    /// everything.
    pub fn new(chip: Chip, least: Tcb) -> Result<Self, InvalidFloor> {
        if (chip.product == Product::Turin) != least.fmc.is_some() {
            return Err(InvalidFloor::new(format!(
                "{chip}: Turin's TCB has an fmc, and no other product's has one"
            )));
        }
        if least.components().iter().all(|(_, version)| *version == 0) {
            return Err(InvalidFloor::new(format!(
                "{chip}: a floor of zeros accepts every firmware"
            )));
        }
        Ok(Self(BTreeMap::from([(chip, least)])))
    }

    /// Several floors in one.
    ///
    /// # Errors
    /// [`InvalidFloor`] for a chip that is named twice.
    pub fn merge(floors: impl IntoIterator<Item = Self>) -> Result<Self, InvalidFloor> {
        let mut merged = BTreeMap::new();
        for (chip, least) in floors.into_iter().flat_map(|floor| floor.0) {
            if merged.insert(chip, least).is_some() {
                return Err(InvalidFloor::new(format!("{chip} is named twice")));
            }
        }
        Ok(Self(merged))
    }

    /// Whether it names no chip at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that the machine is at least this patched: as its certificate says, and when it
    /// launched the guest.
    ///
    /// # Errors
    /// [`Shortfall`], the first one.
    pub fn check(&self, shown: &ShownTcb) -> Result<(), Shortfall> {
        self.shortfalls(shown).first().map_or(Ok(()), |first| Err(*first))
    }

    /// Every component in which the machine is below the floor.
    pub fn shortfalls(&self, shown: &ShownTcb) -> Vec<Shortfall> {
        let ShownTcb { chip, reported, launch } = *shown;
        let of_product = Chip { stepping: None, ..chip };
        let Some(floor) = self.0.get(&chip).or_else(|| self.0.get(&of_product)) else {
            return vec![Shortfall::Unnamed { chip }];
        };
        let versions = [("reported", reported), ("launch", launch)];
        let below = versions.into_iter().flat_map(|(version, tcb)| {
            let pairs = tcb.components().into_iter().zip(floor.components());
            pairs.filter(|((_, found), (_, least))| found < least).map(
                move |((component, found), (_, least))| Shortfall::Below {
                    chip,
                    version,
                    component,
                    found,
                    least,
                },
            )
        });
        below.collect()
    }

    fn from_names(names: BTreeMap<String, Tcb>) -> Result<Self, InvalidFloor> {
        // One spelling: what a policy looks up is what is compared here.
        let entry = |(name, least): (String, Tcb)| match name.parse::<Chip>()? {
            chip if chip.to_string() == name => Self::new(chip, least),
            chip => Err(InvalidFloor::new(format!("{name:.40?} is written {chip}"))),
        };
        Self::merge(names.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?)
    }
}

/// One chip's, as people type it: `milan-b1=4.0.24.219`.
impl FromStr for TcbFloor {
    type Err = InvalidFloor;

    fn from_str(text: &str) -> Result<Self, InvalidFloor> {
        let fail = || {
            let form = "PRODUCT-STEPPING=BOOTLOADER.TEE.SNP.MICROCODE, of Turin \
                FMC.BOOTLOADER.TEE.SNP.MICROCODE";
            InvalidFloor::new(format!("{text:.60?} does not have the form {form}"))
        };
        let (chip, versions) = text.split_once('=').ok_or_else(fail)?;
        let versions: Option<Vec<u8>> = versions.split('.').map(decimal).collect();
        let (fmc, [bootloader, tee, snp, microcode]) = match versions.ok_or_else(fail)?[..] {
            [bootloader, tee, snp, microcode] => (None, [bootloader, tee, snp, microcode]),
            [fmc, bootloader, tee, snp, microcode] => {
                (Some(fmc), [bootloader, tee, snp, microcode])
            }
            _ => return Err(fail()),
        };
        Self::new(chip.parse()?, Tcb { fmc, bootloader, tee, snp, microcode })
    }
}

impl<'de> Deserialize<'de> for TcbFloor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_names(BTreeMap::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Serialize for TcbFloor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(chip, least)| (chip.to_string(), least)))
    }
}

impl Serialize for Stepping {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stepping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Text that states no floor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct InvalidFloor {
    problem: String,
}

impl InvalidFloor {
    fn new(problem: String) -> Self {
        Self { problem }
    }
}

/// Digits alone: no sign, no leading zero.
fn decimal(text: &str) -> Option<u8> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests;
