//! Trustee's `snp` evidence.

use serde::Deserialize;
use serde_json::Value;

use super::{SnpError, SnpEvidence, SnpReport};
use crate::x509::{Certificate, MAX_CERTIFICATES};
use cvm_evidence::trustee::SnpBody;

impl SnpEvidence {
    /// Reads the body of Trustee's `snp` evidence: `{"attestation_report": …, "cert_chain": null |
    /// […]}`.
    ///
    /// # Errors
    /// [`SnpError::Malformed`] for another form, and as of [`SnpReport::parse`].
    pub fn from_kbs(body: &Value) -> Result<Self, SnpError> {
        let body = SnpBody::deserialize(body).map_err(|e| fail(e.to_string()))?;
        let report = SnpReport::parse(&body.report().map_err(|e| fail(e.to_string()))?)?;
        let entries = body.certificates();
        if entries.len() > MAX_CERTIFICATES {
            return Err(fail(format!(
                "{} certificates, at most {MAX_CERTIFICATES} allowed",
                entries.len()
            )));
        }
        let mut certificates = Vec::new();
        for bytes in entries.iter().filter_map(|entry| entry.of_the_chain()) {
            certificates.extend(Certificate::read_all(bytes)?);
        }
        Ok(Self { report, certificates })
    }
}

fn fail(problem: String) -> SnpError {
    SnpError::malformed("Trustee's snp evidence", problem)
}
