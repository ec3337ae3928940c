//! Text that encodes bytes.

use base64::{Engine, engine::general_purpose};
use serde_json::Value;

use cvm_evidence::tpm::HashAlg;

/// Register values as `tpm2_pcrread` prints them: a bank's name with a colon, and one
/// line for each register. Comes out as JSON.
pub(super) fn registers(text: &str) -> Option<Vec<u8>> {
    let mut banks = serde_json::Map::new();
    let mut bank = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        match (name.trim(), value.trim()) {
            (name, "") => bank = Some(HashAlg::ALL.into_iter().find(|alg| alg.name() == name)?),
            (register, value) => {
                let values = banks
                    .entry(bank?.name())
                    .or_insert_with(|| Value::Object(serde_json::Map::new()));
                let value = value.strip_prefix("0x").unwrap_or(value).to_ascii_lowercase();
                // A register with two values makes the whole text unusable.
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
pub(super) fn http(text: &str) -> Vec<Vec<u8>> {
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

pub(super) fn percent_decoded(text: &str) -> Vec<u8> {
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
