//! Reference values of an image for every kind of machine that it may run on.
//!
//! [`crate::Reference`] is what a build signs of one image; this also holds whom to believe, one
//! entry a platform, and is what `flare-cvm policy new` writes policies from.

use std::collections::BTreeMap;

use cvm_base::{Bytes, Bytes16, Bytes32};
use serde::{Deserialize, Serialize};

use crate::{
    AttestError, Reference,
    reference::TpmReference,
    tcb::{Tcb, TcbFloor},
};

/// The one schema version this program reads and writes.
pub const VERSION: u32 = 1;
/// More than any set needs; longer input is refused unread.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Platforms of a kind.
const MAX_ENTRIES: usize = 64;

/// What an image measures, by kind of evidence. A kind that is empty is one that policies refuse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceSet {
    /// [`VERSION`].
    pub version: u32,
    /// The image.
    pub image_id: Bytes16,
    /// TPM 2.0: the registers of `reference.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<TpmReference>,
    /// SHA-256 of the root certificates of those who may endorse TPMs. Without one, no TPM is
    /// believed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ek_roots: Vec<Bytes32>,
    /// Firmware and virtual hardware whose TPM is believed; without any, PCR 0 and 1 are not
    /// compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub firmware: Vec<FirmwareReference>,
    /// SEV-SNP launch digests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snp: Vec<SnpReference>,
    /// TDX measurements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tdx: Vec<TdxReference>,
    /// Azure confidential VMs: the paravisor's measurement and the vTPM's registers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub azure: Vec<AzureReference>,
    /// GPUs and switches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvidia: Option<NvidiaReference>,
}

/// What a TPM shows of a machine beside its image. `FirmwareReference::of_log` reads it from an
/// event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareReference {
    /// PCR 0: the firmware's code.
    pub pcr0: Bytes32,
    /// PCR 1: its configuration, the host's ACPI tables included.
    pub pcr1: Bytes32,
}

/// One SEV-SNP platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SnpDocument")]
pub struct SnpReference {
    /// For people: `qemu, EPYC-v4, 4 vCPUs`.
    pub platform: String,
    /// The launch digest.
    pub measurement: Bytes<48>,
    /// The least TCB of the machines: without one, none is accepted.
    #[serde(skip_serializing_if = "TcbFloor::is_empty")]
    pub tcb_floor: TcbFloor,
    /// What the digest would be if one input of the prediction were another: a digest does not say
    /// what went into it. For explanations alone; no policy accepts one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<SnpVariant>,
}

/// As documents have it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnpDocument {
    platform: String,
    measurement: Bytes<48>,
    #[serde(default)]
    tcb_floor: TcbFloor,
    /// Of earlier versions, for no product: nobody can say of which machines it was meant, so it
    /// counts as none. The member has another name today because policies that parties have signed
    /// look at this one.
    #[serde(default, rename = "min_tcb")]
    _min_tcb: Option<Tcb>,
    #[serde(default)]
    variants: Vec<SnpVariant>,
}

impl From<SnpDocument> for SnpReference {
    fn from(document: SnpDocument) -> Self {
        let SnpDocument { platform, measurement, tcb_floor, variants, .. } = document;
        Self { platform, measurement, tcb_floor, variants }
    }
}

/// The launch digest under one changed input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpVariant {
    /// For people: `the host gave 8 vCPUs, predicted are 4`.
    pub change: String,
    /// What it leads to.
    pub measurement: Bytes<48>,
}

/// One TDX platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxReference {
    /// For people.
    pub platform: String,
    /// The TD's initial memory: the firmware.
    pub mrtd: Bytes<48>,
    /// The firmware's configuration.
    pub rtmr0: Bytes<48>,
    /// What the firmware started.
    pub rtmr1: Bytes<48>,
    /// What the loader started.
    pub rtmr2: Bytes<48>,
    /// The system's own; zeros at boot.
    pub rtmr3: Bytes<48>,
    /// The measurements that lead there, as far as they are known: for explanations alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<crate::rtmr::RtmrEvent>,
}

/// One kind of Azure confidential VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzureReference {
    /// For people.
    pub platform: String,
    /// The TEE under the vTPM.
    pub tee: AzureTee,
    /// The SNP launch digest or MRTD of Azure's paravisor.
    pub measurement: Bytes<48>,
    /// Of SEV-SNP: as in [`SnpReference`].
    #[serde(default, skip_serializing_if = "TcbFloor::is_empty")]
    pub tcb_floor: TcbFloor,
    /// The vTPM's registers, SHA-256.
    pub pcrs: BTreeMap<u8, Bytes32>,
}

/// The TEE of an Azure confidential VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AzureTee {
    /// SEV-SNP.
    Snp,
    /// TDX.
    Tdx,
}

impl AzureTee {
    /// `snp` or `tdx`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::Tdx => "tdx",
        }
    }
}

/// GPUs of the image's machines. An empty list accepts every value that NVIDIA's own reference
/// values accept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NvidiaReference {
    /// How many GPUs there must be; without it, at least one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u8>,
    /// `hwmodel`.
    pub models: Vec<String>,
    /// Driver versions.
    pub driver_versions: Vec<String>,
    /// VBIOS versions.
    pub vbios_versions: Vec<String>,
}

impl ReferenceSet {
    /// A set that knows an image and no platform.
    pub fn new(image_id: Bytes16) -> Self {
        Self {
            version: VERSION,
            image_id,
            tpm: None,
            ek_roots: Vec::new(),
            firmware: Vec::new(),
            snp: Vec::new(),
            tdx: Vec::new(),
            azure: Vec::new(),
            nvidia: None,
        }
    }

    /// Reads a set (its signature is the caller's to check first).
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for unknown members, another version, a register above 23, or too
    /// many entries.
    pub fn parse(bytes: &[u8]) -> Result<Self, AttestError> {
        let fail = |problem: String| AttestError::malformed("reference values", problem);
        if bytes.len() > MAX_BYTES {
            return Err(fail(format!("{} bytes, at most {MAX_BYTES} allowed", bytes.len())));
        }
        let set: Self = serde_json::from_slice(bytes).map_err(|e| fail(e.to_string()))?;
        if set.version != VERSION {
            return Err(fail(format!("version {}, this program reads {VERSION}", set.version)));
        }
        let most =
            [set.snp.len(), set.tdx.len(), set.azure.len(), set.ek_roots.len(), set.firmware.len()];
        let most = most.into_iter().max().unwrap_or(0);
        if most > MAX_ENTRIES {
            return Err(fail(format!("{most} entries of one kind, at most {MAX_ENTRIES} allowed")));
        }
        let registers = set
            .tpm
            .iter()
            .flat_map(|tpm| tpm.pcrs.keys())
            .chain(set.azure.iter().flat_map(|a| a.pcrs.keys()));
        if let Some(pcr) = registers.into_iter().find(|pcr| **pcr > 23) {
            return Err(fail(format!("PCR {pcr} does not exist")));
        }
        Ok(set)
    }

    /// The document's bytes: indented JSON and a final newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Serialization of these types cannot fail: string keys only.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text.into_bytes()
    }
}

impl ReferenceSet {
    /// The first SEV-SNP platform without a TCB floor: its machines are refused.
    pub fn without_floor(&self) -> Option<&str> {
        let azure = self.azure.iter().filter(|azure| azure.tee == AzureTee::Snp);
        let all = self.snp.iter().map(|snp| (&snp.platform, &snp.tcb_floor));
        let mut all = all.chain(azure.map(|azure| (&azure.platform, &azure.tcb_floor)));
        all.find(|(_, floor)| floor.is_empty()).map(|(platform, _)| platform.as_str())
    }
}

/// What a build signs, as a set.
impl From<&Reference> for ReferenceSet {
    fn from(reference: &Reference) -> Self {
        Self {
            tpm: Some(reference.tpm.clone()),
            snp: reference.snp.clone(),
            tdx: reference.tdx.clone(),
            azure: reference.azure.clone(),
            ..Self::new(reference.image_id)
        }
    }
}

/// A register after `cvm-init` has measured its handoff: PCR 11 once more extended, the others as
/// they were.
pub fn after_handoff(pcrs: &BTreeMap<u8, Bytes32>) -> BTreeMap<u8, Bytes32> {
    let handoff = crate::handoff_digest();
    let later = |(pcr, value): (&u8, &Bytes32)| match pcr {
        11 => (*pcr, crate::eventlog::extend(value, &handoff)),
        _ => (*pcr, Bytes(value.0)),
    };
    pcrs.iter().map(later).collect()
}
