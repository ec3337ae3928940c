//! The text form of every artifact: small enough to archive, plain enough for a lawyer, and with
//! exactly one encoding of each value, so that its bytes can be signed.
//!
//! ```text
//! flare-cvm/v1/KIND
//! key: value
//!   key: value          (two spaces: belongs to the line above)
//! end
//! signature NAME: 128 hex digits
//! ```
//!
//! ASCII, `\n` after each line, keys in a fixed order. What is signed is [`SIGNED_CONTEXT`] and the
//! *body*: everything up to and including the line `end`. Its first line names the kind, so that a
//! signature of one kind never verifies as another. The reader accepts only the order that the
//! writer writes, and [`parse`] also encodes what it read and compares: no second encoding exists.

use std::{fmt::Display, str::FromStr};

use cvm_base::{Bytes32, Explain, sha256};
use cvm_layout::names::Name;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// What comes before the body in a signed message.
pub const SIGNED_CONTEXT: &[u8] = b"flare-cvm/v1/ceremony\0";
/// The most bytes of any artifact.
pub const MAX_BYTES: u64 = 64 * 1024;
/// The most bytes of a signature's line: a name has at most 64.
pub(crate) const MAX_SIGNATURE_LINE: usize = "signature : \n".len() + 64 + 128;
/// The most characters of a line.
const MAX_LINE: usize = 4096;

/// The text is not a well-formed artifact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected {expected}, found {found:?}")]
pub struct TextError {
    /// Counted from 1.
    pub line: usize,
    /// What should be there.
    pub expected: String,
    /// What is there (shortened).
    pub found: String,
}

impl Explain for TextError {
    fn code(&self) -> &'static str {
        "CER-201"
    }

    fn help(&self) -> String {
        "give the file exactly as the other side sent it: an editor or mail program may have \
         changed it, or it is another kind of file"
            .into()
    }
}

/// A value with one text form.
pub trait Document: Sized {
    /// The word after `flare-cvm/v1/` in the first line.
    const KIND: &'static str;
    fn write(&self, writer: &mut Writer);
    fn read(reader: &mut Reader<'_>) -> Result<Self, TextError>;
}

/// The signature of one signer, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureLine {
    pub signer: Name,
    pub bytes: [u8; 64],
}

/// The body of `document`, from its first line to `end`.
pub(crate) fn body<D: Document>(document: &D) -> String {
    let mut writer = Writer(format!("flare-cvm/v1/{}\n", D::KIND));
    document.write(&mut writer);
    writer.0.push_str("end\n");
    writer.0
}

/// The whole file.
pub(crate) fn file(body: &str, signatures: &[SignatureLine]) -> String {
    let mut text = body.to_owned();
    for signature in signatures {
        text.push_str(&format!(
            "signature {}: {}\n",
            signature.signer,
            hex::encode(signature.bytes)
        ));
    }
    text
}

/// Reads a file: the value, its body and the signature lines, which are **not** verified here.
///
/// Bounds: [`MAX_BYTES`], [`MAX_LINE`], and `max_signatures`.
pub(crate) fn parse<D: Document>(
    bytes: &[u8],
    max_signatures: usize,
) -> Result<(D, String, Vec<SignatureLine>), TextError> {
    let mut reader = Reader::open(bytes)?;
    reader.exact(&format!("flare-cvm/v1/{}", D::KIND))?;
    let document = D::read(&mut reader)?;
    reader.exact("end")?;
    let mut signatures = Vec::new();
    while !reader.rest.is_empty() {
        if signatures.len() == max_signatures {
            return Err(reader.expected(format!("at most {max_signatures} signatures")));
        }
        signatures.push(reader.signature()?);
    }
    let body = body(&document);
    if file(&body, &signatures).as_bytes() != bytes {
        return Err(reader.expected("the canonical encoding"));
    }
    Ok((document, body, signatures))
}

/// Refuses a text that is longer than [`MAX_BYTES`].
pub(crate) fn bound(length: usize) -> Result<(), TextError> {
    if length as u64 <= MAX_BYTES {
        return Ok(());
    }
    Err(TextError {
        line: 1,
        expected: format!("at most {MAX_BYTES} bytes"),
        found: format!("{length} bytes"),
    })
}

/// The kind of an artifact, by its first line.
pub(crate) fn kind(bytes: &[u8]) -> Option<&str> {
    // The kind is also told of a file that an editor saved anew: reading it then says what is wrong.
    let text = cvm_base::unmarked(bytes).unwrap_or(bytes);
    let line = text.get(..text.len().min(64))?.split(|&b| b == b'\n').next()?;
    std::str::from_utf8(line).ok()?.trim_end_matches('\r').strip_prefix("flare-cvm/v1/")
}

/// Signs a body.
pub(crate) fn sign(key: &SigningKey, body: &str) -> [u8; 64] {
    key.sign(&[SIGNED_CONTEXT, body.as_bytes()].concat()).to_bytes()
}

/// Whether `signature` is `identity`'s over `body` (strict: no small-order keys).
pub(crate) fn verifies(identity: &Bytes32, body: &str, signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(&identity.0).is_ok_and(|key| {
        key.verify_strict(
            &[SIGNED_CONTEXT, body.as_bytes()].concat(),
            &Signature::from_bytes(signature),
        )
        .is_ok()
    })
}

/// SHA-256 of a body: how one artifact names another.
pub(crate) fn digest(body: &str) -> Bytes32 {
    sha256(body.as_bytes())
}

pub struct Writer(String);

impl Writer {
    /// Writes a line. `key` carries its own indent.
    pub fn field(&mut self, key: &str, value: impl Display) {
        self.0.push_str(&format!("{key}: {value}\n"));
    }

    /// Writes `none` where there is nothing.
    pub fn optional(&mut self, key: &str, value: Option<impl Display>) {
        match value {
            Some(value) => self.field(key, value),
            None => self.field(key, "none"),
        }
    }
}

/// The error for text that a program saved anew: its signatures are of other bytes.
fn changed(expected: &str, found: &str) -> TextError {
    TextError { line: 1, expected: expected.into(), found: found.into() }
}

pub struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, TextError> {
        bound(bytes.len())?;
        let fail = |expected: String| TextError { line: 1, expected, found: String::new() };
        match cvm_base::unmarked(bytes) {
            Ok(text) if text.len() == bytes.len() => {}
            Ok(_) => {
                return Err(changed(
                    "no byte order mark in front",
                    "one, which an editor put there",
                ));
            }
            Err(_) => return Err(changed("the ASCII text that was signed", "UTF-16")),
        }
        if bytes.contains(&b'\r') {
            return Err(changed(
                "line ends as they were signed (LF)",
                "line ends that were changed (CR LF)",
            ));
        }
        let text = std::str::from_utf8(bytes).ok().filter(|text| {
            text.ends_with('\n') && text.bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b))
        });
        let rest = text.ok_or_else(|| fail("printable ASCII that ends with a line feed".into()))?;
        Ok(Self { rest, line: 1 })
    }

    /// The next line, without moving.
    fn peek(&self) -> &'a str {
        self.rest.split('\n').next().unwrap_or_default()
    }

    fn advance(&mut self, line: &str) {
        self.rest = self.rest.get(line.len() + 1..).unwrap_or_default();
        self.line += 1;
    }

    /// The error that the next line is not `expected`.
    pub fn expected(&self, expected: impl Into<String>) -> TextError {
        TextError {
            line: self.line,
            expected: expected.into(),
            found: self.peek().chars().take(80).collect(),
        }
    }

    fn exact(&mut self, expected: &str) -> Result<(), TextError> {
        let line = self.peek();
        if line != expected {
            return Err(self.expected(format!("`{expected}`")));
        }
        self.advance(line);
        Ok(())
    }

    fn signature(&mut self) -> Result<SignatureLine, TextError> {
        let line = self.peek();
        let parsed = line
            .strip_prefix("signature ")
            .and_then(|rest| rest.split_once(": "))
            .and_then(|(signer, value)| {
                let mut bytes = [0; 64];
                hex::decode_to_slice(value, &mut bytes).ok()?;
                Some(SignatureLine { signer: signer.parse().ok()?, bytes })
            });
        let signature = parsed.ok_or_else(|| self.expected("`signature NAME: 128 hex digits`"))?;
        self.advance(line);
        Ok(signature)
    }

    /// Whether the next line has this key.
    pub fn at(&self, key: &str) -> bool {
        self.peek().strip_prefix(key).is_some_and(|rest| rest.starts_with(": "))
    }

    /// The value of the next line, which must have this key; `convert` refuses with `None`.
    pub fn field<T>(
        &mut self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, TextError> {
        let line = self.peek();
        let value = line
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix(": "))
            .filter(|_| line.len() <= MAX_LINE);
        let value =
            value.and_then(convert).ok_or_else(|| self.expected(format!("`{key}: {expected}`")))?;
        self.advance(line);
        Ok(value)
    }

    pub fn parse<T: FromStr>(&mut self, key: &str, expected: &str) -> Result<T, TextError> {
        self.field(key, expected, |value| value.parse().ok())
    }

    /// A value, or `none`.
    pub fn optional<T: FromStr>(
        &mut self,
        key: &str,
        expected: &str,
    ) -> Result<Option<T>, TextError> {
        self.field(key, &format!("{expected} or none"), |value| match value {
            "none" => Some(None),
            value => value.parse().ok().map(Some),
        })
    }
}
