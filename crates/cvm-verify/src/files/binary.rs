//! Binary things that hold others.

use serde_json::Value;

use super::{Form, UnpackError, content::begins_snp_report, number};
use crate::snp::{REPORT_BYTES, read_certificate_table};
use cvm_evidence::tpm::HashAlg;

/// Where a structure ends that states its length. Tools leave the rest of a buffer after quotes and
/// reports; it is not part of the evidence, and no signature covers it.
pub(super) fn stated_length(form: Form, bytes: &[u8]) -> Option<usize> {
    let u32_at = |at: usize| usize::try_from(number::u32_at(bytes, at)?).ok();
    let u16_at = |at: usize| number::u16_at(bytes, at).map(usize::from);
    match form {
        Form::TdxQuote | Form::SgxQuote => {
            const HEADER: usize = 48;
            let body = match (u16_at(0)?, form) {
                (5, _) => 6 + u32_at(HEADER + 2)?,
                (_, Form::SgxQuote) => 384,
                _ => 584,
            };
            let signature = HEADER.checked_add(body)?;
            signature.checked_add(4)?.checked_add(u32_at(signature)?)
        }
        // GET_MEASUREMENTS of 37 bytes; the response's record, nonce, opaque data, signature.
        Form::GpuReport => {
            let [a, b, c] = *bytes.get(42..)?.first_chunk()?;
            let record = u32::from_le_bytes([a, b, c, 0]) as usize;
            let opaque = 45 + record + 32;
            Some(opaque + 2 + u16_at(opaque)? + 96)
        }
        _ => None,
    }
}

/// Binary things that hold or precede others.
pub(super) fn parts(bytes: &[u8]) -> Result<Option<Vec<Vec<u8>>>, UnpackError> {
    let u32_at = |at: usize| usize::try_from(number::u32_at(bytes, at)?).ok();
    let u64_at = |at: usize| number::u64_at(bytes, at);
    let is_report = |bytes: &[u8]| bytes.len() >= REPORT_BYTES && begins_snp_report(bytes);
    // An extended report: the certificate table follows (go-sev-guest writes them so).
    if bytes.len() > REPORT_BYTES && is_report(bytes) {
        let (report, table) = bytes.split_at(REPORT_BYTES);
        let mut parts = vec![report.to_vec()];
        if table.iter().any(|byte| *byte != 0) {
            parts.extend(table_of(table).ok_or(UnpackError::Unknown)?);
        }
        return Ok(Some(parts));
    }
    // MSG_REPORT_RSP (SEV-SNP ABI 56860, table 24): status, size, 24 reserved bytes; the driver
    // pads it.
    if u32_at(0) == Some(0)
        && u32_at(4) == Some(REPORT_BYTES)
        && is_report(bytes.get(32..).unwrap_or_default())
    {
        return Ok(bytes.get(32..32 + REPORT_BYTES).map(|report| vec![report.to_vec()]));
    }
    if let Some(certificates) = table_of(bytes) {
        return Ok(Some(certificates));
    }
    match bytes {
        // The ACPI table that says where the log lies: it proves nothing, and may lie beside the
        // log.
        [b'C', b'C', b'E', b'L', ..] => return Ok(Some(vec![])),
        // COSE_Sign1 of AWS Nitro; a tagged CBOR token of Arm CCA.
        [0x84, 0x44, 0xa1, ..] => {
            return Err(UnpackError::Unsupported("AWS Nitro's documents are not verified here"));
        }
        [0xd9, 0x01, 0x8f, ..] => {
            return Err(UnpackError::Unsupported("Arm CCA's tokens are not verified here"));
        }
        // REPORTMACSTRUCT: report type 0x81.
        [0x81, 0, 0 | 1, 0, ..] if bytes.len() == 1024 => {
            let why = "a TDREPORT is only believed by the machine that made it: give the quote";
            return Err(UnpackError::Unsupported(why));
        }
        // TPM2B_ATTEST.
        [high, low, attest @ ..]
            if usize::from(u16::from_be_bytes([*high, *low])) == attest.len()
                && Form::of(attest) == Some(Form::TpmQuote) =>
        {
            return Ok(Some(vec![attest.to_vec()]));
        }
        _ => {}
    }
    // The answer to a quote request of a TDX host: version 1, status, two lengths.
    if u64_at(0) == Some(1) && u64_at(8) == Some(0) {
        let quote = u32_at(20).and_then(|length| bytes.get(24..)?.get(..length));
        return Ok(quote.map(|quote| vec![quote.to_vec()]));
    }
    Ok(bincode_quote(bytes).or_else(|| tpm2_tools_pcrs(bytes)))
}

fn table_of(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let certificates =
        read_certificate_table(bytes).ok().filter(|certificates| !certificates.is_empty())?;
    Some(certificates.iter().map(|certificate| certificate.der().to_vec()).collect())
}

/// The vTPM crates of Azure's tools: signature, message, register values; each with its length as
/// u64.
fn bincode_quote(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut rest = bytes;
    let mut counted = |size: usize| {
        let (count, after) = rest.split_first_chunk()?;
        let length = usize::try_from(u64::from_le_bytes(*count)).ok()?.checked_mul(size)?;
        let (part, after) = after.split_at_checked(length)?;
        rest = after;
        Some(part.to_vec())
    };
    let parts = vec![counted(1)?, counted(1)?, counted(32)?];
    (rest.is_empty() && Form::of(&parts[1]) == Some(Form::TpmQuote)).then_some(parts)
}

/// What `tpm2_quote --pcr` writes: TPML_PCR_SELECTION and TPML_DIGESTs as they are in memory
/// (tpm2-tools, `pcr_fwrite_serialized`). Comes out as JSON.
fn tpm2_tools_pcrs(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    const SELECTION: usize = 4 + 16 * 8;
    const DIGESTS: usize = 4 + 8 * 66;
    let (selection, rest) = bytes.split_at_checked(SELECTION)?;
    let (count, lists) = rest.split_first_chunk()?;
    let lists_named = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    if lists_named == 0 || lists_named > 16 || lists.len() != lists_named * DIGESTS {
        return None;
    }
    let digests = lists.chunks_exact(DIGESTS).flat_map(|list| {
        let count = list.first().copied().map_or(0, usize::from);
        list.get(4..).unwrap_or_default().chunks_exact(66).take(count)
    });
    let mut digests = digests.map(|digest| {
        let size = usize::from(u16::from_le_bytes(*digest.first_chunk()?));
        digest.get(2..)?.get(..size).map(hex::encode)
    });
    let banks = usize::from(*selection.first()?);
    let mut values = serde_json::Map::new();
    for bank in selection.get(4..)?.chunks_exact(8).take(banks) {
        let alg = HashAlg::from_id(u16::from_le_bytes(*bank.first_chunk()?))?;
        let size = usize::from(*bank.get(2)?);
        let bits = bank.get(3..)?.get(..size)?;
        let mut registers = serde_json::Map::new();
        for register in
            (0..8 * size).filter(|n| bits.get(n / 8).is_some_and(|byte| byte >> (n % 8) & 1 == 1))
        {
            registers.insert(register.to_string(), digests.next()??.into());
        }
        values.insert(alg.name().into(), Value::Object(registers));
    }
    if digests.next().is_some() || values.is_empty() {
        return None;
    }
    Some(vec![Value::Object(values).to_string().into_bytes()])
}
