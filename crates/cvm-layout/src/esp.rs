//! Reads files out of p1, a FAT image that anybody with the disk may have changed.

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use cvm_base::Explain;
use fatfs::{FileSystem, FsOptions};

/// p1 is never larger than this; a longer image is refused unread.
pub const MAX_IMAGE_BYTES: usize = 64 * 1024 * 1024;
/// Reads that directories and the allocation table may cost beside the file itself. A chain that
/// runs in a circle ends here.
const OVERHEAD: u64 = 1024 * 1024;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    /// Not a FAT file system, or a damaged one.
    #[error("cannot read {path:?} from the ESP: {reason}")]
    Unreadable {
        /// The file asked for.
        path: String,
        /// What the reader met.
        reason: String,
    },
    /// The file is there and longer than its format allows.
    #[error("{path:?} on the ESP has {found} bytes, expected at most {limit}")]
    TooLong {
        /// The file asked for.
        path: String,
        /// Its length in bytes.
        found: u64,
        /// The most it may have.
        limit: u64,
    },
}

impl Explain for EspError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "ESP-001",
            Self::TooLong { .. } => "ESP-002",
        }
    }

    fn help(&self) -> String {
        "p1 was damaged or changed on the host: copy disk.qcow2 from its bundle again".into()
    }
}

/// Reads `path` (`flare-cvm/manifest.json`, case-insensitive) of at most `limit` bytes from a FAT
/// image; `None` if there is no such file.
///
/// Bounded: memory by `limit`, time by `limit` plus a fixed allowance for directories.
pub fn read_file(image: &[u8], path: &str, limit: u64) -> Result<Option<Vec<u8>>, EspError> {
    let fail = |e: io::Error| EspError::Unreadable { path: path.to_owned(), reason: e.to_string() };
    if image.len() > MAX_IMAGE_BYTES {
        return Err(fail(io::Error::other("the image is longer than an ESP may be")));
    }
    let budget = limit.saturating_mul(2).saturating_add(OVERHEAD);
    let fs = FileSystem::new(Bounded { image: Cursor::new(image), budget }, FsOptions::new())
        .map_err(fail)?;
    let mut file = match fs.root_dir().open_file(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fail(e)),
    };
    let found = file.seek(SeekFrom::End(0)).map_err(fail)?;
    if found > limit {
        return Err(EspError::TooLong { path: path.to_owned(), found, limit });
    }
    file.rewind().map_err(fail)?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 != found {
        return Err(fail(io::Error::other("the file ends before its length")));
    }
    Ok(Some(bytes))
}

/// A read-only image that stops answering once its budget is spent: one for each call, one for each
/// byte.
struct Bounded<'a> {
    image: Cursor<&'a [u8]>,
    budget: u64,
}

impl Bounded<'_> {
    fn spend(&mut self, amount: u64) -> io::Result<()> {
        let refuse = || io::Error::other("its structures need more reads than an ESP of ours does");
        self.budget = self.budget.checked_sub(amount).ok_or_else(refuse)?;
        Ok(())
    }
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.image.read(buffer)?;
        self.spend(1 + count as u64)?;
        Ok(count)
    }
}

impl Seek for Bounded<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.spend(1)?;
        self.image.seek(position)
    }
}

/// `fatfs` asks for a writer even where nothing is written.
impl Write for Bounded<'_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The fuzz target: reads a file of the image that `bytes` may be. A unit test drives it too.
pub fn fuzz(bytes: &[u8]) {
    if let Ok(Some(file)) = read_file(bytes, "flare-cvm/manifest.json", 4096) {
        assert!(file.len() <= 4096);
    }
}

#[cfg(test)]
mod tests {
    use fatfs::FormatVolumeOptions;

    use super::*;

    /// A small FAT12 image with one folder and two files.
    fn image() -> Vec<u8> {
        let mut disk = Cursor::new(vec![0; 256 * 1024]);
        fatfs::format_volume(&mut disk, FormatVolumeOptions::new()).unwrap();
        disk.rewind().unwrap();
        {
            let fs = FileSystem::new(&mut disk, FsOptions::new()).unwrap();
            let folder = fs.root_dir().create_dir("flare-cvm").unwrap();
            folder.create_file("manifest.json").unwrap().write_all(b"{}").unwrap();
            folder.create_file("long").unwrap().write_all(&[7; 5000]).unwrap();
        }
        disk.into_inner()
    }

    #[test]
    fn reads_what_is_there_and_no_more_than_its_limit() {
        let image = image();
        assert_eq!(read_file(&image, "flare-cvm/manifest.json", 2).unwrap().unwrap(), b"{}");
        assert_eq!(read_file(&image, "FLARE-CVM/MANIFEST.JSON", 2).unwrap().unwrap(), b"{}");
        assert!(read_file(&image, "flare-cvm/absent", 2).unwrap().is_none());
        assert!(read_file(&image, "absent/file", 2).unwrap().is_none());
        assert_eq!(read_file(&image, "flare-cvm/long", 4999).unwrap_err().code(), "ESP-002");
        assert_eq!(read_file(&image, "flare-cvm/long", 5000).unwrap().unwrap(), [7; 5000]);
        assert_eq!(read_file(&[], "a", 2).unwrap_err().code(), "ESP-001");
    }

    #[test]
    fn attack_a_directory_chain_in_a_circle_ends() {
        let mut image = image();
        let sector = 512;
        let fat = usize::from(u16::from_le_bytes([image[14], image[15]])) * sector;
        // FAT12: entries 2 and 3 share three bytes; cluster 2 is the folder's. It now follows
        // itself, and is filled with deleted entries, so that no end mark stops the reader.
        image[fat + 3..fat + 5].copy_from_slice(&[0x02, 0xf0]);
        let name = image.windows(11).position(|w| w == b"MANIFE~1JSO").unwrap() & !(sector - 1);
        for entry in image[name..name + sector].chunks_exact_mut(32) {
            entry[0] = 0xe5;
        }
        let error = read_file(&image, "flare-cvm/manifest.json", 4096).unwrap_err();
        assert!(error.to_string().contains("more reads"), "{error}");
    }

    #[test]
    fn attack_damaged_structures_never_panic() {
        let image = image();
        // The boot sector byte by byte, then tables and directories with a stride.
        for position in (0..512).chain((512..20_000).step_by(53)) {
            for value in [0x00, 0x01, 0x80, 0xff] {
                let mut changed = image.clone();
                changed[position] = value;
                fuzz(&changed);
            }
        }
    }
}
