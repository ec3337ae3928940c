//! The reports and quotes in a set, for which collateral is looked up.

use serde_json::Value;

use super::{EvidenceSet, kinds::azure_kind};
use crate::{
    azure::{AzureEvidence, HardwareKind, HclReport},
    files::Form,
    snp::SnpEvidence,
};

/// Reports and quotes, none of them verified.
#[derive(Debug, Default)]
pub struct Reports {
    /// SEV-SNP reports, or their signed parts.
    pub snp: Vec<Vec<u8>>,
    /// TDX and SGX quotes.
    pub quotes: Vec<Vec<u8>>,
}

impl Reports {
    /// Reads those of a set, also inside Azure's reports and what KBS clients send.
    pub fn of(set: &EvidenceSet) -> Self {
        let mut found = Self::default();
        found.snp.extend(set.all(Form::SnpReport).map(<[u8]>::to_vec));
        found
            .quotes
            .extend(set.all(Form::TdxQuote).chain(set.all(Form::SgxQuote)).map(<[u8]>::to_vec));
        set.all(Form::HclReport)
            .filter_map(|hcl| HclReport::parse(hcl).ok())
            .for_each(|hcl| found.hcl(&hcl));
        for body in
            set.all(Form::KbsEvidence).filter_map(|json| serde_json::from_slice::<Value>(json).ok())
        {
            if let Ok(evidence) = SnpEvidence::from_kbs(&body) {
                found.snp.push(evidence.report.signed().to_vec());
            } else if let Ok(evidence) = AzureEvidence::from_json(azure_kind(&body), &body) {
                found.hcl(evidence.hcl());
                found.quotes.extend(evidence.td_quote().map(<[u8]>::to_vec));
            }
        }
        found
    }

    fn hcl(&mut self, hcl: &HclReport) {
        if hcl.kind() == HardwareKind::Snp {
            self.snp.push(hcl.hardware_report().to_vec());
        }
    }
}
