//! Raw evidence as the release protocol carries it.

use serde_json::Value;

use crate::{device::Raw, gpus};
use cvm_evidence::{
    AttestError,
    certificate_table::CertificateKind,
    trustee::{self, CertificateEntry, SnpBody, TdxBody},
    wire::Base64,
};

impl Raw {
    /// The protocol's name of the kind and its `primary_evidence`, or of GPUs their part of the
    /// additional evidence, as a stock attester writes it. `event_log` is the CCEL's log area, for
    /// TDX.
    ///
    /// # Errors
    /// [`AttestError::Kind`] for kinds without such a body, [`AttestError::Malformed`] for a
    /// report of another length.
    pub fn to_trustee(
        &self,
        event_log: Option<Vec<u8>>,
    ) -> Result<(&'static str, Value), AttestError> {
        let body = |tee, body: Result<Value, serde_json::Error>| {
            body.map(|body| (tee, body))
                .map_err(|e| AttestError::malformed("evidence", e.to_string()))
        };
        match self {
            Self::Snp { report, certificates } => {
                let entry = |kind, bytes: &[u8]| CertificateEntry::new(kind, bytes.to_vec());
                let certificates =
                    certificates.iter().filter_map(|certificate| match certificate.kind {
                        CertificateKind::Vcek => Some(entry("VCEK", &certificate.bytes)),
                        CertificateKind::Vlek => Some(entry("VLEK", &certificate.bytes)),
                        CertificateKind::Ask => Some(entry("ASK", &certificate.bytes)),
                        CertificateKind::Ark => Some(entry("ARK", &certificate.bytes)),
                        CertificateKind::Crl | CertificateKind::Other(_) => None,
                    });
                body("snp", serde_json::to_value(SnpBody::new(report, certificates.collect())?))
            }
            Self::Tdx { quote } => {
                let tdx =
                    TdxBody { cc_eventlog: event_log.map(Base64), quote: Base64(quote.clone()) };
                body("tdx", serde_json::to_value(tdx))
            }
            Self::Azure { .. } => Err(AttestError::Kind { found: "Azure's vTPM".into() }),
            Self::Tpm { .. } => {
                Err(AttestError::Kind { found: "a TPM's quote without a challenge".into() })
            }
            Self::Gpus(gpus) => body(trustee::NVIDIA, serde_json::to_value(gpus::body(gpus)?)),
        }
    }
}
