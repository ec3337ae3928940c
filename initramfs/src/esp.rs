//! Files on p1, read in user space from one copy in RAM.
//!
//! The host owns p1. The kernel's FAT driver never sees it before the handoff; the partition is read
//! once, so that what was checked is what is used; and the reader's work is bounded, because a
//! cluster chain may be a circle.

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use fatfs::{FileSystem, FsOptions};

/// A larger p1 is refused unread.
pub const MAX_ESP_BYTES: u64 = 128 << 20;
/// A FAT driver that has read this much from p1 is going round in a circle. The files that we
/// want are small, and FAT tables of the largest p1 take less.
const READ_BUDGET: u64 = 16 << 20;
/// Our folder.
const FOLDER: &str = "flare-cvm";

/// Reads `/flare-cvm/NAME` for each name out of the bytes of a FAT file system: `None` where no such
/// file exists. Each is at most `limit` bytes.
///
/// # Errors
/// Not a FAT file system, damaged, circular, or a file longer than `limit`.
pub fn read_files<const N: usize>(image: &[u8], names: [&str; N], limit: u64) -> io::Result<[Option<Vec<u8>>; N]> {
    let bounded = Bounded { image: Cursor::new(image), budget: READ_BUDGET };
    let options = FsOptions::new().update_accessed_date(false);
    let fs = FileSystem::new(bounded, options)?;
    let mut files = [const { None }; N];
    let Some(folder) = absent(fs.root_dir().open_dir(FOLDER))? else { return Ok(files) };
    for (slot, name) in files.iter_mut().zip(names) {
        let Some(file) = absent(folder.open_file(name))? else { continue };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::other(format!("{name} is longer than {limit} bytes")));
        }
        *slot = Some(bytes);
    }
    Ok(files)
}

fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Bytes that can be read `budget` times over and never written; `fatfs` asks for all three traits.
struct Bounded<'a> {
    image: Cursor<&'a [u8]>,
    budget: u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.image.read(buffer)?;
        // Reads at the end count too: a circle may lie behind the image's end.
        self.budget =
            self.budget.checked_sub(count.max(1) as u64).ok_or_else(|| io::Error::other("p1's FAT is circular"))?;
        Ok(count)
    }
}

impl Seek for Bounded<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.budget = self.budget.checked_sub(1).ok_or_else(|| io::Error::other("p1's FAT is circular"))?;
        self.image.seek(to)
    }
}

impl Write for Bounded<'_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fatfs::{FormatVolumeOptions, format_volume};

    use super::*;

    fn image(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Cursor::new(vec![0; 1 << 20]);
        format_volume(&mut bytes, FormatVolumeOptions::new()).unwrap();
        {
            let fs = FileSystem::new(&mut bytes, FsOptions::new()).unwrap();
            let folder = fs.root_dir().create_dir(FOLDER).unwrap();
            for (name, content) in files {
                folder.create_file(name).unwrap().write_all(content).unwrap();
            }
        }
        bytes.into_inner()
    }

    #[test]
    fn files_are_read_and_absent_ones_are_none() {
        let image = image(&[("manifest.json", b"{}"), ("manifest.sig", &[7; 64])]);
        let [json, sig, none] = read_files(&image, ["manifest.json", "manifest.sig", "boot.json"], 64).unwrap();
        assert_eq!((json.unwrap(), sig.unwrap(), none), (b"{}".to_vec(), vec![7; 64], None));
        assert!(read_files(&image, ["manifest.sig"], 63).is_err());
    }

    #[test]
    fn a_circular_cluster_chain_ends() {
        // Enough files that the folder's first cluster has no end; then every chain runs into cluster 2,
        // which is that cluster.
        let names = std::array::from_fn::<_, 40, _>(|i| format!("file-{i}.json"));
        let mut image = image(&names.each_ref().map(|name| (name.as_str(), &b""[..])));
        let reserved = usize::from(u16::from_le_bytes([image[14], image[15]])) * 512;
        let tables = 2 * usize::from(u16::from_le_bytes([image[22], image[23]])) * 512;
        for entry in image[reserved..reserved + tables].chunks_exact_mut(3) {
            entry.copy_from_slice(&[0x02, 0x20, 0x00]); // FAT12: two entries of 12 bits
        }
        assert!(read_files(&image, ["no-such-file"], 1 << 20).is_err(), "a folder that never ends");
    }

    #[test]
    fn damaged_images_end_in_an_error_or_other_bytes_never_in_a_panic_or_a_loop() {
        let good = image(&[("manifest.json", b"{\"version\":1}"), ("manifest.sig", &[7; 64])]);
        assert!(read_files(&[], ["manifest.json"], 64).is_err());
        assert!(read_files(&[0; 4096], ["manifest.json"], 64).is_err());
        // Every byte of the boot sector, then a sample of the tables and folders.
        for at in (0..512).chain((512..good.len().min(64 << 10)).step_by(97)) {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = read_files(&bad, ["manifest.json", "manifest.sig"], 64);
            }
        }
    }
}
