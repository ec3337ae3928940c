//! The JSON in which Trustee's attesters send Azure vTPM evidence.

use base64::Engine as _;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    AzureError, HardwareKind,
    hcl::{BASE64URL, HclReport},
};
use crate::{quote::PcrValues, x509::Certificate};
use cvm_evidence::{AttestError, tpm::Digest};

/// A TD quote with its certificates has about 5 KiB.
const MAX_TD_QUOTE: usize = 64 * 1024;
const MAX_MESSAGE: usize = 4096;

/// Azure vTPM evidence, read and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureEvidence {
    /// The version of the JSON; 0 for files.
    pub(super) version: u32,
    pub(super) hcl: HclReport,
    pub(super) message: Vec<u8>,
    pub(super) signature: Vec<u8>,
    pub(super) pcrs: PcrValues,
    pub(super) hardware: Hardware,
    pub(super) event_log: Option<Vec<u8>>,
}

/// What vouches for the HCL's hardware report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hardware {
    /// The SNP report's signing certificate, where it travels with the evidence.
    Snp(Option<Box<Certificate>>),
    /// The TD quote made from the HCL's TDREPORT.
    Tdx(Vec<u8>),
}

/// The vTPM's quote as files hold it.
#[derive(Debug, Clone, Copy)]
pub struct QuoteFiles<'a> {
    /// TPMS_ATTEST.
    pub message: &'a [u8],
    /// RSASSA-PKCS1-v1_5 with SHA-256, bare or as TPMT_SIGNATURE.
    pub signature: &'a [u8],
    /// See [`PcrValues::parse`].
    pub pcrs: &'a [u8],
}

#[derive(Deserialize)]
struct ArrayQuote {
    signature: Vec<u8>,
    message: Vec<u8>,
    pcrs: Vec<Vec<u8>>,
}

#[derive(Deserialize)]
struct SnpV0 {
    quote: ArrayQuote,
    report: Vec<u8>,
    vcek: String,
}

#[derive(Deserialize)]
struct TdxV0 {
    tpm_quote: ArrayQuote,
    hcl_report: Vec<u8>,
    td_quote: Vec<u8>,
}

#[derive(Deserialize)]
struct HexQuote {
    signature: String,
    message: String,
    pcrs: Value,
}

/// Versions 1 and 2 have the same members; 2 binds the nonce into the runtime data as well.
#[derive(Deserialize)]
struct V1 {
    tpm_quote: HexQuote,
    hcl_report: String,
    vcek: Option<String>,
    td_quote: Option<String>,
}

impl AzureEvidence {
    /// Reads the evidence body of `az-snp-vtpm` or `az-tdx-vtpm`, in versions 0 (no `version`), 1
    /// and 2.
    ///
    /// # Errors
    /// [`AzureError::Version`] for another version, [`AzureError`] naming what cannot be read.
    pub fn from_json(kind: HardwareKind, body: &Value) -> Result<Self, AzureError> {
        let version = match body.get("version") {
            None => 0,
            Some(version) => match version.as_u64() {
                Some(1) => 1,
                Some(2) => 2,
                _ => {
                    let found = version.to_string().chars().take(20).collect();
                    return Err(AzureError::Version {
                        tee: kind.tee(),
                        found,
                        known: "0 (without a version), 1 and 2",
                    });
                }
            },
        };
        match (version, kind) {
            (0, HardwareKind::Snp) => {
                let SnpV0 { quote, report, vcek } = read(kind, body)?;
                let vcek = Certificate::read_all(vcek.as_bytes())?.into_iter().next();
                Self::of_arrays(kind, quote, &report, Hardware::Snp(vcek.map(Box::new)))
            }
            (0, HardwareKind::Tdx) => {
                let TdxV0 { tpm_quote, hcl_report, td_quote } = read(kind, body)?;
                Self::of_arrays(kind, tpm_quote, &hcl_report, Hardware::Tdx(td_quote))
            }
            (version, _) => {
                let V1 { tpm_quote, hcl_report, vcek, td_quote } = read(kind, body)?;
                let bytes = |name: &str, text: Option<&String>| {
                    let text =
                        text.ok_or_else(|| malformed(kind, format!("no member {name:?}")))?;
                    BASE64URL.decode(text).map_err(|e| malformed(kind, format!("{name}: {e}")))
                };
                let hex = |name: &str, text: &str| {
                    hex::decode(text).map_err(|e| malformed(kind, format!("tpm_quote.{name}: {e}")))
                };
                let hardware = match kind {
                    // Trustee's attesters always send it; ours may leave it to the verifier's
                    // cache.
                    HardwareKind::Snp => Hardware::Snp(match vcek {
                        None => None,
                        vcek => {
                            Some(Box::new(Certificate::from_der(&bytes("vcek", vcek.as_ref())?)?))
                        }
                    }),
                    HardwareKind::Tdx => Hardware::Tdx(bytes("td_quote", td_quote.as_ref())?),
                };
                let evidence = Self {
                    version,
                    hcl: HclReport::parse(&bytes("hcl_report", Some(&hcl_report))?)?,
                    message: hex("message", &tpm_quote.message)?,
                    signature: hex("signature", &tpm_quote.signature)?,
                    pcrs: PcrValues::from_json(&tpm_quote.pcrs)?,
                    hardware,
                    event_log: None,
                };
                evidence.checked(kind)
            }
        }
    }

    /// From the parts, as files hold them.
    ///
    /// # Errors
    /// [`AzureError`] naming what cannot be read.
    pub fn parse(
        hcl: &[u8],
        quote: QuoteFiles<'_>,
        hardware: Hardware,
    ) -> Result<Self, AzureError> {
        let kind = match &hardware {
            Hardware::Snp(_) => HardwareKind::Snp,
            Hardware::Tdx(_) => HardwareKind::Tdx,
        };
        let evidence = Self {
            version: 0,
            hcl: HclReport::parse(hcl)?,
            message: quote.message.to_vec(),
            signature: quote.signature.to_vec(),
            pcrs: PcrValues::parse(quote.pcrs)?,
            hardware,
            event_log: None,
        };
        evidence.checked(kind)
    }

    /// With the vTPM's event log.
    #[must_use]
    pub fn with_event_log(self, log: Vec<u8>) -> Self {
        Self { event_log: Some(log), ..self }
    }

    /// The HCL report.
    pub fn hcl(&self) -> &HclReport {
        &self.hcl
    }

    /// The TD quote beside it, over TDX.
    pub fn td_quote(&self) -> Option<&[u8]> {
        match &self.hardware {
            Hardware::Snp(_) => None,
            Hardware::Tdx(quote) => Some(quote),
        }
    }

    fn of_arrays(
        kind: HardwareKind,
        quote: ArrayQuote,
        hcl: &[u8],
        hardware: Hardware,
    ) -> Result<Self, AzureError> {
        let pcrs: Option<Vec<Digest>> =
            quote.pcrs.iter().map(|value| Digest::of_length(value)).collect();
        let pcrs =
            pcrs.ok_or_else(|| malformed(kind, "a PCR value that is not a digest".into()))?;
        let evidence = Self {
            version: 0,
            hcl: HclReport::parse(hcl)?,
            message: quote.message,
            signature: quote.signature,
            pcrs: PcrValues::from_list(pcrs),
            hardware,
            event_log: None,
        };
        evidence.checked(kind)
    }

    fn checked(self, kind: HardwareKind) -> Result<Self, AzureError> {
        if self.hcl.kind() != kind {
            return Err(AzureError::Kind { expected: kind, found: self.hcl.kind() });
        }
        let too_long = matches!(&self.hardware, Hardware::Tdx(quote) if quote.len() > MAX_TD_QUOTE);
        if too_long || self.message.len() > MAX_MESSAGE {
            return Err(malformed(kind, "a quote that is longer than any".into()));
        }
        Ok(self)
    }
}

fn read<T: DeserializeOwned>(kind: HardwareKind, body: &Value) -> Result<T, AzureError> {
    T::deserialize(body).map_err(|e| malformed(kind, e.to_string()))
}

fn malformed(kind: HardwareKind, problem: String) -> AzureError {
    let what = match kind {
        HardwareKind::Snp => "az-snp-vtpm evidence",
        HardwareKind::Tdx => "az-tdx-vtpm evidence",
    };
    AttestError::malformed(what, problem).into()
}
