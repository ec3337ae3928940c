//! Which quoting enclave may vouch for a TD, and how good it is (Intel PCS API v4, enclave
//! identity).

use cvm_base::Bytes;
use serde::Deserialize;

use super::{
    TcbStatus, TdxError,
    quote::EnclaveReport,
    tcb::{Isvsvn, Level, Verdict, any_hex, check_component_levels, reached_by},
    time::Timestamp,
};

/// QE identity, version 2 (and 3, which dcap-qvl reads alike).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QeIdentity {
    id: String,
    version: u32,
    pub(super) issue_date: Timestamp,
    pub(super) next_update: Timestamp,
    pub(super) tcb_evaluation_data_number: u32,
    #[serde(flatten)]
    pub(super) enclave: EnclaveIdentity,
    tcb_levels: Vec<Level<Isvsvn>>,
}

/// Which enclave a report may be of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EnclaveIdentity {
    #[serde(with = "any_hex")]
    miscselect: Bytes<4>,
    #[serde(with = "any_hex")]
    miscselect_mask: Bytes<4>,
    #[serde(with = "any_hex")]
    attributes: Bytes<16>,
    #[serde(with = "any_hex")]
    attributes_mask: Bytes<16>,
    #[serde(with = "any_hex")]
    mrsigner: Bytes<32>,
    isvprodid: u16,
}

impl QeIdentity {
    /// Reads a QE identity whose signature was checked.
    pub(super) fn parse(json: &str) -> Result<Self, TdxError> {
        let fail = |problem: String| TdxError::collateral(format!("QE identity: {problem}"));
        let mut identity: Self = serde_json::from_str(json).map_err(|e| fail(e.to_string()))?;
        if !matches!((&*identity.id, identity.version), ("QE", 2) | ("TD_QE", 2 | 3)) {
            let found = format!("{:?} version {}", identity.id, identity.version);
            return Err(fail(format!("{found}, expected QE version 2 or TD_QE version 2 or 3")));
        }
        check_component_levels(&mut identity.tcb_levels, &fail)?;
        Ok(identity)
    }

    /// Whether it is that of the TDX quoting enclave.
    pub(super) fn is_tdx(&self) -> bool {
        self.id == "TD_QE"
    }

    /// Joins the quoting enclave's level to the platform's: the last word.
    pub(super) fn judge(
        &self,
        report: &EnclaveReport,
        platform: Verdict,
    ) -> Result<Verdict, TdxError> {
        let svn = u16::from_le_bytes(report.isv_svn.0);
        let level = reached_by(&self.tcb_levels, svn).ok_or_else(|| {
            TdxError::tcb(format!("no level of the quoting enclave is reached by {svn}"))
        })?;
        let mut verdict = platform;
        verdict.join(level);
        let current = verdict.current.map(|status| status.with_component(level.tcb_status));
        if [Some(verdict.status), current].contains(&Some(TcbStatus::Revoked)) {
            return Err(TdxError::tcb("Revoked: the platform's keys are compromised"));
        }
        if let Some(current) = current {
            verdict.status = verdict.status.with_current(current);
        }
        Ok(verdict)
    }
}

impl EnclaveIdentity {
    /// Intel's quoting enclaves, as in every QE identity published so far: what a quote without
    /// collateral is held against.
    pub(super) fn intel(tdx: bool) -> Self {
        const TD_QE: [u8; 32] = [
            0xdc, 0x9e, 0x2a, 0x7c, 0x6f, 0x94, 0x8f, 0x17, 0x47, 0x4e, 0x34, 0xa7, 0xfc, 0x43,
            0xed, 0x03, 0x0f, 0x7c, 0x15, 0x63, 0xf1, 0xba, 0xbd, 0xdf, 0x63, 0x40, 0xc8, 0x2e,
            0x0e, 0x54, 0xa8, 0xc5,
        ];
        const QE: [u8; 32] = [
            0x8c, 0x4f, 0x57, 0x75, 0xd7, 0x96, 0x50, 0x3e, 0x96, 0x13, 0x7f, 0x77, 0xc6, 0x8a,
            0x82, 0x9a, 0x00, 0x56, 0xac, 0x8d, 0xed, 0x70, 0x14, 0x0b, 0x08, 0x1b, 0x09, 0x44,
            0x90, 0xc5, 0x7b, 0xff,
        ];
        let mut attributes = [0; 16];
        attributes[0] = 0x11;
        let mut attributes_mask = [0; 16];
        attributes_mask[..8].copy_from_slice(&[0xfb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        Self {
            miscselect: Bytes([0; 4]),
            miscselect_mask: Bytes([0xff; 4]),
            attributes: Bytes(attributes),
            attributes_mask: Bytes(attributes_mask),
            mrsigner: Bytes(if tdx { TD_QE } else { QE }),
            isvprodid: if tdx { 2 } else { 1 },
        }
    }

    /// Whether the report is that enclave's, and not in debug mode.
    pub(super) fn check(&self, report: &EnclaveReport) -> Result<(), TdxError> {
        let wrong = |field, expected: String, found: String| {
            Err(TdxError::QuotingEnclave { field, expected, found })
        };
        if report.mr_signer != self.mrsigner {
            return wrong("signer", self.mrsigner.to_string(), report.mr_signer.to_string());
        }
        let product = u16::from_le_bytes(report.isv_prod_id.0);
        if product != self.isvprodid {
            return wrong("product", self.isvprodid.to_string(), product.to_string());
        }
        let [found, expected, mask] = [report.misc_select, self.miscselect, self.miscselect_mask]
            .map(|bytes| u32::from_le_bytes(bytes.0));
        if found & mask != expected & mask {
            return wrong(
                "MISCSELECT",
                self.miscselect.to_string(),
                report.misc_select.to_string(),
            );
        }
        let found: Vec<u8> = [report.flags.0, report.xfrm.0].concat();
        let masked = |bytes: &[u8]| -> Vec<u8> {
            bytes.iter().zip(self.attributes_mask.0).map(|(byte, mask)| byte & mask).collect()
        };
        // The mask covers debug (bit 1); a mask that did not would not allow it.
        if masked(&found) != masked(&self.attributes.0) || report.is_debug() {
            return wrong("ATTRIBUTES", self.attributes.to_string(), hex::encode(found));
        }
        Ok(())
    }
}

impl EnclaveReport {
    /// ATTRIBUTES.FLAGS bit 1.
    pub(super) fn is_debug(&self) -> bool {
        let [flags, ..] = self.flags.0;
        flags & 0x02 != 0
    }
}
