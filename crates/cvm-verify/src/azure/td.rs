//! Whether a TD quote was made from the TDREPORT in an HCL report.

use super::AzureError;
use cvm_evidence::AttestError;

const TDX: u32 = 0x81;

/// Fields of TDREPORT_STRUCT (TDX Module ABI §3.9) and of a quote's TD report body (DCAP quote
/// library, `sgx_report2_body_t`): name, offset here, offset there, bytes.
const FIELDS: [(&str, usize, usize, usize); 15] = [
    ("TEE TCB SVN", 256 + 8, 0, 16),
    ("MRSEAM", 256 + 24, 16, 48),
    ("MRSIGNERSEAM", 256 + 72, 64, 48),
    ("SEAM attributes", 256 + 120, 112, 8),
    ("TD attributes", 512, 120, 8),
    ("XFAM", 520, 128, 8),
    ("MRTD", 528, 136, 48),
    ("MRCONFIGID", 576, 184, 48),
    ("MROWNER", 624, 232, 48),
    ("MROWNERCONFIG", 672, 280, 48),
    ("RTMR0", 720, 328, 48),
    ("RTMR1", 768, 376, 48),
    ("RTMR2", 816, 424, 48),
    ("RTMR3", 864, 472, 48),
    ("report data", 128, 520, 64),
];

/// Compares a TDREPORT with a quote of version 4 or 5, and returns the quote's report data. Whether
/// Intel's chain signed the quote is not checked.
pub(super) fn check<'a>(td_report: &[u8], quote: &'a [u8]) -> Result<&'a [u8], AzureError> {
    let malformed = |problem: &str| AzureError::from(AttestError::malformed("TD quote", problem));
    let header: &[u8; 48] =
        quote.first_chunk().ok_or_else(|| malformed("shorter than its header"))?;
    let [v0, v1, _, _, t0, t1, t2, t3, ..] = *header;
    if u32::from_le_bytes([t0, t1, t2, t3]) != TDX {
        return Err(malformed("not of a TD (TEE type 0x81)"));
    }
    let body = match u16::from_le_bytes([v0, v1]) {
        4 => quote.get(48..48 + 584),
        // Version 5 names the body's type (2: TD 1.0, 3: TD 1.5) and size first.
        5 => quote.get(48 + 6..48 + 6 + 584),
        _ => return Err(malformed("not of version 4 or 5")),
    };
    let body = body.ok_or_else(|| malformed("shorter than its body"))?;
    for (field, here, there, length) in FIELDS {
        let (reported, quoted) =
            (td_report.get(here..here + length), body.get(there..there + length));
        if reported.is_none() || reported != quoted {
            return Err(AzureError::TdReport { field });
        }
    }
    body.get(520..584).ok_or_else(|| malformed("shorter than its body"))
}
