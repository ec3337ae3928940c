//! What a quote proved, laid out like Trustee's `tdx` and `sgx` claims.

use cvm_base::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    TcbStatus, Timestamp,
    ccel::CcEvent,
    collateral::VerifiedCollateral,
    pck::Pck,
    quote::{EnclaveReport, Header, TdReport},
    tcb::Verdict,
};
use crate::NotChecked;
use cvm_evidence::rtmr::{Bytes48, RtmrEvent, sha384};

/// What a TD's quote proved. Hex throughout; numbers as in the quote, little-endian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TdxClaims {
    /// The quote.
    pub quote: QuoteClaims,
    /// The TD's attributes, by name.
    pub td_attributes: TdAttributes,
    /// REPORT_DATA.
    pub report_data: Bytes<64>,
    /// MRCONFIGID: where Confidential Containers put their initdata's digest.
    pub init_data: Bytes48,
    /// The platform.
    #[serde(flatten)]
    pub platform: PlatformClaims,
    /// What the event log lists, where one was given; it replays to all four RTMRs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uefi_event_logs: Option<Vec<EventClaim>>,
    /// Checks that were not made.
    pub not_checked: Vec<NotChecked>,
}

/// What an enclave's quote proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SgxClaims {
    /// The quote's header.
    pub header: SgxHeader,
    /// The enclave.
    pub body: EnclaveReport,
    /// REPORT_DATA.
    pub report_data: Bytes<64>,
    /// CONFIGID.
    pub init_data: Bytes<64>,
    /// The platform.
    #[serde(flatten)]
    pub platform: PlatformClaims,
    /// Checks that were not made.
    pub not_checked: Vec<NotChecked>,
}

/// Header and body of a TD's quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteClaims {
    /// The header.
    pub header: Header,
    /// Version 5: the body's type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none", default)]
    pub body_type: Option<Bytes<2>>,
    /// Version 5: the body's size.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<Bytes<4>>,
    /// The TD report.
    pub body: TdReport,
}

/// The header of a version 3 quote, under that version's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SgxHeader {
    /// 3.
    pub version: Bytes<2>,
    /// 2: ECDSA-256 with P-256.
    pub att_key_type: Bytes<2>,
    /// Zero.
    pub att_key_data_0: Bytes<4>,
    /// The quoting enclave's security version.
    pub qe_svn: Bytes<2>,
    /// The PCE's security version.
    pub pce_svn: Bytes<2>,
    /// The quoting enclave's vendor.
    pub vendor_id: Bytes<16>,
    /// The first 16 bytes name the platform's quoting enclave.
    pub user_data: Bytes<20>,
}

impl From<&Header> for SgxHeader {
    fn from(header: &Header) -> Self {
        let [qe0, qe1, pce0, pce1] = header.reserved.0;
        Self {
            version: header.version,
            att_key_type: header.att_key_type,
            att_key_data_0: header.tee_type,
            qe_svn: Bytes([qe0, qe1]),
            pce_svn: Bytes([pce0, pce1]),
            vendor_id: header.vendor_id,
            user_data: header.user_data,
        }
    }
}

/// A TD's ATTRIBUTES (Intel TDX Module ABI 348551-008US, table 3.23).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TdAttributes {
    /// Bit 0: the host can read and write the TD.
    pub debug: bool,
    /// Bits 4 to 6: the host may profile the TD.
    pub profiling: bool,
    /// Bit 16: instruction-count based defence against single-stepping.
    pub icssd: bool,
    /// Bit 17: the report holds a hash of the service TDs' extended structure.
    pub servtd_ext: bool,
    /// Bit 27: linear address space separation.
    pub lass: bool,
    /// Bit 28: an EPT violation on a pending page is the host's problem, no exception in the TD.
    pub septve_disable: bool,
    /// Bit 29: a migration TD may move it to another platform.
    pub migratable: bool,
    /// Bit 30: supervisor protection keys.
    pub protection_keys: bool,
    /// Bit 31: Key Locker.
    pub key_locker: bool,
    /// Bit 62: TDX Connect provisioning agent.
    pub provisioning_agent: bool,
    /// Bit 63: performance counters.
    pub perfmon: bool,
    /// Bits that the ABI reserves, as they are in the quote, little endian; absent where none is
    /// set. Intel asks that no such TD is accepted: one may be a way for the host into the TD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Bytes<8>>,
}

impl TdAttributes {
    /// Bits that the ABI reserves.
    const RESERVED: u64 = 0x3fff_ffff_0780_ff8e;

    /// Names the bits.
    pub fn new(attributes: Bytes<8>) -> Self {
        let bits = u64::from_le_bytes(attributes.0);
        let bit = |number: u32| bits & (1 << number) != 0;
        let unknown = Some(bits & Self::RESERVED).filter(|unknown| *unknown != 0);
        Self {
            debug: bit(0),
            profiling: bit(4) || bit(5) || bit(6),
            icssd: bit(16),
            servtd_ext: bit(17),
            lass: bit(27),
            septve_disable: bit(28),
            migratable: bit(29),
            protection_keys: bit(30),
            key_locker: bit(31),
            provisioning_agent: bit(62),
            perfmon: bit(63),
            unknown: unknown.map(|unknown| Bytes(unknown.to_le_bytes())),
        }
    }
}

/// What certificate and collateral say about the platform, under the names of Intel's supplemental
/// data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformClaims {
    /// The status; none without collateral. A policy must look at it: nothing else does.
    pub tcb_status: Option<TcbStatus>,
    /// Intel's advisories that apply at this status.
    pub advisory_ids: Vec<String>,
    /// `0`: no part of the collateral has expired; one that has is refused. None without
    /// collateral.
    pub collateral_expiration_status: Option<String>,
    /// The date of the TCB level.
    pub tcb_date: Option<Timestamp>,
    /// Which of Intel's TCB recoveries the collateral knows: the lower number of TCB info and QE
    /// identity.
    pub tcb_eval_num: Option<u32>,
    /// The oldest part of the collateral.
    pub earliest_issue_date: Option<Timestamp>,
    /// The newest part of the collateral.
    pub latest_issue_date: Option<Timestamp>,
    /// When the first part of the collateral expires.
    pub earliest_expiration_date: Option<Timestamp>,
    /// The PCK revocation list's number.
    pub pck_crl_num: Option<u64>,
    /// The root CA revocation list's number.
    pub root_ca_crl_num: Option<u64>,
    /// SHA-384 of the root CA's public key.
    pub root_key_id: Option<Bytes48>,
    /// Family, model, stepping and more: names the collateral.
    pub fmspc: Bytes<6>,
    /// PPID: this processor package.
    pub platform_provider_id: Bytes<16>,
    /// This platform, as Intel's registration knows it.
    pub platform_instance_id: Option<Bytes<16>>,
    /// `Standard`, `Scalable`, `Scalable with Integrity`.
    pub sgx_type: String,
    /// Whether processor packages may be added.
    pub is_dynamic_platform: Option<bool>,
    /// Whether Intel's registration service holds the platform's root keys.
    pub is_cached_keys: Option<bool>,
    /// Whether simultaneous multithreading was on when the certificate was made.
    pub is_smt_enabled: Option<bool>,
}

impl PlatformClaims {
    pub(super) fn new(pck: &Pck, judged: Option<(&VerifiedCollateral, Verdict)>) -> Self {
        let extension = &pck.extension;
        let mut claims = Self {
            tcb_status: None,
            advisory_ids: Vec::new(),
            collateral_expiration_status: None,
            tcb_date: None,
            tcb_eval_num: None,
            earliest_issue_date: None,
            latest_issue_date: None,
            earliest_expiration_date: None,
            pck_crl_num: None,
            root_ca_crl_num: None,
            root_key_id: None,
            fmspc: extension.fmspc,
            platform_provider_id: extension.ppid,
            platform_instance_id: extension.platform_instance_id,
            sgx_type: match extension.sgx_type {
                0 => "Standard".into(),
                1 => "Scalable".into(),
                2 => "Scalable with Integrity".into(),
                other => format!("Unknown ({other})"),
            },
            is_dynamic_platform: extension.dynamic_platform,
            is_cached_keys: extension.cached_keys,
            is_smt_enabled: extension.smt_enabled,
        };
        if let Some((collateral, verdict)) = judged {
            let (from, until) = pck.validity;
            let (earliest, latest, expiration) = collateral.window();
            claims.tcb_status = Some(verdict.status);
            claims.advisory_ids = verdict.advisory_ids;
            claims.tcb_date = Some(verdict.tcb_date);
            claims.collateral_expiration_status = Some("0".into());
            claims.tcb_eval_num = Some(
                collateral
                    .tcb_info
                    .tcb_evaluation_data_number
                    .min(collateral.qe_identity.tcb_evaluation_data_number),
            );
            claims.earliest_issue_date = Some(Timestamp(earliest.min(from)));
            claims.latest_issue_date = Some(Timestamp(latest.max(from)));
            claims.earliest_expiration_date = Some(Timestamp(expiration.min(until)));
            claims.pck_crl_num = Some(collateral.pck_crl_number);
            claims.root_ca_crl_num = Some(collateral.root_crl_number);
            claims.root_key_id = Some(sha384(collateral.root.public_key()));
        }
        claims
    }
}

/// One measurement, as Trustee's policies read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventClaim {
    /// The log's register: 1 for RTMR0 to 4 for RTMR3.
    pub index: u32,
    /// The TCG's name of the event's type.
    pub type_name: String,
    /// One: SHA-384.
    pub digests: Vec<DigestClaim>,
    /// A name for people.
    pub event: String,
    /// Whether the digest is that of the event's own data; else the details are the host's word.
    pub proven: bool,
    /// What the event says.
    pub details: EventDetails,
}

/// A digest and its algorithm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestClaim {
    /// `SHA-384`.
    pub alg: String,
    /// What was extended.
    pub digest: Bytes48,
}

/// What an event says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventDetails {
    /// Of a boot application: the files in its device path, as `File(kernel)`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device_paths: Option<Vec<String>>,
    /// Of a tagged event: its text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub string: Option<String>,
    /// Of a runtime measurement of dstack: its payload, hex.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub data: Option<String>,
}

impl From<&CcEvent> for EventClaim {
    fn from(event: &CcEvent) -> Self {
        Self {
            index: u32::from(event.rtmr) + 1,
            type_name: event.type_name().into(),
            digests: vec![DigestClaim { alg: "SHA-384".into(), digest: event.digest }],
            event: event.describe(),
            proven: event.is_proven(),
            details: EventDetails {
                device_paths: event.device_paths(),
                string: event.tagged(),
                data: event.name.as_ref().map(|_| hex::encode(&event.data)),
            },
        }
    }
}

impl TdxClaims {
    /// RTMR0 to RTMR3.
    pub fn rtmrs(&self) -> [Bytes48; 4] {
        self.quote.body.rtmrs()
    }

    /// The measurements that the event log lists, for comparison with reference events
    /// ([`cvm_evidence::rtmr::explain`]).
    pub fn measurements(&self) -> Vec<RtmrEvent> {
        let events = self.uefi_event_logs.iter().flatten();
        let measurement = |event: &EventClaim| {
            let digest = event.digests.first()?.digest;
            Some(RtmrEvent {
                rtmr: u8::try_from(event.index.checked_sub(1)?).ok()?,
                event: event.event.clone(),
                digest,
            })
        };
        events.filter_map(measurement).collect()
    }
}

impl TdReport {
    /// RTMR0 to RTMR3.
    pub fn rtmrs(&self) -> [Bytes48; 4] {
        [self.rtmr_0, self.rtmr_1, self.rtmr_2, self.rtmr_3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table 3.23 lists these bits; every other one is reserved.
    #[test]
    fn reserved_attributes_are_known() {
        let defined = [0, 4, 5, 6, 16, 17, 18, 19, 20, 21, 22, 27, 28, 29, 30, 31, 62, 63];
        for bit in 0..64 {
            let attributes = Bytes((1u64 << bit).to_le_bytes());
            assert_eq!(
                TdAttributes::new(attributes).unknown.is_none(),
                defined.contains(&bit),
                "bit {bit}"
            );
        }
    }
}
