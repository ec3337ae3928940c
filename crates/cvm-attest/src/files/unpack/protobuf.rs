//! go-tpm-tools' `attest.Attestation` as a protobuf message (`proto/attest.proto`, `proto/tpm.proto`).

use serde_json::{Map, Value};

use crate::tpm::HashAlg;

/// Fields of a message are few; a bank has 24 registers.
const MAX_FIELDS: usize = 256;

/// The attestation key, each bank's quote, signature and values, the event log, certificates, and what the TEE under
/// the TPM reported; `None` for anything else.
pub(super) fn attestation(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let fields = fields(bytes)?;
    let mut parts = Vec::new();
    let mut banks = Map::new();
    let has = |number: u64| fields.iter().any(|(found, _)| *found == number);
    if !(has(1) && has(2)) {
        return None;
    }
    for (number, value) in &fields {
        let Field::Bytes(content) = value else { continue };
        match number {
            1 | 3 | 6 | 7 if !content.is_empty() => parts.push(content.to_vec()),
            2 => {
                let quote = self::fields(content)?;
                for (number, value) in quote {
                    match (number, value) {
                        (1 | 2, Field::Bytes(content)) => parts.push(content.to_vec()),
                        (3, Field::Bytes(content)) => {
                            let (bank, values) = registers(content)?;
                            banks.insert(bank, values);
                        }
                        _ => {}
                    }
                }
            }
            // sevsnp.Attestation holds the report's fields, not its bytes; a TD's quote likewise.
            _ => {}
        }
    }
    parts.push(Value::Object(banks).to_string().into_bytes());
    Some(parts)
}

/// `PCRs`: the TPM's number of the hash, and a map as repeated pairs.
fn registers(bytes: &[u8]) -> Option<(String, Value)> {
    let mut bank = None;
    let mut values = Map::new();
    for (number, value) in fields(bytes)? {
        match (number, value) {
            (1, Field::Number(id)) => bank = HashAlg::from_id(u16::try_from(id).ok()?),
            (2, Field::Bytes(pair)) => {
                // Register 0 is a default, which is not written.
                let (mut register, mut digest) = (0, &[][..]);
                for (number, value) in fields(pair)? {
                    match (number, value) {
                        (1, Field::Number(found)) => register = found,
                        (2, Field::Bytes(found)) => digest = found,
                        _ => {}
                    }
                }
                values.insert(register.to_string(), hex::encode(digest).into());
            }
            _ => {}
        }
    }
    Some((bank?.name().into(), Value::Object(values)))
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// A message's fields: numbers and byte strings; other wire types are not in these messages.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (content, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Field::Bytes(content)
            }
            _ => return None,
        };
        if tag >> 3 == 0 || found.len() == MAX_FIELDS {
            return None;
        }
        found.push((tag >> 3, value));
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
