//! What a device's certificates say that it is.
//!
//! The attestation key's certificate (leaf) is issued by the device's own identity key, whose
//! certificate names the model (`GH100 A01 GSP BROM`) and the device (a serial number that ends in
//! its PDI).

use serde::{Deserialize, Serialize};

use super::{
    GpuError, Pdi,
    chain::{Chain, Link},
    der::{self, Problem, Reader},
};

/// The extension with the firmware's digest in it, as Hopper and LS10 have it, and as Blackwell has
/// it.
const DICE_COMPOSITE: &str = "2.23.133.5.4.1";
const DICE_TCB_INFO: &str = "2.23.133.5.4.1.1";
const SHA384: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];

/// The architectures that NVIDIA attests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Arch {
    /// H100, H200, GH200: `GH100`.
    #[serde(alias = "HOPPER", alias = "hopper")]
    Hopper,
    /// B200, GB200, RTX PRO 6000 and so on: `GB1xx`, `GB2xx`.
    #[serde(alias = "BLACKWELL", alias = "blackwell")]
    Blackwell,
    /// The NVSwitch of HGX H100 and H200.
    #[serde(rename = "LS10", alias = "ls10")]
    Ls10,
}

impl Arch {
    /// Out of a chip's name.
    fn of_chip(chip: &str) -> Option<Self> {
        let digits =
            |rest: &str| rest.len() == 3 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
        match chip.split_at_checked(2) {
            _ if chip == "LS10" => Some(Self::Ls10),
            Some(("GH", rest)) if digits(rest) => Some(Self::Hopper),
            Some(("GB", rest)) if digits(rest) => Some(Self::Blackwell),
            _ => None,
        }
    }

    /// Whether it is a switch rather than a GPU.
    pub fn is_switch(self) -> bool {
        self == Self::Ls10
    }
}

/// Who a device is, by its certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub arch: Arch,
    /// `GH100`, `GB100`, `LS10`.
    pub chip: String,
    /// `GH100 A01 GSP BROM`.
    pub hwmodel: String,
    /// The attestation certificate's serial number, decimal: what NVIDIA calls the device's UEID.
    pub ueid: String,
    /// The device's name on the NVLink fabric, out of its identity certificate.
    pub pdi: Option<Pdi>,
    /// Digest of the firmware that holds the attestation key.
    pub fwid: Option<Vec<u8>>,
}

impl Identity {
    pub(super) fn read(chain: &Chain) -> Result<Self, GpuError> {
        let fail = |problem: &str| GpuError::Chain { of: "device".into(), problem: problem.into() };
        let issuer = chain
            .above
            .first()
            .ok_or_else(|| fail("no certificate of the device's identity key"))?;
        let hwmodel = issuer
            .common_name()
            .ok_or_else(|| fail("the identity key's certificate names no model"))?;
        let chip = hwmodel.split(' ').next().unwrap_or_default().replace('_', "");
        let arch =
            Arch::of_chip(&chip).ok_or_else(|| fail("its chip is not one that NVIDIA attests"))?;
        let fwid = fwid(&chain.leaf, arch)?;
        let serial = issuer.serial_number();
        let pdi = serial
            .and_then(|serial| hex::decode(serial).ok())
            .and_then(|bytes| bytes.last_chunk().copied());
        Ok(Self {
            arch,
            chip,
            hwmodel,
            ueid: der::decimal(&chain.leaf.serial),
            pdi: pdi.map(Pdi),
            fwid,
        })
    }
}

fn fwid(leaf: &Link, arch: Arch) -> Result<Option<Vec<u8>>, GpuError> {
    let blackwell = arch == Arch::Blackwell;
    let oid = if blackwell { DICE_TCB_INFO } else { DICE_COMPOSITE };
    let fail = |problem: String| GpuError::Chain { of: "device".into(), problem };
    let extension = leaf.certificate.extension(oid).map_err(|e| fail(e.to_string()))?;
    let read = |extension| {
        let digest = if blackwell { tcb_info(extension) } else { composite(extension) };
        digest.map_err(|problem| fail(format!("extension {oid}: {problem}")))
    };
    Ok(extension.map(read).transpose()?.map(<[u8]>::to_vec))
}

/// `SEQUENCE { version, the identity key, FWID }`.
fn composite(extension: &[u8]) -> Result<&[u8], Problem> {
    let mut fields = Reader::sequence(extension)?;
    fields.read(der::INTEGER)?;
    fields.read(der::SEQUENCE)?;
    let fwid = fields.read(der::SEQUENCE)?;
    fields.end()?;
    digest(fwid)
}

/// TCG DICE Attestation Architecture §6.1.1, DiceTcbInfo: the first of `fwids [6]`, the running
/// firmware.
fn tcb_info(extension: &[u8]) -> Result<&[u8], Problem> {
    let mut fields = Reader::sequence(extension)?;
    while !fields.is_empty() {
        let field = fields.next()?;
        if field.tag == der::context(6) {
            return digest(Reader::new(field.value).read(der::SEQUENCE)?);
        }
    }
    Err("no fwids")
}

/// FWID: `hashAlg` and `digest`.
fn digest(fwid: &[u8]) -> Result<&[u8], Problem> {
    let mut fields = Reader::new(fwid);
    if fields.read(der::OBJECT_IDENTIFIER)? != SHA384 {
        return Err("a firmware digest other than SHA-384");
    }
    let digest = fields.read(der::OCTET_STRING)?;
    fields.end()?;
    if digest.len() == 48 { Ok(digest) } else { Err("a firmware digest of other than 48 bytes") }
}
