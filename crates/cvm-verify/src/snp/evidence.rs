//! A report and its certificates.

use super::{Endorsement, SnpError, SnpReport, table};
use crate::x509::Certificate;

/// A report and the certificates that came with it.
#[derive(Debug, Clone)]
pub struct SnpEvidence {
    /// The report.
    pub report: SnpReport,
    /// VCEK or VLEK, and perhaps others, in any order. None of them is trusted.
    pub certificates: Vec<Certificate>,
}

impl SnpEvidence {
    /// Reads a report, and certificates as one DER or any number of PEM ones.
    ///
    /// # Errors
    /// [`SnpError`] as of [`SnpReport::parse`]; [`SnpError::Chain`] for what is not a certificate.
    pub fn parse(report: &[u8], certificates: &[u8]) -> Result<Self, SnpError> {
        Ok(Self {
            report: SnpReport::parse(report)?,
            certificates: Certificate::read_all(certificates)?,
        })
    }

    /// Reads a report and the certificate table that the host gave with it (extended guest request;
    /// the `auxblob` of Linux's configfs-tsm).
    ///
    /// # Errors
    /// [`SnpError`] as of [`SnpReport::parse`]; [`SnpError::Malformed`] for the table.
    pub fn from_extended(report: &[u8], table: &[u8]) -> Result<Self, SnpError> {
        Ok(Self { report: SnpReport::parse(report)?, certificates: table::certificates(table)? })
    }

    /// Whether a VCEK or VLEK is among the certificates.
    pub fn is_endorsed(&self) -> bool {
        self.certificates.iter().any(|certificate| Endorsement::kind(certificate).is_some())
    }
}
