//! Trustee's `snp` evidence.

use serde::Deserialize;
use serde_json::Value;

use super::{SnpError, SnpEvidence, SnpReport};
use crate::x509::{Certificate, MAX_CERTIFICATES};
use cvm_evidence::trustee::SnpBody;

pub(super) fn evidence(body: &Value) -> Result<SnpEvidence, SnpError> {
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
    Ok(SnpEvidence { report, certificates })
}

fn fail(problem: String) -> SnpError {
    SnpError::malformed("Trustee's snp evidence", problem)
}
