//! PEM chains, and how long their certificates last.

use cvm_verify::x509::Certificate;

/// PEM certificates in their order.
pub(crate) fn chain(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    Certificate::read_all(pem).map_err(|e| e.to_string())
}

/// The earliest end among certificates, in seconds since 1970 UTC; `None` without any.
pub(crate) fn earliest(certificates: &[Certificate]) -> Option<u64> {
    certificates.iter().map(|certificate| certificate.validity().1).min()
}
