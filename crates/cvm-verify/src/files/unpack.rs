//! Files that hold evidence inside something else: hex, base64, tables, answers of services, JSON
//! around it.
//!
//! What comes out is told by its content again, so a wrapper decides nothing: it only says where to
//! look.

mod protobuf;

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose};
use cvm_base::{Utf16, unmarked};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    Form, MAX_FILE_BYTES, begins_snp_report,
    members::{self, Inside},
};
use crate::snp::{REPORT_BYTES, read_certificate_table};

/// Composite evidence in a KBS request in JSON is five deep.
const MAX_DEPTH: u32 = 8;
/// More than any composite holds.
const MAX_PIECES: usize = 256;
/// Enough of a member's name for a message, in characters.
const MAX_NAME: usize = 60;

/// One thing in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub form: Form,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A part of a file that may be evidence, and that nobody here can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Where: the names of JSON members on the way, or a message's field.
    pub at: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Everything in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// What was understood; never empty.
    pub pieces: Vec<Piece>,
    /// What was not. Whoever verifies the rest must not pass over it.
    pub unread: Vec<Unread>,
}

impl Unpacked {
    fn extend(&mut self, part: Self) {
        self.pieces.extend(part.pieces);
        self.unread.extend(part.unread);
    }

    /// Whether this would be more than any composite holds.
    fn is_full(&self) -> bool {
        self.pieces.len() + self.unread.len() > MAX_PIECES
    }
}

/// Why a file is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnpackError {
    /// Nothing that is known here.
    Unknown,
    /// Something that is known, and that no verifier here reads.
    Unsupported(&'static str),
}

/// Everything in a file: itself, where its content is of a [`Form`], else what is found in it.
///
/// # Errors
/// [`UnpackError`] where nothing in it can be read.
pub fn unpack(bytes: &[u8]) -> Result<Unpacked, UnpackError> {
    let mut found = Unpacked::default();
    open(bytes, 0, "", &mut found)?;
    Ok(found)
}

/// `at` is where `bytes` lie in the file.
fn open(bytes: &[u8], depth: u32, at: &str, found: &mut Unpacked) -> Result<(), UnpackError> {
    if bytes.len() > MAX_FILE_BYTES || depth > MAX_DEPTH || found.is_full() {
        return Err(UnpackError::Unknown);
    }
    let bytes = &*plain(bytes)?;
    if is_ambiguous(bytes) {
        return Err(UnpackError::Unsupported(
            "a JSON member stands there twice, or too deep: readers differ on it",
        ));
    }
    if let Some(form) = Form::of(bytes) {
        let end = stated_length(form, bytes).unwrap_or(bytes.len());
        found.pieces.push(Piece { form, bytes: bytes.get(..end).unwrap_or(bytes).to_vec() });
        // Its verifier reads the members that it knows.
        if form == Form::KbsEvidence {
            open_inside(members::beside_kbs(bytes), depth, at, found);
        }
        return Ok(());
    }
    if let Some(parts) = binary(bytes)? {
        return parts.into_iter().try_for_each(|part| open(&part, depth + 1, at, found));
    }
    if let Some(message) = protobuf::attestation(bytes) {
        let unread =
            message.unread.into_iter().map(|(field, why)| Unread { at: join(at, &field), why });
        found.unread.extend(unread);
        return message.parts.into_iter().try_for_each(|part| open(&part, depth + 1, at, found));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| UnpackError::Unknown)?.trim();
    let parts = match text.as_bytes() {
        [b'{' | b'[' | b'"', ..] => {
            let before = found.pieces.len();
            let refused = open_inside(members::inside(text)?, depth, at, found);
            // A file whose every part is unreadable is itself unreadable, for the first one's
            // reason.
            return match refused {
                _ if found.pieces.len() > before => Ok(()),
                refused => Err(refused.unwrap_or(UnpackError::Unknown)),
            };
        }
        _ if text.starts_with("HTTP/")
            || ["ssuer-Chain:", "ssuer-chain:"].iter().any(|header| text.contains(header)) =>
        {
            http(text)
        }
        _ if text.starts_with("-----BEGIN%20") => vec![percent_decoded(text)],
        _ => vec![registers(text).or_else(|| encoded(text)).ok_or(UnpackError::Unknown)?],
    };
    if parts.is_empty() {
        return Err(UnpackError::Unknown);
    }
    parts.into_iter().try_for_each(|part| open(&part, depth + 1, at, found))
}

/// Whether this is JSON of which one reader takes the first of two members and another the last.
fn is_ambiguous(bytes: &[u8]) -> bool {
    matches!(bytes.trim_ascii_start(), [b'{' | b'[', ..])
        && crate::token::json::value("a file", bytes).is_err()
        && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}

/// Opens the parts of a JSON text. What cannot be read is noted; the first reason comes back.
fn open_inside(inside: Inside, depth: u32, at: &str, found: &mut Unpacked) -> Option<UnpackError> {
    let mut refused = None;
    let mut note = |found: &mut Unpacked, name: &str, error: UnpackError| {
        let why = match error {
            UnpackError::Unsupported(why) => why,
            UnpackError::Unknown => "it is no evidence and no collateral that is known here",
        };
        if !found.is_full() {
            found.unread.push(Unread { at: join(at, name), why });
        }
        refused.get_or_insert(error);
    };
    for (name, bytes) in inside.parts {
        let mut part = Unpacked::default();
        let opened = if found.is_full() {
            Err(UnpackError::Unknown)
        } else {
            open(&bytes, depth + 1, &join(at, &name), &mut part)
        };
        match opened {
            // Where evidence is due, a few bytes in hex are none.
            Ok(()) if part.pieces.iter().all(|piece| piece.form == Form::Nonce) => {
                note(found, &name, UnpackError::Unknown)
            }
            Ok(()) => found.extend(part),
            Err(error) => note(found, &name, error),
        }
    }
    found.pieces.extend(inside.nonces.into_iter().map(|bytes| Piece { form: Form::Nonce, bytes }));
    // Members that no form names: what is in them counts as much, wherever it stands.
    let (mut vouch, mut pieces) = (vec![], vec![]);
    for (name, bytes) in inside.others {
        // A digest, or another number, that no nonce's name stands at.
        if Form::of(&bytes) == Some(Form::Nonce) {
            continue;
        }
        let mut part = Unpacked::default();
        match open(&bytes, depth + 1, &join(at, &name), &mut part) {
            Ok(()) => {
                found.unread.append(&mut part.unread);
                let (keys, rest): (Vec<_>, Vec<_>) =
                    part.pieces.into_iter().partition(|piece| piece.form.is_key());
                vouch.extend(keys);
                pieces.extend(rest);
            }
            Err(error) if members::is_opaque(&bytes) => note(found, &name, error),
            Err(_) => {}
        }
    }
    found.pieces.append(&mut pieces);
    // Keys alone do not make a document a key set: claims of tokens hold keys too.
    if found.pieces.iter().any(|piece| piece.form != Form::Nonce) {
        found.pieces.append(&mut vouch);
    }
    refused
}

fn join(at: &str, name: &str) -> String {
    let name: String =
        name.chars().take(MAX_NAME).map(|c| if c.is_control() { '?' } else { c }).collect();
    if at.is_empty() { name } else { format!("{at}.{name}") }
}

/// Text without its byte order mark. XML may be UTF-16 (XML 1.0 §4.3.3); JSON, PEM, tokens and hex
/// may not, and then that is what is said of them.
fn plain(bytes: &[u8]) -> Result<Cow<'_, [u8]>, UnpackError> {
    match unmarked(bytes) {
        Ok(text) => Ok(Cow::Borrowed(text)),
        Err(Utf16(xml)) if xml.trim_start().starts_with('<') => Ok(Cow::Owned(xml.into_bytes())),
        Err(_) => Err(UnpackError::Unsupported(
            "it is UTF-16 text, and its format is UTF-8: save it as UTF-8",
        )),
    }
}

/// Where a structure ends that says so itself. Tools leave buffers' rests behind quotes and
/// reports; what lies there is no part of the evidence, and nobody's signature covers it.
fn stated_length(form: Form, bytes: &[u8]) -> Option<usize> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
    let u16_at =
        |at: usize| Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)));
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
fn binary(bytes: &[u8]) -> Result<Option<Vec<Vec<u8>>>, UnpackError> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
    let u64_at = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let is_report = |bytes: &[u8]| bytes.len() >= REPORT_BYTES && begins_snp_report(bytes);
    // An extended report: the certificate table lies behind (go-sev-guest writes them so).
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
        // The ACPI table that says where the log lies: evidence of nothing, and no harm beside the
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

/// What `tpm2_quote --pcr` writes: TPML_PCR_SELECTION and TPML_DIGESTs as they stand in memory
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
        let alg = cvm_evidence::tpm::HashAlg::from_id(u16::from_le_bytes(*bank.first_chunk()?))?;
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

/// Register values as `tpm2_pcrread` prints them: a bank's name with a colon, and a line a
/// register. Comes out as JSON.
fn registers(text: &str) -> Option<Vec<u8>> {
    let mut banks = serde_json::Map::new();
    let mut bank = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        match (name.trim(), value.trim()) {
            (name, "") => {
                bank = Some(
                    cvm_evidence::tpm::HashAlg::ALL.into_iter().find(|alg| alg.name() == name)?,
                )
            }
            (register, value) => {
                let values = banks
                    .entry(bank?.name())
                    .or_insert_with(|| Value::Object(serde_json::Map::new()));
                let value = value.strip_prefix("0x").unwrap_or(value).to_ascii_lowercase();
                // Two values of a register are none.
                if values.as_object_mut()?.insert(register.into(), value.into()).is_some() {
                    return None;
                }
            }
        }
    }
    (!banks.is_empty()).then(|| Value::Object(banks).to_string().into_bytes())
}

/// Hex or base64 of at least 48 bytes; shorter texts are more likely words.
pub(super) fn encoded(text: &str) -> Option<Vec<u8>> {
    let digits: String = text
        .strip_prefix("0x")
        .unwrap_or(text)
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .collect();
    if digits.len() < 64 {
        return None;
    }
    let lenient = |alphabet: &base64::alphabet::Alphabet| {
        let padding = general_purpose::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
        general_purpose::GeneralPurpose::new(alphabet, padding).decode(&digits).ok()
    };
    hex::decode(&digits)
        .ok()
        .or_else(|| lenient(&base64::alphabet::STANDARD))
        .or_else(|| lenient(&base64::alphabet::URL_SAFE))
}

/// A service's answer with its headers (`curl -i`): the issuer chains in them, and the body.
fn http(text: &str) -> Vec<Vec<u8>> {
    let (head, body) =
        text.split_once("\r\n\r\n").or_else(|| text.split_once("\n\n")).unwrap_or((text, ""));
    let chains = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.to_ascii_lowercase().ends_with("issuer-chain").then(|| percent_decoded(value.trim()))
    });
    let body =
        Some(body.trim()).filter(|body| !body.is_empty()).map(|body| body.as_bytes().to_vec());
    chains.chain(body).collect()
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.first_chunk().filter(|_| *first == b'%');
        let byte = digits.and_then(|digits: &[u8; 2]| {
            let mut byte = [0];
            hex::decode_to_slice(digits, &mut byte).ok().map(|()| byte[0])
        });
        decoded.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    decoded
}

/// The member that Intel signed, as its text stands, and the signature (hex).
pub fn signed_member(document: &[u8], member: &str) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Document<'a>(#[serde(borrow)] std::collections::BTreeMap<String, &'a RawValue>);
    let Document(members) = serde_json::from_slice(document).ok()?;
    let signature = serde_json::from_str(members.get("signature")?.get()).ok()?;
    Some((members.get(member)?.get().to_owned(), signature))
}
