//! The file of a report: 1184 bytes, and after them, where the agent gave any, certificates in the
//! form in which the host hands them to its guest (GHCB specification 2.03, §4.1.8.1).

use cvm_evidence::certificate_table::{MAX_TABLE_BYTES, parse_certificate_table};
use cvm_verify::snp::REPORT_BYTES;

use super::error::SnpguestError;

/// The longest file that is read.
pub const MAX_BYTES: usize = REPORT_BYTES + MAX_TABLE_BYTES;

/// A file's content, not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportFile {
    /// The report.
    pub report: [u8; REPORT_BYTES],
    /// What came with it.
    pub certificates: Vec<Vec<u8>>,
}

impl ReportFile {
    /// Reads a file's bytes: a peer's.
    ///
    /// # Errors
    /// [`SnpguestError::Report`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SnpguestError> {
        let report = |problem: String| SnpguestError::Report { problem };
        if bytes.len() > MAX_BYTES {
            return Err(report(format!("{} bytes, at most {MAX_BYTES} are read", bytes.len())));
        }
        let Some((found, table)) = bytes.split_first_chunk() else {
            return Err(report(format!("{} bytes, expected {REPORT_BYTES}", bytes.len())));
        };
        let table = parse_certificate_table(table).map_err(|e| report(e.to_string()))?;
        let certificates = table.into_iter().map(|certificate| certificate.bytes).collect();
        Ok(Self { report: *found, certificates })
    }
}

#[cfg(test)]
mod tests {
    use cvm_collect::{CertificateKind, SnpCertificate, certificate_table};

    use super::*;

    #[test]
    fn a_report_with_and_without_certificates() {
        let report = vec![7; REPORT_BYTES];
        assert_eq!(ReportFile::parse(&report).unwrap().certificates, Vec::<Vec<u8>>::new());
        let vcek = SnpCertificate { kind: CertificateKind::Vcek, bytes: b"der".to_vec() };
        let file = [report, certificate_table(&[vcek])].concat();
        assert_eq!(ReportFile::parse(&file).unwrap().certificates, [b"der"]);
        for bad in [&file[..REPORT_BYTES - 1], &file[..REPORT_BYTES + 20], &[0; MAX_BYTES + 1], b""]
        {
            assert!(ReportFile::parse(bad).is_err(), "{} bytes", bad.len());
        }
    }
}
