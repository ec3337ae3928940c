//! A tar stream, entry by entry. The `tar` crate reads headers; long names are read here, because it
//! would keep one of any length in memory.

use std::io::Read;

use tar::{Archive, EntryType};

use super::{ArchiveError, bounds::Budget};

/// More than any path or PAX header needs.
const MAX_EXTENSION: u64 = 256 * 1024;
/// Longer names are refused (Linux's `PATH_MAX`).
const MAX_NAME: usize = 4096;
/// No image has more entries.
const MAX_ENTRIES: usize = 2_000_000;

/// An entry's header, with what extensions say.
pub(super) struct Meta {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: EntryType,
    pub(super) mode: u32,
    pub(super) size: u64,
    /// Where its content lies in the stream.
    pub(super) position: u64,
    /// Whether it carries file capabilities.
    pub(super) capabilities: bool,
}

impl Meta {
    /// The name as an error shows it.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.name).chars().take(120).collect()
    }
}

type Visit<'a> = dyn FnMut(&Meta, &mut dyn Read) -> Result<(), ArchiveError> + 'a;

/// Calls `visit` for every entry of the stream `part`.
pub(super) fn each(part: &str, stream: impl Read, budget: &Budget, visit: &mut Visit) -> Result<(), ArchiveError> {
    let corrupt = |problem: &str| ArchiveError::Corrupt { part: part.into(), problem: problem.into() };
    let broken = |error: std::io::Error| budget.explain(part, &error);
    let mut archive = Archive::new(stream);
    let mut extensions = Extensions::default();
    for (count, entry) in archive.entries().map_err(broken)?.raw(true).enumerate() {
        let mut entry = entry.map_err(broken)?;
        if count >= MAX_ENTRIES {
            return Err(ArchiveError::TooLarge(format!("{part} has more than {MAX_ENTRIES} entries")));
        }
        let kind = entry.header().entry_type();
        let size = entry.header().entry_size().map_err(broken)?;
        if matches!(kind, EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader) {
            if size > MAX_EXTENSION {
                return Err(corrupt("a header's extension is longer than 256 KiB"));
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(broken)?;
            extensions.add(kind, content).map_err(corrupt)?;
            continue;
        }
        let own = std::mem::take(&mut extensions);
        if own.size.is_some_and(|other| other != size) {
            return Err(corrupt("a file is longer than the 8 GiB that a header can say"));
        }
        let meta = Meta {
            name: own.name.unwrap_or_else(|| entry.header().path_bytes().into_owned()),
            link: own.link.or_else(|| entry.header().link_name_bytes().map(|l| l.into_owned())).unwrap_or_default(),
            kind,
            mode: entry.header().mode().map_err(broken)?,
            size,
            position: entry.raw_file_position(),
            capabilities: own.capabilities,
        };
        let good = |name: &[u8]| name.len() <= MAX_NAME && !name.contains(&0);
        if meta.name.is_empty() || !good(&meta.name) || !good(&meta.link) {
            return Err(corrupt("a name is empty, longer than 4096 bytes, or has a zero byte"));
        }
        visit(&meta, &mut entry)?;
    }
    Ok(())
}

/// What extension headers say of the entry after them.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    capabilities: bool,
}

impl Extensions {
    fn add(&mut self, kind: EntryType, content: Vec<u8>) -> Result<(), &'static str> {
        let text = || content.strip_suffix(b"\0").unwrap_or(&content).to_vec();
        match kind {
            EntryType::GNULongName => self.name = Some(text()),
            EntryType::GNULongLink => self.link = Some(text()),
            _ => {
                for record in tar::PaxExtensions::new(&content) {
                    let record = record.map_err(|_| "a PAX header is malformed")?;
                    let value = record.value_bytes().to_vec();
                    match record.key_bytes() {
                        b"path" => self.name = Some(value),
                        b"linkpath" => self.link = Some(value),
                        b"size" => self.size = Some(number(&value).ok_or("a PAX header's size is no number")?),
                        b"SCHILY.xattr.security.capability" => self.capabilities = true,
                        key if key.starts_with(b"GNU.sparse.") => return Err("it has a sparse file"),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
