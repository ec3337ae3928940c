//! go-tpm-tools' `attest.Attestation` as a protobuf message (`proto/attest.proto`,
//! `proto/tpm.proto`).

use serde_json::{Map, Value};

use cvm_evidence::tpm::HashAlg;

/// Fields of a message are few; a bank has 24 registers.
const MAX_FIELDS: usize = 256;

/// A message's parts, and the evidence in it that cannot be read, by its field.
pub(super) struct Message {
    pub(super) parts: Vec<Vec<u8>>,
    pub(super) unread: Vec<(String, &'static str)>,
}

/// The attestation key, each bank's quote, signature and values, the event log and certificates;
/// `None` for anything else. What the TEE under the TPM reported is there as fields, not as the
/// bytes that were signed.
pub(super) fn attestation(bytes: &[u8]) -> Option<Message> {
    let message = fields(bytes)?;
    let (mut parts, mut unread) = (Vec::new(), Vec::new());
    let mut banks = Map::new();
    let has = |number: u64| message.iter().any(|(found, _)| *found == number);
    if !(has(1) && has(2)) {
        return None;
    }
    for (number, value) in &message {
        let Field::Bytes(content) = value else { continue };
        match number {
            1 | 3 | 6 | 7 if !content.is_empty() => parts.push(content.to_vec()),
            2 => {
                let quote = fields(content)?;
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
            // The instance's names: what the cloud says of it, and nobody signed.
            4 => {}
            _ if content.is_empty() => {}
            5 => unread
                .push(("canonical_event_log".into(), "a canonical event log is not replayed here")),
            8 => unread.push((
                "sev_snp_attestation".into(),
                "give the SEV-SNP report's own bytes, as a file",
            )),
            9 => {
                unread.push(("tdx_attestation".into(), "give the TDX quote's own bytes, as a file"))
            }
            _ => unread.push((format!("field {number}"), "it is nothing that is known here")),
        }
    }
    parts.push(Value::Object(banks).to_string().into_bytes());
    Some(Message { parts, unread })
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
