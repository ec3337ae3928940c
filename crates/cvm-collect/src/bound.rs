//! What every answer must be: of bounded length, and bound to what was asked.

use cvm_evidence::certificate_table::{SnpCertificate, parse_certificate_table};

use crate::{device::Kind, error::CollectError};

/// A report's length in bytes (AMD 56860, table 23); its report data lie at 0x50.
pub(crate) const SNP_REPORT_BYTES: usize = 1184;
/// The longest quote that is read, in bytes. Known ones have up to 16 KiB; the kernel's limit was
/// 32 KiB for a long time.
pub(crate) const MAX_QUOTE_BYTES: usize = 128 * 1024;

/// What the evidence is bound to: 64 bytes, or 32 for GPUs. `None` for kinds that do not say.
pub(crate) fn bound_to(kind: Kind, bytes: &[u8]) -> Option<&[u8]> {
    let version = bytes.first_chunk().map(|v| u16::from_le_bytes(*v))?;
    match kind {
        Kind::Snp => bytes.get(0x50..0x90),
        // A quote's header has 48 bytes. In version 5, type and size of the body follow it. The
        // report data lies 520 bytes into the body (TD_REPORT10 and TD_REPORT15).
        Kind::Tdx if version == 4 => bytes.get(48 + 520..48 + 584),
        Kind::Tdx if version == 5 => bytes.get(48 + 6 + 520..48 + 6 + 584),
        Kind::Gpu => bytes.get(4..36),
        Kind::Tdx | Kind::Azure | Kind::Tpm => None,
    }
}

/// The certificates that a host handed over beside its report.
pub(crate) fn host_certificates(table: &[u8]) -> Result<Vec<SnpCertificate>, CollectError> {
    parse_certificate_table(table).map_err(|e| CollectError::answer("the host", e.to_string()))
}

/// Refuses evidence that is bound to anything but what was asked for.
pub(crate) fn check_bound(
    device: &str,
    kind: Kind,
    bytes: &[u8],
    asked: &[u8],
) -> Result<(), CollectError> {
    match bound_to(kind, bytes) {
        Some(found) if found == asked => Ok(()),
        Some(_) => Err(CollectError::answer(device, "evidence for another challenge")),
        None => Err(CollectError::answer(
            device,
            format!("{} bytes that are not evidence of this kind", bytes.len()),
        )),
    }
}
