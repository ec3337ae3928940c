//! Keys read back from text: the inverse of how `key` writes them. Each key has one spelling.

use std::str::FromStr;

use crate::{
    error::CollateralError,
    key::{DcapTee, Key, PckCa, Product, Signer, Tcb, is_csp, is_rim_id},
};

impl Key {
    /// Reads exactly what [`Key::kind`] and [`Key::name`] wrote.
    ///
    /// # Errors
    /// [`CollateralError::Unknown`] for any other text.
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

fn signer(name: &str) -> Option<Signer> {
    match name {
        "vcek" => Some(Signer::Vcek),
        "vlek" => Some(Signer::Vlek),
        _ => None,
    }
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
