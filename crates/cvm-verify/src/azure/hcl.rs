//! The HCL report: what Azure's paravisor writes into the vTPM's NV index 0x01400001.
//!
//! | offset | content |
//! |---|---|
//! | 0 | `HCLA`, version, size, request type, status, reserved: eight little-endian u32 |
//! | 0x20 | hardware report, 1184 bytes: an SNP report, or a TDREPORT of 1024 and zeros |
//! | 0x4c0 | size, version, report type, hash type, length of the runtime data: u32 each |
//! | 0x4d4 | runtime data: the JSON whose hash the hardware report carries |
//!
//! Nothing in it is believed because of where it was found: the hardware's signature covers the
//! hardware's report, whose report data covers the runtime data, which names the vTPM's attestation
//! key.

use base64::{Engine as _, alphabet, engine::GeneralPurpose, engine::GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::Value;

use super::{AzureError, HardwareKind};
use crate::quote::AttestationKey;
use cvm_evidence::tpm::{Digest, HashAlg, Reader};

/// The NV index has 2600 bytes today.
pub const MAX_BYTES: usize = 64 * 1024;
/// An SNP report (SEV-SNP ABI, table 23).
pub const SNP_REPORT_BYTES: usize = 1184;
/// TDREPORT_STRUCT (TDX Module ABI, §3.9).
pub const TD_REPORT_BYTES: usize = 1024;

const SIGNATURE: u32 = u32::from_le_bytes(*b"HCLA");
const HEADER_BYTES: u32 = 0x4d4;
const REQUEST_DATA_BYTES: u32 = 20;
const HASH_SHA256: u32 = 1;
const AK_KEY_ID: &str = "HCLAkPub";
/// An HCL has two keys.
const MAX_KEYS: usize = 16;

/// Base64url with or without padding: JWK has none, Trustee's evidence has.
pub(super) const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// A parsed HCL report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HclReport {
    kind: HardwareKind,
    hardware_report: Vec<u8>,
    runtime_data: Vec<u8>,
    runtime: RuntimeClaims,
}

impl HclReport {
    /// Reads an HCL report; what fills the NV index after it must be zeros.
    ///
    /// # Errors
    /// [`AzureError`] naming the field.
    pub fn parse(bytes: &[u8]) -> Result<Self, AzureError> {
        let mut r = Reader::new("HCL report", bytes);
        if bytes.len() > MAX_BYTES {
            return Err(r
                .error(format!("{} bytes, at most {MAX_BYTES} allowed", bytes.len()))
                .into());
        }
        let signature = r.u32_le()?;
        r.require("signature (HCLA)", SIGNATURE, signature)?;
        let _version = r.u32_le()?; // 1 and 2 are known, and do not differ in what follows.
        let report_size = r.u32_le()?;
        r.take(5 * 4)?; // request type, status, reserved
        let hardware = r.take(SNP_REPORT_BYTES)?;
        let data_size = r.u32_le()?;
        let data_version = r.u32_le()?;
        r.require("version of the request data", 1, data_version)?;
        let kind = match r.u32_le()? {
            2 => HardwareKind::Snp,
            4 => HardwareKind::Tdx,
            found => return Err(AzureError::ReportType { found }),
        };
        let hash = r.u32_le()?;
        r.require("hash type of the runtime data", HASH_SHA256, hash)?;
        let length = r.u32_le()?;
        let runtime_data = r.take(length as usize)?;
        // `take` bounded the length, so these sums do not overflow.
        r.require("size of the request data", length + REQUEST_DATA_BYTES, data_size)?;
        r.require("size of the report", length + HEADER_BYTES, report_size)?;
        if r.rest().iter().any(|byte| *byte != 0) {
            return Err(r.error("something other than zeros after the runtime data").into());
        }
        let hardware_report = match kind {
            HardwareKind::Snp => hardware,
            HardwareKind::Tdx => match hardware.split_at_checked(TD_REPORT_BYTES) {
                Some((report, filler)) if filler.iter().all(|byte| *byte == 0) => report,
                _ => return Err(r.error("something other than zeros after the TDREPORT").into()),
            },
        };
        Ok(Self {
            kind,
            hardware_report: hardware_report.to_vec(),
            runtime: RuntimeClaims::parse(runtime_data)?,
            runtime_data: runtime_data.to_vec(),
        })
    }

    /// The hardware that made the report inside.
    pub fn kind(&self) -> HardwareKind {
        self.kind
    }

    /// The SNP report (1184 bytes) or the TDREPORT (1024).
    pub fn hardware_report(&self) -> &[u8] {
        &self.hardware_report
    }

    /// The runtime data's bytes.
    pub fn runtime_data(&self) -> &[u8] {
        &self.runtime_data
    }

    /// What the runtime data says.
    pub fn runtime(&self) -> &RuntimeClaims {
        &self.runtime
    }

    /// SHA-256 of the runtime data: the first half of the hardware report's report data.
    pub fn runtime_data_sha256(&self) -> Digest {
        HashAlg::Sha256.digest([&self.runtime_data[..]])
    }
}

/// What the runtime data says; believed once the hardware report is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeClaims {
    /// The vTPM's attestation key.
    pub ak: AttestationKey,
    /// What the guest wrote into NV index 0x01400002 before it asked for the report, zero-padded to
    /// 64 bytes.
    pub user_data: Option<Vec<u8>>,
    /// The VM's configuration, as the HCL states it.
    pub vm_configuration: Value,
}

#[derive(Deserialize)]
struct RuntimeJson {
    keys: Vec<Jwk>,
    #[serde(rename = "vm-configuration", default)]
    vm_configuration: Value,
    #[serde(rename = "user-data")]
    user_data: Option<String>,
}

/// RFC 7517; what the key is for is not read, as older HCLs write `encrypt` at the signing key.
#[derive(Deserialize)]
struct Jwk {
    kid: String,
    kty: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    n: String,
}

impl RuntimeClaims {
    fn parse(json: &[u8]) -> Result<Self, AzureError> {
        let fail = |problem: String| AzureError::RuntimeClaims { problem };
        // A member given twice is an error: which of two counts must never be a question.
        let json: RuntimeJson = serde_json::from_slice(json).map_err(|e| fail(e.to_string()))?;
        if json.keys.len() > MAX_KEYS {
            return Err(fail(format!("{} keys, at most {MAX_KEYS} allowed", json.keys.len())));
        }
        let mut named = json.keys.iter().filter(|key| key.kid == AK_KEY_ID);
        let ak = match (named.next(), named.next()) {
            (Some(ak), None) => ak,
            (None, _) => return Err(fail(format!("no key {AK_KEY_ID}"))),
            (_, Some(_)) => return Err(fail(format!("two keys named {AK_KEY_ID}"))),
        };
        if ak.kty != "RSA" {
            return Err(fail(format!(
                "{AK_KEY_ID} is of type {:?}, expected RSA",
                shorten(&ak.kty)
            )));
        }
        let number =
            |text: &str| BASE64URL.decode(text).map_err(|e| fail(format!("{AK_KEY_ID}: {e}")));
        let exponent = number(&ak.e)?.iter().try_fold(0_u32, |value, byte| {
            value.checked_mul(256).map(|value| value | u32::from(*byte))
        });
        let exponent =
            exponent.ok_or_else(|| fail(format!("{AK_KEY_ID}: an exponent over 32 bits")))?;
        let ak = AttestationKey::rsassa_sha256(&number(&ak.n)?, exponent)
            .map_err(|e| fail(e.to_string()))?;
        let user_data = json.user_data.map(|text| hex::decode(&text)).transpose();
        let user_data = user_data.map_err(|e| fail(format!("user-data: {e}")))?;
        Ok(Self { ak, user_data, vm_configuration: json.vm_configuration })
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(20).collect()
}
