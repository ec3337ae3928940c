//! The certificates of an extended report's table.

use super::SnpError;
use crate::x509::Certificate;
use cvm_evidence::certificate_table::{CertificateKind, parse_certificate_table};

/// The certificates of a table (the `auxblob` of Linux's configfs-tsm): VCEK, VLEK, ASK (also used
/// for the ASVK), ARK. Entries of other kinds are passed over.
///
/// # Errors
/// [`SnpError::Malformed`].
pub fn certificates(table: &[u8]) -> Result<Vec<Certificate>, SnpError> {
    let entries = parse_certificate_table(table)
        .map_err(|e| SnpError::malformed("certificate table", e.to_string()))?;
    let chain = entries.iter().filter(|entry| {
        use CertificateKind::{Ark, Ask, Vcek, Vlek};
        matches!(entry.kind, Vcek | Vlek | Ask | Ark)
    });
    let read =
        chain.map(|entry| Certificate::read_all(&entry.bytes)).collect::<Result<Vec<_>, _>>()?;
    Ok(read.into_iter().flatten().collect())
}
