//! `reference.json`: the measurements that the build predicted for an image.

use std::collections::BTreeMap;

use cvm_base::{Bytes, Bytes16, Bytes32};
use serde::{Deserialize, Serialize};

use crate::{
    AttestError,
    eventlog::extend,
    moments::td_handoff_digest,
    platform::{AzureReference, SnpReference, TdxReference, after_handoff},
    rtmr,
};

pub use crate::eventlog::PredictedEvent;

/// The schema's version without values of TEEs.
pub const VERSION: u32 = 1;
/// The schema's version with values of TEEs. An older program refuses it, and does not pass over
/// what it cannot compare.
pub const VERSION_TEE: u32 = 2;
/// The most platforms of a kind.
const MAX_PLATFORMS: usize = 32;
/// The longest document that is read, in bytes. Longer input is refused unread.
pub const MAX_BYTES: usize = 64 * 1024;
/// The registers that every reference names: loader and UKI, Secure Boot, the UKI's sections.
pub const ALWAYS: [u8; 3] = [4, 7, 11];

/// An image's reference values; signed by the builder as `Kind::Reference`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// [`VERSION`] or [`VERSION_TEE`].
    pub version: u32,
    /// The image.
    pub image_id: Bytes16,
    /// The image's manifest.
    pub manifest_sha256: Bytes32,
    /// What a TPM must quote.
    pub tpm: TpmReference,
    /// SEV-SNP launch digests, one entry per platform.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snp: Vec<SnpReference>,
    /// TDX measurements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tdx: Vec<TdxReference>,
    /// Azure confidential VMs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub azure: Vec<AzureReference>,
}

/// What TEEs measure of an image; without any, only a TPM's evidence shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Platforms {
    /// SEV-SNP.
    pub snp: Vec<SnpReference>,
    /// TDX.
    pub tdx: Vec<TdxReference>,
    /// Azure.
    pub azure: Vec<AzureReference>,
}

/// PCR values and how they come about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmReference {
    /// The bank.
    pub bank: Bank,
    /// Register → value.
    pub pcrs: BTreeMap<u8, Bytes32>,
    /// Every event that leads to `pcrs`, in order within each register.
    pub explain: Vec<PredictedEvent>,
}

/// A PCR bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bank {
    /// SHA-256.
    Sha256,
}

impl TpmReference {
    /// The values that these events lead to, for the registers they extend and for `untouched`
    /// ones, which nothing may extend.
    pub fn from_events(explain: Vec<PredictedEvent>, untouched: &[u8]) -> Self {
        let mut pcrs = replay(&explain);
        for pcr in untouched {
            pcrs.entry(*pcr).or_insert(Bytes([0; 32]));
        }
        Self { bank: Bank::Sha256, pcrs, explain }
    }
}

fn replay(events: &[PredictedEvent]) -> BTreeMap<u8, Bytes32> {
    let mut pcrs = BTreeMap::new();
    for event in events {
        let value = pcrs.entry(event.pcr).or_insert(Bytes([0; 32]));
        *value = extend(value, &event.digest);
    }
    pcrs
}

impl Reference {
    /// The reference values of an image, in the version that they need.
    pub fn new(
        image_id: Bytes16,
        manifest_sha256: Bytes32,
        tpm: TpmReference,
        platforms: Platforms,
    ) -> Self {
        let Platforms { snp, tdx, azure } = platforms;
        let version = if snp.is_empty() && tdx.is_empty() && azure.is_empty() {
            VERSION
        } else {
            VERSION_TEE
        };
        Self { version, image_id, manifest_sha256, tpm, snp, tdx, azure }
    }

    /// Reads `reference.json`. The caller must have checked its signature.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for unknown members, another version, a register above 15, a
    /// missing PCR 4, 7 or 11, or events that do not lead to the values stated.
    pub fn parse(bytes: &[u8]) -> Result<Self, AttestError> {
        let fail = |problem: String| AttestError::malformed("reference.json", problem);
        if bytes.len() > MAX_BYTES {
            return Err(fail(format!("{} bytes, at most {MAX_BYTES} allowed", bytes.len())));
        }
        let reference: Self = serde_json::from_slice(bytes).map_err(|e| fail(e.to_string()))?;
        let platforms = [reference.snp.len(), reference.tdx.len(), reference.azure.len()];
        match (reference.version, platforms) {
            (VERSION, [0, 0, 0]) => {}
            (VERSION, _) => {
                return Err(fail(format!("values of TEEs, which version {VERSION} does not have")));
            }
            (VERSION_TEE, [0, 0, 0]) => {
                return Err(fail(format!("version {VERSION_TEE} without values of any TEE")));
            }
            (VERSION_TEE, _) => {}
            (other, _) => {
                return Err(fail(format!(
                    "version {other}, this program reads {VERSION} and {VERSION_TEE}"
                )));
            }
        }
        if let Some(many) = platforms.into_iter().find(|many| *many > MAX_PLATFORMS) {
            return Err(fail(format!(
                "{many} platforms of one kind, at most {MAX_PLATFORMS} allowed"
            )));
        }
        if let Some(azure) = reference.azure.iter().find(|azure| !azure.pcrs.contains_key(&11)) {
            return Err(fail(format!(
                "no value for PCR 11 of {:?}: it shows the phase",
                azure.platform
            )));
        }
        let TpmReference { pcrs, explain, .. } = &reference.tpm;
        if let Some(pcr) = pcrs.keys().find(|pcr| **pcr > 15) {
            return Err(fail(format!("PCR {pcr} is not among those quoted, 0 to 15")));
        }
        if let Some(pcr) = ALWAYS.iter().find(|pcr| !pcrs.contains_key(pcr)) {
            return Err(fail(format!("no value for PCR {pcr}")));
        }
        let replayed = replay(explain);
        let untouched = Bytes([0; 32]);
        let explained =
            |(pcr, value): (&u8, &Bytes32)| replayed.get(pcr).unwrap_or(&untouched) == value;
        if !pcrs.iter().all(explained) || replayed.keys().any(|pcr| !pcrs.contains_key(pcr)) {
            return Err(fail("the events explained do not lead to the values".into()));
        }
        Ok(reference)
    }

    /// The reference values after the handoff, which the running system shows. SEV-SNP measures
    /// nothing then, so its values stay.
    #[must_use]
    pub fn after_handoff(&self) -> Self {
        let mut after = self.clone();
        after.tpm.pcrs = after_handoff(&self.tpm.pcrs);
        after
            .tdx
            .iter_mut()
            .for_each(|tdx| tdx.rtmr3 = rtmr::extend(&tdx.rtmr3, &td_handoff_digest()));
        after.azure.iter_mut().for_each(|azure| azure.pcrs = after_handoff(&azure.pcrs));
        after
    }

    /// The document's bytes, as they are signed: indented JSON and a final newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Serialization of these types cannot fail: string keys, no maps of other kinds.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text.into_bytes()
    }
}
