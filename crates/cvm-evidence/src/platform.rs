//! What an image measures on each kind of platform that it may run on, in reference values.

use std::collections::BTreeMap;

use cvm_base::{Bytes, Bytes32};
use serde::{Deserialize, Serialize};

use crate::{
    eventlog::extend,
    moments::handoff_digest,
    rtmr::RtmrEvent,
    tcb::{Tcb, TcbFloor},
};

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
    /// The digests for predictions with one other input: a digest does not say what went into it.
    /// For explanations alone; no policy accepts one.
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
    pub events: Vec<RtmrEvent>,
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

/// The registers after `cvm-init` has measured its handoff: PCR 11 is extended once more, the
/// others are as they were.
pub fn after_handoff(pcrs: &BTreeMap<u8, Bytes32>) -> BTreeMap<u8, Bytes32> {
    let handoff = handoff_digest();
    let later = |(pcr, value): (&u8, &Bytes32)| match pcr {
        11 => (*pcr, extend(value, &handoff)),
        _ => (*pcr, Bytes(value.0)),
    };
    pcrs.iter().map(later).collect()
}
