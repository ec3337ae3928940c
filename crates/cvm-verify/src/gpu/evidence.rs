//! Evidence of one device, and sets of it in the two forms that are sent.

use base64::{Engine, engine::general_purpose::STANDARD};
use cvm_base::{Bytes32, sha256};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Arch, GpuError,
    chain::{Chain, MAX_CHAIN_BYTES},
    identity::Identity,
    needed::Needed,
    report::{MAX_REPORT_BYTES, Report},
};
use crate::x509::Certificate;

/// Sixteen GPUs and their switches fit; longer input is refused unread.
pub const MAX_SET_BYTES: usize = 4 * 1024 * 1024;
/// More than any one machine has.
pub const MAX_DEVICES: usize = 64;

const WHAT: &str = "GPU evidence";

/// A device's report and certificate chain, read and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceEvidence {
    pub(super) report: Report,
    pub(super) chain: Chain,
    /// SHA-256 of the certificates, in their order: the key under which a chain is remembered.
    pub(super) chain_sha256: Bytes32,
    pub(super) identity: Identity,
    pub(super) uuid: Option<String>,
}

impl DeviceEvidence {
    /// Reads a report (request ‖ response) and its chain (PEM).
    ///
    /// # Errors
    /// [`GpuError::Malformed`], or [`GpuError::Chain`] for certificates that form no chain of a
    /// known device.
    pub fn parse(report: &[u8], chain: &[u8]) -> Result<Self, GpuError> {
        let report = Report::parse(report)?;
        if chain.len() > MAX_CHAIN_BYTES {
            let problem = format!("{} bytes, at most {MAX_CHAIN_BYTES} allowed", chain.len());
            return Err(GpuError::malformed("certificate chain", problem));
        }
        let certificates = Certificate::read_all(chain)
            .map_err(|e| GpuError::malformed("certificate chain", e.to_string()))?;
        let chain = Chain::new("device", certificates)?;
        let identity = Identity::read(&chain)?;
        let ders: Vec<&[u8]> = chain.certificates().map(Certificate::der).collect();
        Ok(Self { chain_sha256: sha256(&ders.concat()), report, chain, identity, uuid: None })
    }

    /// Reads a set of devices: Trustee's `{"device_evidence_list": […]}`, NVIDIA's SDK's `[…]`, or
    /// the request of NVIDIA's remote service, `{"nonce", "arch", "evidence_list": […]}`.
    ///
    /// # Errors
    /// As [`DeviceEvidence::parse`]; [`GpuError::Identity`] when a device is not of the
    /// architecture or its report not over the nonce that is beside it.
    pub fn parse_set(json: &[u8]) -> Result<Vec<Self>, GpuError> {
        if json.len() > MAX_SET_BYTES {
            let problem = format!("{} bytes, at most {MAX_SET_BYTES} allowed", json.len());
            return Err(GpuError::malformed(WHAT, problem));
        }
        let malformed = |e: serde_json::Error| GpuError::malformed(WHAT, e.to_string());
        let value: Value = serde_json::from_slice(json).map_err(malformed)?;
        // By hand rather than by an untagged enum, whose error says only that nothing fits.
        let set = match value {
            Value::Array(_) => Set {
                devices: Deserialize::deserialize(value).map_err(malformed)?,
                ..Set::default()
            },
            value => Deserialize::deserialize(value).map_err(malformed)?,
        };
        let Set { nonce, arch, devices } = set;
        if devices.is_empty() || devices.len() > MAX_DEVICES {
            let problem = format!("{} devices, 1 to {MAX_DEVICES} expected", devices.len());
            return Err(GpuError::malformed(WHAT, problem));
        }
        devices.into_iter().map(|device| device.read(arch, nonce.as_deref())).collect()
    }

    /// The report.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The architecture that the certificates name; not yet believed.
    pub fn arch(&self) -> Arch {
        self.identity.arch
    }

    /// The attestation certificate's serial number, decimal; not yet believed.
    pub fn serial(&self) -> &str {
        &self.identity.ueid
    }

    /// The names under which NVIDIA's RIM service has what this report is compared with: of a GPU
    /// the driver's and the VBIOS's manifest, of a switch its BIOS's.
    ///
    /// # Errors
    /// [`GpuError::Malformed`] when the report lacks what the names are made of.
    pub fn rim_ids(&self) -> Result<Vec<String>, GpuError> {
        let names = Needed::of(&self.report, &self.identity)?;
        Ok(names.into_iter().map(|needed| needed.id).collect())
    }
}

#[derive(Default, Deserialize)]
struct Set {
    nonce: Option<String>,
    arch: Option<Arch>,
    #[serde(alias = "device_evidence_list", alias = "evidence_list")]
    devices: Vec<Device>,
}

#[derive(Deserialize)]
struct Device {
    arch: Option<Arch>,
    uuid: Option<String>,
    nonce: Option<String>,
    /// base64; in old clients of Trustee hex.
    evidence: String,
    /// base64 of PEM.
    certificate: String,
}

impl Device {
    fn read(self, arch: Option<Arch>, nonce: Option<&str>) -> Result<DeviceEvidence, GpuError> {
        let decode = |text: &str, bound: usize| {
            if text.len() > 2 * bound {
                return Err(GpuError::malformed(
                    WHAT,
                    format!("{} characters for at most {bound} bytes", text.len()),
                ));
            }
            STANDARD.decode(text).map_err(|e| GpuError::malformed(WHAT, format!("not base64: {e}")))
        };
        // Every report starts with 11 e0, which base64 writes EeA.
        let hex =
            Some(&self.evidence).filter(|text| text.len() <= 2 * MAX_REPORT_BYTES).map(hex::decode);
        let report = match hex {
            Some(Ok(report)) => report,
            _ => decode(&self.evidence, MAX_REPORT_BYTES)?,
        };
        let mut device =
            DeviceEvidence::parse(&report, &decode(&self.certificate, MAX_CHAIN_BYTES)?)?;
        let certified = device.identity.arch;
        if let Some(arch) = self.arch.or(arch).filter(|arch| *arch != certified) {
            let (expected, found) = (format!("{certified:?}"), format!("{arch:?}"));
            return Err(GpuError::Identity { what: "evidence's architecture", expected, found });
        }
        let found = hex::encode(device.report.nonce());
        if let Some(stated) =
            self.nonce.as_deref().or(nonce).filter(|stated| !stated.eq_ignore_ascii_case(&found))
        {
            return Err(GpuError::Nonce { expected: stated.chars().take(80).collect(), found });
        }
        device.uuid = self.uuid.map(|uuid| uuid.chars().take(80).collect());
        Ok(device)
    }
}
