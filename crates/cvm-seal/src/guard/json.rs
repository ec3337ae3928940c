//! The header's JSON (LUKS2 on-disk format 1.1.3, section 3), as a whitelist.
//!
//! The types accept exactly the members that libcryptsetup 2.6 writes for us: one keyslot, one
//! segment, one digest, all numbered 0, no token, no flag and no requirement. An unknown member, a
//! second keyslot, a repeated member or another type of value fails in the parser; a known member
//! with another value fails in [`check`]. What may differ from header to header is random: salts,
//! and the digest of the volume key.

use base64::{Engine, engine::general_purpose::STANDARD};
use cvm_base::printable;
use serde::Deserialize;

use super::error::GuardError;
use crate::format::{
    BLOCK, HEADER_BYTES, KEYSLOTS_BYTES, METADATA_BYTES, PBKDF2_ITERATIONS, Protection,
};

const CIPHER: &str = "aes-xts-plain64";
const AF_STRIPES: u32 = 4000;
/// LUKS2 writes 64-bit numbers as decimal text, and 32-bit ones as numbers.
type Number64 = String;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    keyslots: Only<Keyslot>,
    tokens: Empty,
    segments: Only<Segment>,
    digests: Only<Digest>,
    config: Config,
}

/// An object with the single member `"0"`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Only<T> {
    #[serde(rename = "0")]
    zero: T,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keyslot {
    r#type: String,
    key_size: u32,
    af: AntiForensic,
    area: KeyslotArea,
    kdf: Kdf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AntiForensic {
    r#type: String,
    stripes: u32,
    hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyslotArea {
    r#type: String,
    offset: Number64,
    size: Number64,
    encryption: String,
    key_size: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kdf {
    r#type: String,
    hash: String,
    iterations: u32,
    salt: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Segment {
    r#type: String,
    offset: Number64,
    size: String,
    iv_tweak: Number64,
    encryption: String,
    sector_size: u32,
    integrity: Option<Integrity>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Integrity {
    r#type: String,
    journal_encryption: String,
    journal_integrity: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Digest {
    r#type: String,
    keyslots: Vec<String>,
    segments: Vec<String>,
    hash: String,
    iterations: u32,
    salt: String,
    digest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    json_size: Number64,
    keyslots_size: Number64,
}

/// Checks a JSON area, zero-padded after the text.
pub fn check(area: &[u8], protection: Protection) -> Result<(), GuardError> {
    let end = area.iter().position(|b| *b == 0).unwrap_or(area.len());
    let (text, padding) = area.split_at_checked(end).unwrap_or_default();
    if padding.iter().any(|b| *b != 0) {
        return Err(GuardError::Json { detail: "something follows the end of the text".into() });
    }
    let header: Header = serde_json::from_slice(text)
        .map_err(|e| GuardError::Json { detail: printable(e.to_string(), 160) })?;
    let Header { keyslots, tokens: Empty {}, segments, digests, config } = header;
    keyslots.zero.check(protection)?;
    segments.zero.check(protection)?;
    digests.zero.check()?;
    same("config.json_size", &config.json_size, METADATA_BYTES - 4096)?;
    same("config.keyslots_size", &config.keyslots_size, KEYSLOTS_BYTES)
}

impl Keyslot {
    fn check(&self, protection: Protection) -> Result<(), GuardError> {
        let key_bytes = protection.volume_key_bytes();
        // Anti-forensic stripes, rounded up to whole blocks.
        let area_bytes = (key_bytes as u64 * u64::from(AF_STRIPES)).next_multiple_of(BLOCK);
        same("keyslots.0.type", &self.r#type, "luks2")?;
        same("keyslots.0.key_size", self.key_size, key_bytes)?;
        same("keyslots.0.af.type", &self.af.r#type, "luks1")?;
        same("keyslots.0.af.stripes", self.af.stripes, AF_STRIPES)?;
        same("keyslots.0.af.hash", &self.af.hash, "sha256")?;
        same("keyslots.0.area.type", &self.area.r#type, "raw")?;
        same("keyslots.0.area.offset", &self.area.offset, 2 * METADATA_BYTES)?;
        same("keyslots.0.area.size", &self.area.size, area_bytes)?;
        same("keyslots.0.area.encryption", &self.area.encryption, CIPHER)?;
        same("keyslots.0.area.key_size", self.area.key_size, 64)?;
        same("keyslots.0.kdf.type", &self.kdf.r#type, "pbkdf2")?;
        same("keyslots.0.kdf.hash", &self.kdf.hash, "sha256")?;
        same("keyslots.0.kdf.iterations", self.kdf.iterations, PBKDF2_ITERATIONS)?;
        random("keyslots.0.kdf.salt", &self.kdf.salt)
    }
}

impl Segment {
    fn check(&self, protection: Protection) -> Result<(), GuardError> {
        same("segments.0.type", &self.r#type, "crypt")?;
        same("segments.0.offset", &self.offset, HEADER_BYTES)?;
        same("segments.0.size", &self.size, "dynamic")?;
        same("segments.0.iv_tweak", &self.iv_tweak, 0)?;
        same("segments.0.encryption", &self.encryption, CIPHER)?;
        same("segments.0.sector_size", self.sector_size, BLOCK)?;
        let integrity = self.integrity.as_ref();
        let found = integrity.map_or("none", |i| i.r#type.as_str());
        same("segments.0.integrity.type", found, protection.integrity().unwrap_or("none"))?;
        for (name, value) in [
            ("segments.0.integrity.journal_encryption", integrity.map(|i| &i.journal_encryption)),
            ("segments.0.integrity.journal_integrity", integrity.map(|i| &i.journal_integrity)),
        ] {
            same(name, value.map_or("none", String::as_str), "none")?;
        }
        Ok(())
    }
}

impl Digest {
    fn check(&self) -> Result<(), GuardError> {
        same("digests.0.type", &self.r#type, "pbkdf2")?;
        same("digests.0.keyslots", self.keyslots.join(","), "0")?;
        same("digests.0.segments", self.segments.join(","), "0")?;
        same("digests.0.hash", &self.hash, "sha256")?;
        same("digests.0.iterations", self.iterations, PBKDF2_ITERATIONS)?;
        random("digests.0.salt", &self.salt)?;
        random("digests.0.digest", &self.digest)
    }
}

fn same(
    name: &'static str,
    found: impl ToString,
    expected: impl ToString,
) -> Result<(), GuardError> {
    let (found, expected) = (found.to_string(), expected.to_string());
    if found == expected {
        return Ok(());
    }
    // The host wrote what was found.
    Err(GuardError::Parameter { name, expected, found: printable(found, 80) })
}

/// 32 bytes in standard base64.
fn random(name: &'static str, found: &str) -> Result<(), GuardError> {
    match STANDARD.decode(found) {
        Ok(bytes) if bytes.len() == 32 => Ok(()),
        _ => same(name, found, "32 bytes in base64"),
    }
}
