//! The opaque data of a report: type, length, value; what each type means is NVIDIA's.
//!
//! Types and meanings as in NVIDIA's attestation SDK (`gpu_opaque_data_parser`,
//! `switch_opaque_data_parser`). The device signs all of it.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::GpuError;

const WHAT: &str = "opaque data of the report";
/// The highest version that NVIDIA's SDK reads; a later one may mean something else by the same
/// types.
const MAX_VERSION: u64 = 1;
/// A switch names eight GPUs, then the ports that lead to them.
const GPUS_OF_A_SWITCH: usize = 8;
/// Longer than any version, SKU or chip name.
const MAX_TEXT: usize = 64;

/// The fields that this verifier reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Field {
    DriverVersion = 3,
    VbiosVersion = 6,
    Nvdec0Status = 11,
    ChipSku = 15,
    Project = 17,
    ProjectSku = 18,
    Fwid = 20,
    PpcieStatus = 21,
    /// A GPU: the switches at the ends of its links. A switch: itself.
    Pdi = 22,
    SwitchGpuPdis = 26,
    Version = 34,
    ChipInfo = 35,
    FeatureFlag = 36,
}

/// How a GPU is used, out of its feature flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Feature {
    /// Single GPU passthrough.
    Spt,
    /// Multiple GPU passthrough, the links between GPUs encrypted.
    Mpt,
    /// Protected PCIe: eight GPUs and four switches under one guest, links in clear.
    Ppcie,
}

/// What names a device on the NVLink fabric: eight bytes, most significant first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pdi(pub [u8; 8]);

impl Pdi {
    /// The name of a link that leads nowhere.
    pub const DISABLED: Self = Self([0; 8]);
}

impl fmt::Display for Pdi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_upper(self.0))
    }
}

impl Serialize for Pdi {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pdi {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut pdi = Self([0; 8]);
        let text = String::deserialize(d)?;
        hex::decode_to_slice(text, &mut pdi.0).map_err(serde::de::Error::custom)?;
        Ok(pdi)
    }
}

/// The fields, each at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opaque(BTreeMap<u16, Vec<u8>>);

impl Opaque {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, GpuError> {
        let mut fields = BTreeMap::new();
        while let Some((&[t0, t1, l0, l1], rest)) = bytes.split_first_chunk() {
            let (field, length) = (u16::from_le_bytes([t0, t1]), u16::from_le_bytes([l0, l1]));
            let (value, rest) = rest.split_at_checked(usize::from(length)).ok_or_else(|| {
                GpuError::malformed(WHAT, format!("field {field} is longer than the data"))
            })?;
            // NVIDIA's SDK takes the last of two; then whoever reads the first sees another device.
            if fields.insert(field, value.to_vec()).is_some() {
                return Err(GpuError::malformed(WHAT, format!("field {field} is there twice")));
            }
            bytes = rest;
        }
        match bytes {
            [] => Ok(Self(fields)),
            _ => Err(GpuError::malformed(WHAT, "ends within a field's head")),
        }
    }

    pub(super) fn get(&self, field: Field) -> Option<&[u8]> {
        self.0.get(&(field as u16)).map(Vec::as_slice)
    }

    /// The types that NVIDIA's SDK does not know for this kind of device (it knows 1 to 36 of GPUs,
    /// 1 to 27 of switches). The device signed them; what they say may change what the known ones
    /// mean.
    pub(super) fn unknown(&self, is_switch: bool) -> Vec<u16> {
        let highest = if is_switch { 27 } else { 36 };
        self.0.keys().copied().filter(|field| *field == 0 || *field > highest).collect()
    }

    /// A field that is a text, ended or padded with NUL.
    pub(super) fn text(&self, field: Field) -> Result<Option<String>, GpuError> {
        let Some(bytes) = self.get(field) else { return Ok(None) };
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let text = bytes.get(..end).unwrap_or_default();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > MAX_TEXT || !text.iter().all(plain) {
            let problem =
                format!("field {field:?} is not a name of letters, digits, '.', '-' and '_'");
            return Err(GpuError::malformed(WHAT, problem));
        }
        Ok(Some(text.iter().copied().map(char::from).collect()))
    }

    /// A GPU's VBIOS version: the first half of the bytes reversed, then the byte in the middle, in
    /// hex.
    pub(super) fn gpu_vbios(&self) -> Result<String, GpuError> {
        let bytes = self
            .get(Field::VbiosVersion)
            .ok_or_else(|| GpuError::malformed(WHAT, "no VBIOS version"))?;
        let (low, high) = bytes.split_at_checked(bytes.len() / 2).unwrap_or_default();
        match high.first() {
            Some(middle) if bytes.len() == 8 => {
                let order = low.iter().rev().chain([middle]);
                Ok(order.map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join("."))
            }
            _ => Err(GpuError::malformed(
                WHAT,
                format!("a VBIOS version of {} bytes, not 8", bytes.len()),
            )),
        }
    }

    /// Version of the opaque data; reports before it existed are version 0.
    pub(super) fn version(&self) -> Result<u64, GpuError> {
        let version = self.number(Field::Version)?.unwrap_or(0);
        if version > MAX_VERSION {
            let problem = format!("version {version}; this verifier knows up to {MAX_VERSION}");
            return Err(GpuError::malformed(WHAT, problem));
        }
        Ok(version)
    }

    /// The mode, where the firmware states one. Firmware older than the flag has a status of its
    /// own for protected PCIe; whichever of the two says so counts, since then the links are in
    /// clear.
    pub(super) fn feature(&self) -> Result<Option<Feature>, GpuError> {
        let protected = match self.get(Field::PpcieStatus) {
            Some([0xaa]) => true,
            Some([0x55]) | None => false,
            Some(other) => {
                return Err(GpuError::malformed(
                    WHAT,
                    format!("PPCIE status {other:02x?}, neither 55 nor aa"),
                ));
            }
        };
        let flag = if self.version()? < 1 { None } else { self.number(Field::FeatureFlag)? };
        match flag {
            _ if protected => Ok(Some(Feature::Ppcie)),
            None => Ok(None),
            Some(0) => Ok(Some(Feature::Spt)),
            Some(1) => Ok(Some(Feature::Mpt)),
            Some(2) => Ok(Some(Feature::Ppcie)),
            Some(other) => Err(GpuError::malformed(
                WHAT,
                format!("feature flag {other}; known are 0, 1 and 2"),
            )),
        }
    }

    /// Whether decoder 0 is fused off, so that measurement 35 is nobody's.
    pub(super) fn nvdec0_disabled(&self) -> Result<bool, GpuError> {
        match self.get(Field::Nvdec0Status) {
            Some([0x55]) => Ok(true),
            Some([0xaa]) | None => Ok(false),
            Some(other) => Err(GpuError::malformed(
                WHAT,
                format!("NVDEC0 status {other:02x?}, neither 55 nor aa"),
            )),
        }
    }

    /// The switches at the ends of a GPU's links, each once, in order; links that lead nowhere left
    /// out.
    pub(super) fn switches_of_gpu(&self) -> Result<Vec<Pdi>, GpuError> {
        let (pdis, rest) = self.get(Field::Pdi).unwrap_or_default().as_chunks::<8>();
        if !rest.is_empty() {
            return Err(GpuError::malformed(WHAT, "switch PDIs of other than 8 bytes"));
        }
        // A GPU writes them least significant byte first, a switch its own most significant first.
        let reversed = |pdi: &[u8; 8]| {
            let mut pdi = *pdi;
            pdi.reverse();
            Pdi(pdi)
        };
        Ok(unique(pdis.iter().map(reversed)))
    }

    /// A switch's own name.
    pub(super) fn pdi_of_switch(&self) -> Result<Option<Pdi>, GpuError> {
        let Some(bytes) = self.get(Field::Pdi) else { return Ok(None) };
        let bytes = bytes
            .try_into()
            .map_err(|_| GpuError::malformed(WHAT, "a PDI of other than 8 bytes"))?;
        Ok(Some(Pdi(bytes)))
    }

    /// The GPUs at a switch, each once, in order.
    pub(super) fn gpus_of_switch(&self) -> Result<Vec<Pdi>, GpuError> {
        let Some(bytes) = self.get(Field::SwitchGpuPdis) else { return Ok(Vec::new()) };
        let (pdis, _ports) = bytes
            .split_at_checked(8 * GPUS_OF_A_SWITCH)
            .ok_or_else(|| GpuError::malformed(WHAT, "a switch names fewer than 8 GPUs"))?;
        Ok(unique(pdis.as_chunks::<8>().0.iter().map(|pdi| Pdi(*pdi))))
    }

    fn number(&self, field: Field) -> Result<Option<u64>, GpuError> {
        let Some(bytes) = self.get(field) else { return Ok(None) };
        if bytes.is_empty() || bytes.len() > 8 {
            return Err(GpuError::malformed(WHAT, format!("field {field:?} is not a number")));
        }
        Ok(Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))))
    }

    /// Every field under the name that Trustee's `config` gives it, texts as texts and the rest in
    /// hex.
    pub(super) fn config(&self) -> BTreeMap<String, Value> {
        let value = |field: u16, bytes: &[u8]| match field {
            3 | 15 | 16 | 17 | 18 | 35 => {
                json!(String::from_utf8_lossy(bytes).trim_end_matches('\0'))
            }
            // Trustee writes it in lower case; a switch has a text there.
            6 => json!(
                self.gpu_vbios()
                    .map_or_else(|_| hex::encode(bytes), |version| version.to_lowercase())
            ),
            12 => {
                let counts =
                    bytes.as_chunks::<4>().0.iter().map(|count| json!(u32::from_le_bytes(*count)));
                Value::Object((1..).map(|index: u32| index.to_string()).zip(counts).collect())
            }
            // In the report's order, one for each link.
            22 => json!(bytes.as_chunks::<8>().0.iter().map(hex::encode).collect::<Vec<_>>()),
            34 => json!(self.version().unwrap_or_default()),
            36 => json!(self.feature().ok().flatten()),
            _ => json!(hex::encode(bytes)),
        };
        self.0.iter().map(|(field, bytes)| (name(*field), value(*field, bytes))).collect()
    }
}

fn unique(pdis: impl Iterator<Item = Pdi>) -> Vec<Pdi> {
    let set: std::collections::BTreeSet<Pdi> = pdis.filter(|pdi| *pdi != Pdi::DISABLED).collect();
    set.into_iter().collect()
}

fn name(field: u16) -> String {
    let known = match field {
        1 => "cert_issuer_name",
        2 => "cert_authority_key_identifier",
        3 => "driver_version",
        4 => "gpu_info",
        5 => "id_sku",
        6 => "vbios_version",
        7 => "manufacturer_id",
        8 => "tamper_detection",
        9 => "smc",
        10 => "vpr",
        11 => "nvdec0_status",
        12 => "measurement_count",
        13 => "cpr_info",
        14 => "board_id",
        15 => "chip_sku",
        16 => "chip_sku_mod",
        17 => "project",
        18 => "project_sku",
        19 => "project_sku_mod",
        20 => "fwid",
        21 => "protected_pcie_status",
        22 => "switch_pdi",
        23 => "floorswept_ports",
        24 => "position_id",
        25 => "lock_switch_status",
        26 => "switch_gpu_pdis",
        32 => "gpu_link_conn",
        33 => "sys_enable_status",
        34 => "opaque_data_version",
        35 => "chip_info",
        36 => "feature_flag",
        other => return format!("field_{other}"),
    };
    known.into()
}
