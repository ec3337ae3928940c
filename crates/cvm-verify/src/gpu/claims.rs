//! What verified evidence of a GPU or switch says, in the vocabularies of NVIDIA and Trustee at
//! once.
//!
//! `arch`, `uuid`, `measurements` and `config` are Trustee's; `x-nvidia-gpu-*`, `x-nvidia-switch-*`
//! and the EAT claims beside them are versions 2.0 and 3.0 of NVIDIA's SDK; [`LegacyClaims`] is
//! version 1.0.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::Value;

use super::{Arch, Feature, Pdi};
use crate::NotChecked;

/// Result of comparing measurements with golden values. NVIDIA's `fail` is an error here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measres {
    /// Every active golden value was measured.
    Success,
    /// There were no manifests to compare with.
    NotRun,
}

/// A validated certificate chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainClaims {
    /// When its first certificate expires.
    #[serde(rename = "x-nvidia-cert-expiration-date")]
    pub expiration_date: String,
    /// `valid`: any other chain is an error.
    #[serde(rename = "x-nvidia-cert-status")]
    pub status: String,
    /// `good`, or `undefined` when OCSP was not asked about each certificate. Anything else is an
    /// error.
    #[serde(rename = "x-nvidia-cert-ocsp-status")]
    pub ocsp_status: String,
    /// Always null: a revoked certificate is an error.
    #[serde(rename = "x-nvidia-cert-revocation-reason")]
    pub revocation_reason: Option<String>,
    /// Every response repeats the nonce it was asked with.
    #[serde(rename = "x-nvidia-cert-ocsp-nonce-matches")]
    pub ocsp_nonce_matches: bool,
    /// There was a response for every certificate, rightly signed, valid at the time.
    #[serde(rename = "x-nvidia-cert-ocsp-response-valid")]
    pub ocsp_response_valid: bool,
}

impl ChainClaims {
    pub(super) fn ocsp_good(&self) -> bool {
        self.ocsp_status == "good" && self.ocsp_response_valid
    }
}

/// What is said of a GPU and of a switch under the same names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceFacts {
    /// What its certificates say, not its sender.
    pub arch: Arch,
    /// What its sender says: it proves nothing.
    pub uuid: Option<String>,
    /// By SPDM's index, counted from 1; hex.
    #[serde(deserialize_with = "by_index")]
    pub measurements: BTreeMap<u8, String>,
    /// The opaque data.
    pub config: BTreeMap<String, Value>,
    /// The opaque data's types that are not known here; they are in `config` too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_fields: Vec<u16>,
    /// The nonce in the report, hex.
    pub eat_nonce: String,
    /// Whether the golden values were measured.
    pub measres: Measres,
    /// True once they were.
    pub secboot: Option<bool>,
    /// `disabled` once they were.
    pub dbgstat: Option<String>,
    /// Model by the identity key's certificate.
    pub hwmodel: String,
    /// Serial number of the attestation certificate, decimal: unique to a device and its firmware.
    pub ueid: String,
    /// `gpu` or `nvswitch`.
    #[serde(rename = "x-nvidia-device-type")]
    pub device_type: String,
    /// Null: a mismatch is an error.
    #[serde(rename = "x-nvidia-mismatch-measurement-records")]
    pub mismatches: Option<Value>,
    /// The names under which NVIDIA's service has its manifests.
    pub rim_ids: Vec<String>,
    /// The checks that were not made.
    pub not_checked: Vec<NotChecked>,
}

/// serde gives a flattened map's keys as text only.
fn by_index<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<u8, String>, D::Error> {
    let named = BTreeMap::<String, String>::deserialize(d)?;
    named
        .into_iter()
        .map(|(index, value)| Ok((index.parse().map_err(D::Error::custom)?, value)))
        .collect()
}

/// The report and its chain; `x-nvidia-gpu-attestation-report-…` of a GPU, `x-nvidia-switch-…` of a
/// switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportClaims {
    /// The device's chain.
    #[serde(rename = "cert-chain")]
    pub chain: ChainClaims,
    /// The report names the firmware that the attestation certificate names. True, too, for reports
    /// of firmware so old that it names none, as in NVIDIA's SDK; then `not_checked` says so.
    #[serde(rename = "cert-chain-fwid-match")]
    pub fwid_match: bool,
    /// Always true here.
    pub parsed: bool,
    /// The report's nonce is the expected one; false when none was expected.
    #[serde(rename = "nonce-match")]
    pub nonce_match: bool,
    /// Always true here.
    #[serde(rename = "signature-verified")]
    pub signature_verified: bool,
}

/// What a GPU's report, certificates and manifests proved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuClaims {
    /// As of a switch.
    #[serde(flatten)]
    pub facts: DeviceFacts,
    /// Maker of the firmware, by the driver's manifest: 5703 is NVIDIA.
    pub oemid: Option<String>,
    /// The chip is of a known architecture, and the one its sender named, if any.
    #[serde(rename = "x-nvidia-gpu-arch-check")]
    pub arch_check: bool,
    /// Driver version, by the report.
    #[serde(rename = "x-nvidia-gpu-driver-version")]
    pub driver_version: String,
    /// VBIOS version, by the report.
    #[serde(rename = "x-nvidia-gpu-vbios-version")]
    pub vbios_version: String,
    /// The switches at its links.
    #[serde(rename = "x-nvidia-gpu-switch-pdis", default, skip_serializing_if = "Vec::is_empty")]
    pub switch_pdis: Vec<Pdi>,
    /// The report and the device's chain.
    #[serde(flatten, with = "prefix_gpu_report")]
    pub report: ReportClaims,
    /// The driver's manifest.
    #[serde(flatten, with = "prefix_driver")]
    pub driver_rim: RimClaims,
    /// The VBIOS's manifest.
    #[serde(flatten, with = "prefix_vbios")]
    pub vbios_rim: RimClaims,
    /// No measurement is in both manifests.
    #[serde(rename = "x-nvidia-gpu-vbios-index-no-conflict")]
    pub vbios_index_no_conflict: bool,
    /// The mode, where the firmware states one.
    #[serde(rename = "x-nvidia-gpu-mode", skip_serializing_if = "Option::is_none")]
    pub feature: Option<Feature>,
    /// The device's name on the fabric, by its identity certificate.
    #[serde(rename = "x-nvidia-gpu-pdi", skip_serializing_if = "Option::is_none")]
    pub pdi: Option<Pdi>,
    /// Version 1.0 of the vocabulary.
    #[serde(flatten)]
    pub legacy: LegacyClaims,
}

/// What a switch's report, certificates and manifest proved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwitchClaims {
    /// As of a GPU.
    #[serde(flatten)]
    pub facts: DeviceFacts,
    /// The chip is of a known architecture, and the one its sender named, if any.
    #[serde(rename = "x-nvidia-switch-arch-check")]
    pub arch_check: bool,
    /// BIOS version, by the report.
    #[serde(rename = "x-nvidia-switch-bios-version")]
    pub bios_version: String,
    /// Its own name on the fabric.
    #[serde(rename = "x-nvidia-switch-pdi", skip_serializing_if = "Option::is_none")]
    pub pdi: Option<Pdi>,
    /// The GPUs at its ports.
    #[serde(rename = "x-nvidia-switch-gpu-pdis", default, skip_serializing_if = "Vec::is_empty")]
    pub gpu_pdis: Vec<Pdi>,
    /// The report and the device's chain.
    #[serde(flatten, with = "prefix_switch_report")]
    pub report: ReportClaims,
    /// The BIOS's manifest.
    #[serde(flatten, with = "prefix_bios")]
    pub bios_rim: RimClaims,
}

/// A manifest: all true when it was given, all false when not. Anything between is an error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RimClaims {
    /// It was given.
    #[serde(rename = "fetched")]
    pub fetched: bool,
    /// It has exactly the form of NVIDIA's manifests.
    #[serde(rename = "schema-validated")]
    pub schema_validated: bool,
    /// Its signer's chain.
    #[serde(rename = "cert-chain")]
    pub chain: Option<ChainClaims>,
    /// NVIDIA signed it.
    #[serde(rename = "signature-verified")]
    pub signature_verified: bool,
    /// It is the one of the report's version and chip.
    #[serde(rename = "version-match")]
    pub version_match: bool,
    /// It holds golden values.
    #[serde(rename = "measurements-available")]
    pub measurements_available: bool,
}

impl RimClaims {
    pub(super) fn of_a_verified_manifest(chain: ChainClaims) -> Self {
        Self {
            fetched: true,
            schema_validated: true,
            chain: Some(chain),
            signature_verified: true,
            version_match: true,
            measurements_available: true,
        }
    }
}

/// Flattens claims under a name's prefix, which serde cannot do by itself.
macro_rules! prefixed {
    ($module:ident, $claims:ident, $prefix:literal) => {
        mod $module {
            use super::{BTreeMap, Deserialize, Value, $claims};

            pub(super) fn serialize<S: serde::Serializer>(
                claims: &$claims,
                s: S,
            ) -> Result<S::Ok, S::Error> {
                let members = serde_json::to_value(claims).map_err(serde::ser::Error::custom)?;
                let members = members.as_object().into_iter().flatten();
                s.collect_map(members.map(|(name, value)| (format!("{}{name}", $prefix), value)))
            }

            pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
                d: D,
            ) -> Result<$claims, D::Error> {
                let all = BTreeMap::<String, Value>::deserialize(d)?;
                let ours = all.into_iter().filter_map(|(name, value)| {
                    Some((name.strip_prefix($prefix)?.to_owned(), value))
                });
                $claims::deserialize(Value::Object(ours.collect()))
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}

prefixed!(prefix_gpu_report, ReportClaims, "x-nvidia-gpu-attestation-report-");
prefixed!(prefix_switch_report, ReportClaims, "x-nvidia-switch-attestation-report-");
prefixed!(prefix_driver, RimClaims, "x-nvidia-gpu-driver-rim-");
prefixed!(prefix_vbios, RimClaims, "x-nvidia-gpu-vbios-rim-");
prefixed!(prefix_bios, RimClaims, "x-nvidia-switch-bios-rim-");

/// Version 1.0 of NVIDIA's vocabulary: the 28 names of its result policy 1.0.
///
/// `x-nv-gpu-vbios-index-conflict` is true when there is no conflict: NVIDIA's SDK 1.0 misnamed it,
/// and its policy of that version requires it to be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each name says what it is; NVIDIA defines them")]
pub struct LegacyClaims {
    pub x_nv_gpu_available: bool,
    pub x_nv_gpu_attestation_report_available: bool,
    pub x_nv_gpu_info_fetched: bool,
    pub x_nv_gpu_arch_check: bool,
    pub x_nv_gpu_root_cert_available: bool,
    pub x_nv_gpu_cert_chain_verified: bool,
    pub x_nv_gpu_ocsp_cert_chain_verified: bool,
    pub x_nv_gpu_ocsp_signature_verified: bool,
    pub x_nv_gpu_cert_ocsp_nonce_match: bool,
    pub x_nv_gpu_cert_check_complete: bool,
    pub x_nv_gpu_measurement_available: bool,
    pub x_nv_gpu_attestation_report_parsed: bool,
    pub x_nv_gpu_nonce_match: bool,
    pub x_nv_gpu_attestation_report_driver_version_match: bool,
    pub x_nv_gpu_attestation_report_vbios_version_match: bool,
    pub x_nv_gpu_attestation_report_verified: bool,
    pub x_nv_gpu_driver_rim_schema_fetched: bool,
    pub x_nv_gpu_driver_rim_schema_validated: bool,
    pub x_nv_gpu_driver_rim_cert_extracted: bool,
    pub x_nv_gpu_driver_rim_signature_verified: bool,
    pub x_nv_gpu_driver_rim_driver_measurements_available: bool,
    pub x_nv_gpu_driver_vbios_rim_fetched: bool,
    pub x_nv_gpu_vbios_rim_schema_validated: bool,
    pub x_nv_gpu_vbios_rim_cert_extracted: bool,
    pub x_nv_gpu_vbios_rim_signature_verified: bool,
    pub x_nv_gpu_vbios_rim_driver_measurements_available: bool,
    pub x_nv_gpu_vbios_index_conflict: bool,
    pub x_nv_gpu_measurements_match: bool,
}

/// What the 28 claims depend on; the others are true of everything that was not refused.
pub(super) struct LegacyInputs {
    pub nonce: bool,
    pub rims: bool,
    /// OCSP called each certificate of all three chains good; and each response repeats its nonce.
    pub ocsp: bool,
    pub ocsp_nonce: bool,
}

impl LegacyClaims {
    pub(super) fn new(LegacyInputs { nonce, rims, ocsp, ocsp_nonce }: LegacyInputs) -> Self {
        Self {
            x_nv_gpu_available: true,
            x_nv_gpu_attestation_report_available: true,
            x_nv_gpu_info_fetched: true,
            x_nv_gpu_arch_check: true,
            x_nv_gpu_root_cert_available: true,
            x_nv_gpu_cert_chain_verified: true,
            x_nv_gpu_ocsp_cert_chain_verified: ocsp,
            x_nv_gpu_ocsp_signature_verified: ocsp,
            x_nv_gpu_cert_ocsp_nonce_match: ocsp_nonce,
            x_nv_gpu_cert_check_complete: ocsp,
            x_nv_gpu_measurement_available: true,
            x_nv_gpu_attestation_report_parsed: true,
            x_nv_gpu_nonce_match: nonce,
            // NVIDIA compares with what NVML says; a remote verifier has the manifest of that
            // version instead.
            x_nv_gpu_attestation_report_driver_version_match: rims,
            x_nv_gpu_attestation_report_vbios_version_match: rims,
            x_nv_gpu_attestation_report_verified: true,
            x_nv_gpu_driver_rim_schema_fetched: rims,
            x_nv_gpu_driver_rim_schema_validated: rims,
            x_nv_gpu_driver_rim_cert_extracted: rims,
            x_nv_gpu_driver_rim_signature_verified: rims,
            x_nv_gpu_driver_rim_driver_measurements_available: rims,
            x_nv_gpu_driver_vbios_rim_fetched: rims,
            x_nv_gpu_vbios_rim_schema_validated: rims,
            x_nv_gpu_vbios_rim_cert_extracted: rims,
            x_nv_gpu_vbios_rim_signature_verified: rims,
            x_nv_gpu_vbios_rim_driver_measurements_available: rims,
            x_nv_gpu_vbios_index_conflict: rims,
            x_nv_gpu_measurements_match: rims,
        }
    }
}
