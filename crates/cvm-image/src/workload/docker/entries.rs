//! A tar stream, entry by entry. The `tar` crate reads headers and PAX records. The walk is here,
//! because that crate's own walk either keeps an extension of any length in memory, or ignores the
//! size in one.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::{ArchiveError, bounds::Budget};

/// The size of a tar's blocks, in bytes.
const BLOCK: usize = 512;
/// More than any path or PAX header needs.
const MAX_EXTENSION: u64 = 256 * 1024;
/// Longer names are refused (Linux's `PATH_MAX`).
const MAX_NAME: usize = 4096;
/// No image has more entries.
const MAX_ENTRIES: usize = 2_000_000;

/// An entry's header, with what extensions say.
pub(super) struct EntryHeader {
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

impl EntryHeader {
    /// The name as an error shows it.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.name).chars().take(120).collect()
    }
}

type Visit<'a> = dyn FnMut(&EntryHeader, &mut dyn Read) -> Result<(), ArchiveError> + 'a;

/// Calls `visit` for every entry of the stream `part`.
pub(super) fn each_entry(
    part: &str,
    mut stream: impl Read,
    budget: &Budget,
    visit: &mut Visit,
) -> Result<(), ArchiveError> {
    let corrupt =
        |problem: &str| ArchiveError::Corrupt { part: part.into(), problem: problem.into() };
    let broken = |error: io::Error| budget.explain(part, &error);
    let mut extensions = Extensions::default();
    let mut position = 0;
    for count in 0.. {
        let Some(header) = next_header(&mut stream).map_err(broken)? else { break };
        if count >= MAX_ENTRIES {
            return Err(ArchiveError::TooLarge(format!(
                "{part} has more than {MAX_ENTRIES} entries"
            )));
        }
        position += BLOCK as u64;
        let stated = header.entry_size().map_err(broken)?;
        let is_extension = is_extension(header.entry_type());
        if is_extension && stated > MAX_EXTENSION {
            return Err(corrupt("a header's extension is longer than 256 KiB"));
        }
        // A header's own field ends at 8 GiB; what is longer says so in the PAX header before it.
        let size = if is_extension { stated } else { extensions.size.unwrap_or(stated) };
        let end = size
            .checked_next_multiple_of(BLOCK as u64)
            .and_then(|blocks| blocks.checked_add(position));
        let end = end.ok_or_else(|| corrupt("an entry is longer than any file"))?;
        let mut content = stream.by_ref().take(size);
        if is_extension {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map_err(broken)?;
            extensions.add(header.entry_type(), bytes).map_err(corrupt)?;
        } else {
            let extensions = std::mem::take(&mut extensions);
            let meta = extensions.applied_to(&header, size, position).map_err(broken)?;
            let is_good = |name: &[u8]| name.len() <= MAX_NAME && !name.contains(&0);
            if meta.name.is_empty() || !is_good(&meta.name) || !is_good(&meta.link) {
                return Err(corrupt("a name is empty, longer than 4096 bytes, or has a zero byte"));
            }
            visit(&meta, &mut content)?;
        }
        // What nobody read of the content, and what fills its last block.
        let rest = content.limit() + (end - position - size);
        if io::copy(&mut stream.by_ref().take(rest), &mut io::sink()).map_err(broken)? != rest {
            return Err(corrupt("it ends within an entry"));
        }
        position = end;
    }
    Ok(())
}

/// Whether an entry only says something about others.
fn is_extension(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::GNULongName
            | EntryType::GNULongLink
            | EntryType::XHeader
            | EntryType::XGlobalHeader
    )
}

/// The next entry's header; none where the stream ends, or a block of zeros says that it does.
fn next_header(stream: &mut impl Read) -> io::Result<Option<Header>> {
    let mut header = Header::new_old();
    let mut block = Vec::with_capacity(BLOCK);
    stream.take(BLOCK as u64).read_to_end(&mut block)?;
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let Ok(whole) = <[u8; BLOCK]>::try_from(block) else {
        return Err(io::Error::other("it ends within a header"));
    };
    *header.as_mut_bytes() = whole;
    // The checksum is over the header with blanks in its own place (POSIX.1-2017, pax, "ustar
    // Interchange Format").
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    if header.cksum()? != sum(&whole[..148]) + 8 * u32::from(b' ') + sum(&whole[156..]) {
        return Err(io::Error::other("a header's checksum is wrong"));
    }
    Ok(Some(header))
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
    /// The header of the entry that they belong to.
    fn applied_to(self, header: &Header, size: u64, position: u64) -> io::Result<EntryHeader> {
        let link = || header.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default();
        Ok(EntryHeader {
            name: self.name.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: self.link.unwrap_or_else(link),
            kind: header.entry_type(),
            mode: header.mode()?,
            size,
            position,
            capabilities: self.capabilities,
        })
    }

    fn add(&mut self, kind: EntryType, content: Vec<u8>) -> Result<(), &'static str> {
        let text = || content.strip_suffix(b"\0").unwrap_or(&content).to_vec();
        match kind {
            EntryType::GNULongName => self.name = Some(text()),
            EntryType::GNULongLink => self.link = Some(text()),
            // Of all entries together, and nothing that changes one: git writes its commit there.
            // Docker passes it over.
            EntryType::XGlobalHeader => {}
            _ => {
                for record in tar::PaxExtensions::new(&content) {
                    let record = record.map_err(|_| "a PAX header is malformed")?;
                    let value = record.value_bytes().to_vec();
                    match record.key_bytes() {
                        b"path" => self.name = Some(value),
                        b"linkpath" => self.link = Some(value),
                        b"size" => {
                            self.size =
                                Some(number(&value).ok_or("a PAX header's size is not a number")?)
                        }
                        b"SCHILY.xattr.security.capability" => self.capabilities = true,
                        key if key.starts_with(b"GNU.sparse.") => {
                            return Err("it has a sparse file");
                        }
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
