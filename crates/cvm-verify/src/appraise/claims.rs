//! What evidence proved, by its kind.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    NotChecked,
    azure::AzureClaims,
    gpu::{GpuClaims, SwitchClaims},
    quote::{QuoteClaims, Registers},
    snp::{SigningKey, SnpClaims},
    tdx::{SgxClaims, TdxClaims},
    token::{EarToken, ItaClaims, MaaClaims, NrasClaims},
};
use cvm_evidence::{
    rtmr::{Bytes48, RTMRS, RtmrEvent},
    tpm::HashAlg,
};

/// The claims of one piece of evidence. A new kind of evidence is a variant here.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum EvidenceClaims {
    /// A SEV-SNP report.
    Snp(Box<SnpClaims>),
    /// A TD's quote.
    Tdx(Box<TdxClaims>),
    /// An SGX enclave's quote.
    Sgx(Box<SgxClaims>),
    /// Azure's vTPM over SEV-SNP.
    AzureSnp(Box<AzureClaims<SnpClaims>>),
    /// Azure's vTPM over TDX.
    AzureTdx(Box<AzureClaims<TdxClaims>>),
    /// A TPM's quote.
    Tpm(Box<QuoteClaims>),
    /// An NVIDIA GPU's report.
    Gpu(Box<GpuClaims>),
    /// An NVSwitch's report.
    Switch(Box<SwitchClaims>),
    /// A token of Azure Attestation.
    Maa(Box<MaaClaims>),
    /// A token of Intel Trust Authority.
    Ita(Box<ItaClaims>),
    /// The tokens of NVIDIA's service.
    Nras(Box<NrasClaims>),
    /// A verdict of our own verifier, or of Trustee.
    Ear(Box<EarClaims>),
    /// AMD's certificates alone.
    SnpCertificates(SnpCertificateClaims),
    /// A reference manifest of NVIDIA's alone.
    Manifest(ManifestClaims),
    /// A TPM's event log alone.
    EventLog(EventLogClaims),
    /// A TD's event log alone.
    CcEventLog(Box<CcEventLogClaims>),
}

/// A verdict that somebody signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarClaims {
    /// The verdict.
    pub ear: EarToken,
    /// Checks that were not made here.
    pub not_checked: Vec<NotChecked>,
}

/// A VCEK or VLEK that leads to AMD's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnpCertificateClaims {
    /// Which of the two.
    pub signing_key: SigningKey,
    /// Checks that were not made.
    pub not_checked: Vec<NotChecked>,
}

/// A reference manifest that NVIDIA signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ManifestClaims {
    /// The chip: `GH100`, `LS10`, ….
    pub product: String,
    /// The driver's or VBIOS's version.
    pub version: String,
    /// How many measurements must match.
    pub golden_values: usize,
    /// Checks that were not made.
    pub not_checked: Vec<NotChecked>,
}

/// A TPM's event log, which nobody signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventLogClaims {
    /// How many events it lists.
    pub events: usize,
    /// What it leads to: each bank's registers.
    pub pcrs: BTreeMap<HashAlg, Registers>,
    /// Checks that were not made.
    pub not_checked: Vec<NotChecked>,
}

/// A TD's event log, which nobody signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CcEventLogClaims {
    /// Its events, in order.
    pub events: Vec<RtmrEvent>,
    /// What it leads to: RTMR0 to RTMR3.
    pub rtmrs: [Bytes48; RTMRS],
    /// Checks that were not made.
    pub not_checked: Vec<NotChecked>,
}

impl EvidenceClaims {
    /// The name of its member in the annotated evidence: `snp`, `tdx`, `az-snp-vtpm`, `tpm`,
    /// `nvidia`, `maa`, ….
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Snp(_) => "snp",
            Self::Tdx(_) => "tdx",
            Self::Sgx(_) => "sgx",
            Self::AzureSnp(_) => "az-snp-vtpm",
            Self::AzureTdx(_) => "az-tdx-vtpm",
            Self::Tpm(_) => "tpm",
            Self::Gpu(_) => "nvidia",
            Self::Switch(_) => "nvswitch",
            Self::Maa(_) => "maa",
            Self::Ita(_) => "ita",
            Self::Nras(_) => "nras",
            Self::Ear(_) => "ear",
            Self::SnpCertificates(_) => "snp-certificates",
            Self::Manifest(_) => "nvidia-rim",
            Self::EventLog(_) => "event-log",
            Self::CcEventLog(_) => "cc-event-log",
        }
    }

    /// What the submodule's name begins with: `cpu`, `tpm`, `gpu`, `switch`, `token` or
    /// `collateral`.
    pub(super) fn prefix(&self) -> &'static str {
        match self {
            Self::Snp(_) | Self::Tdx(_) | Self::Sgx(_) | Self::AzureSnp(_) | Self::AzureTdx(_) => {
                "cpu"
            }
            Self::Tpm(_) => "tpm",
            Self::Gpu(_) => "gpu",
            Self::Switch(_) => "switch",
            Self::Maa(_) | Self::Ita(_) | Self::Nras(_) | Self::Ear(_) => "token",
            _ => "collateral",
        }
    }

    /// Whether something attested: logs, certificates and manifests alone attest nothing.
    pub(super) fn attests(&self) -> bool {
        self.prefix() != "collateral"
    }

    /// The checks that were not made.
    pub fn not_checked(&self) -> &[NotChecked] {
        match self {
            Self::Snp(claims) => &claims.not_checked,
            Self::Tdx(claims) => &claims.not_checked,
            Self::Sgx(claims) => &claims.not_checked,
            Self::AzureSnp(claims) => &claims.hardware.not_checked,
            Self::AzureTdx(claims) => &claims.hardware.not_checked,
            Self::Tpm(claims) => &claims.not_checked,
            Self::Gpu(claims) => &claims.facts.not_checked,
            Self::Switch(claims) => &claims.facts.not_checked,
            Self::Maa(claims) => &claims.not_checked,
            Self::Ita(claims) => &claims.not_checked,
            Self::Nras(claims) => &claims.not_checked,
            Self::Ear(claims) => &claims.not_checked,
            Self::SnpCertificates(claims) => &claims.not_checked,
            Self::Manifest(claims) => &claims.not_checked,
            Self::EventLog(claims) => &claims.not_checked,
            Self::CcEventLog(claims) => &claims.not_checked,
        }
    }

    pub(super) fn not_checked_mut(&mut self) -> &mut Vec<NotChecked> {
        match self {
            Self::Snp(claims) => &mut claims.not_checked,
            Self::Tdx(claims) => &mut claims.not_checked,
            Self::Sgx(claims) => &mut claims.not_checked,
            Self::AzureSnp(claims) => &mut claims.hardware.not_checked,
            Self::AzureTdx(claims) => &mut claims.hardware.not_checked,
            Self::Tpm(claims) => &mut claims.not_checked,
            Self::Gpu(claims) => &mut claims.facts.not_checked,
            Self::Switch(claims) => &mut claims.facts.not_checked,
            Self::Maa(claims) => &mut claims.not_checked,
            Self::Ita(claims) => &mut claims.not_checked,
            Self::Nras(claims) => &mut claims.not_checked,
            Self::Ear(claims) => &mut claims.not_checked,
            Self::SnpCertificates(claims) => &mut claims.not_checked,
            Self::Manifest(claims) => &mut claims.not_checked,
            Self::EventLog(claims) => &mut claims.not_checked,
            Self::CcEventLog(claims) => &mut claims.not_checked,
        }
    }

    /// The SEV-SNP report's claims: a native one's, or the one under Azure's vTPM.
    pub(super) fn snp(&self) -> Option<&SnpClaims> {
        match self {
            Self::Snp(claims) => Some(claims),
            Self::AzureSnp(claims) => Some(&claims.hardware),
            _ => None,
        }
    }

    /// The TD quote's claims: a native one's, or the one under Azure's vTPM.
    pub(super) fn tdx(&self) -> Option<&TdxClaims> {
        match self {
            Self::Tdx(claims) => Some(claims),
            Self::AzureTdx(claims) => Some(&claims.hardware),
            _ => None,
        }
    }

    /// The claims as policies read them: the content of the member that [`kind`](Self::kind)
    /// names.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Snp(claims) => written(claims),
            Self::Tdx(claims) => written(claims),
            Self::Sgx(claims) => written(claims),
            Self::AzureSnp(claims) => claims.vtpm.beside(written(&claims.hardware)),
            Self::AzureTdx(claims) => claims.vtpm.beside(written(&claims.hardware)),
            Self::Tpm(claims) => claims.members(),
            Self::Gpu(claims) => written(claims),
            Self::Switch(claims) => written(claims),
            Self::Maa(claims) => written(claims),
            Self::Ita(claims) => written(claims),
            Self::Nras(claims) => written(claims),
            Self::Ear(claims) => {
                let mut members = claims.ear.payload();
                members["not_checked"] = json!(claims.not_checked);
                members
            }
            Self::SnpCertificates(claims) => written(claims),
            Self::Manifest(claims) => written(claims),
            Self::EventLog(claims) => written(claims),
            Self::CcEventLog(claims) => written(claims),
        }
    }
}

/// Serialization cannot fail: every key is a string or a number.
fn written(claims: &impl Serialize) -> Value {
    serde_json::to_value(claims).unwrap_or_default()
}
