//! Files that hold evidence inside something else: hex, base64, tables, answers of services, JSON
//! around it.
//!
//! What comes out is again told by its content, so a wrapper decides nothing: it only says where
//! to look.

use std::borrow::Cow;

use cvm_base::{Utf16, unmarked};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Form, MAX_FILE_BYTES, UnpackError, binary,
    encoding::{encoded, http, percent_decoded, registers},
    members::{self, Inside},
    protobuf,
};

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
            "a JSON member is there twice, or too deep: readers differ on it",
        ));
    }
    if let Some(form) = Form::of(bytes) {
        let end = binary::stated_length(form, bytes).unwrap_or(bytes.len());
        found.pieces.push(Piece { form, bytes: bytes.get(..end).unwrap_or(bytes).to_vec() });
        // Its verifier reads the members that it knows.
        if form == Form::KbsEvidence {
            open_inside(members::beside_kbs(bytes), depth, at, found);
        }
        return Ok(());
    }
    if let Some(parts) = binary::parts(bytes)? {
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

/// Whether this is JSON in which one reader takes the first of two members, and another the last.
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
            UnpackError::Unknown => "it is neither evidence nor collateral that is known here",
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
            // Where evidence is due, a few bytes in hex are not evidence.
            Ok(()) if part.pieces.iter().all(|piece| piece.form == Form::Nonce) => {
                note(found, &name, UnpackError::Unknown)
            }
            Ok(()) => found.extend(part),
            Err(error) => note(found, &name, error),
        }
    }
    found.pieces.extend(inside.nonces.into_iter().map(|bytes| Piece { form: Form::Nonce, bytes }));
    // Members that no form names: what is in them counts as much as the rest.
    let (mut vouch, mut pieces) = (vec![], vec![]);
    for (name, bytes) in inside.others {
        // A digest, or another number, in a member that is not called a nonce.
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
/// may not, and the refusal says so.
fn plain(bytes: &[u8]) -> Result<Cow<'_, [u8]>, UnpackError> {
    match unmarked(bytes) {
        Ok(text) => Ok(Cow::Borrowed(text)),
        Err(Utf16(xml)) if xml.trim_start().starts_with('<') => Ok(Cow::Owned(xml.into_bytes())),
        Err(_) => Err(UnpackError::Unsupported(
            "it is UTF-16 text, and its format is UTF-8: save it as UTF-8",
        )),
    }
}

/// The text of the member that Intel signed, unchanged, and the signature (hex).
pub fn signed_member(document: &[u8], member: &str) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Document<'a>(#[serde(borrow)] std::collections::BTreeMap<String, &'a RawValue>);
    let Document(members) = serde_json::from_slice(document).ok()?;
    let signature = serde_json::from_str(members.get("signature")?.get()).ok()?;
    Some((members.get(member)?.get().to_owned(), signature))
}
