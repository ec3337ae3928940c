//! Reference values of an image for every kind of machine that it may run on.
//!
//! A build signs a [`crate::Reference`] of one image. A set also names whom to believe, with one
//! entry per platform. `flare-cvm policy new` writes policies from it.

use cvm_base::{Bytes, Bytes16, Bytes32};
use serde::{Deserialize, Serialize};

use crate::{
    AttestError,
    eventlog::EventLog,
    platform::{AzureReference, AzureTee, SnpReference, TdxReference},
    reference::{Reference, TpmReference},
};

/// The one schema version this program reads and writes.
pub const VERSION: u32 = 1;
/// The types with which firmware logs ACPI tables: EV_POST_CODE, EV_PLATFORM_CONFIG_FLAGS,
/// EV_POST_CODE2.
const EVENT_TYPES: [u32; 3] = [0x01, 0x0a, 0x13];
/// Such an event's data (TCG PC Client Platform Firmware Profile, EV_POSTCODE_INFO_ACPI_DATA).
const EVENT_DATA: &[u8] = b"ACPI DATA";

/// The longest document that is read, in bytes. Longer input is refused unread.
pub const MAX_BYTES: usize = 1024 * 1024;
/// The most entries of a kind.
const MAX_ENTRIES: usize = 64;

/// What an image measures, by kind of evidence. Policies refuse a kind without values.
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

/// What a TPM shows of a machine beside its image. [`FirmwareReference::of_log`] reads it from an
/// event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareReference {
    /// PCR 0: the firmware's code.
    pub pcr0: Bytes32,
    /// PCR 1: its configuration, the host's ACPI tables included.
    pub pcr1: Bytes32,
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

    /// Reads a set. The caller must have checked its signature.
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

impl FirmwareReference {
    /// The values of an event log, for a policy to name. Nothing vouches for a log: take one from a
    /// machine that the policy's owner trusts, or from one built like the site's.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for another form, and for firmware that measured no ACPI tables:
    /// PCR 1 is then the same whatever they hold, and naming it would accept them all.
    pub fn of_log(log: &[u8]) -> Result<Self, AttestError> {
        let log = EventLog::parse(log)?;
        let measured = log.events().iter().any(|event| {
            let data = event.data.strip_suffix(&[0]).unwrap_or(event.data);
            event.pcr == 1 && EVENT_TYPES.contains(&event.kind) && data == EVENT_DATA
        });
        if !measured {
            let problem = "its firmware measured no ACPI tables: PCR 1 is the same whatever the \
                host puts there";
            return Err(AttestError::malformed("event log", problem));
        }
        let values = log.replay();
        let at = |pcr: u8| values.get(&pcr).copied().unwrap_or(Bytes([0; 32]));
        Ok(Self { pcr0: at(0), pcr1: at(1) })
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
