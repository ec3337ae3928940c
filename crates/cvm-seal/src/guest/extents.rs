//! Copying the written parts of a sparse file to a device.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    unistd::{Whence, lseek},
};

use crate::{error::SealError, format::BLOCK};

const CHUNK: usize = 1024 * 1024;

/// Copies every written extent of `image` to the same place on `device`, and flushes the device.
///
/// The device is written with `O_DIRECT` in whole blocks: through the page cache, the kernel would
/// first read the rest of a page, which has no tag yet.
pub(super) fn copy(image: &File, device: &Path) -> Result<(), SealError> {
    let to = OpenOptions::new()
        .write(true)
        .custom_flags(OFlag::O_DIRECT.bits())
        .open(device)
        .map_err(SealError::io("open for direct writing", device))?;
    let mut memory = vec![0; CHUNK + BLOCK as usize];
    let skip = memory.as_ptr().align_offset(BLOCK as usize);
    let buffer =
        memory.get_mut(skip..).and_then(|aligned| aligned.get_mut(..CHUNK)).unwrap_or_default();
    let mut copy = || -> std::io::Result<()> {
        let end_of_file = image.metadata()?.len();
        let mut end = 0;
        while let Some((start, next)) = next_extent(image, end)? {
            let mut at = start - start % BLOCK;
            end = next.next_multiple_of(BLOCK).min(end_of_file);
            while at < end {
                let length = buffer.len().min((end - at) as usize);
                let (chunk, _) = buffer.split_at_mut(length);
                image.read_exact_at(chunk, at)?;
                to.write_all_at(chunk, at)?;
                at += length as u64;
            }
        }
        to.sync_all()
    };
    copy().map_err(SealError::io("copy the file system to", device))
}

/// The next written range at or after `from`, in bytes.
fn next_extent(image: &File, from: u64) -> nix::Result<Option<(u64, u64)>> {
    match lseek(image, from as i64, Whence::SeekData) {
        Ok(start) => Ok(Some((start as u64, lseek(image, start, Whence::SeekHole)? as u64))),
        // Nothing but a hole is left.
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_written_extents_are_copied() {
        let dir = tempfile::tempdir().unwrap();
        let image = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.path().join("image"))
            .unwrap();
        image.set_len(3 * CHUNK as u64).unwrap();
        image.write_all_at(&[1; 10], 5 * BLOCK).unwrap();
        image.write_all_at(&vec![0; CHUNK], CHUNK as u64).unwrap();
        let device = dir.path().join("device");
        std::fs::write(&device, vec![0xee; 3 * CHUNK]).unwrap();

        copy(&image, &device).unwrap();

        let bytes = std::fs::read(&device).unwrap();
        assert_eq!(bytes.len(), 3 * CHUNK);
        let block = |n: usize| &bytes[n * BLOCK as usize..(n + 1) * BLOCK as usize];
        assert!(block(5).starts_with(&[1; 10]));
        assert!(block(4).iter().chain(block(6)).all(|b| *b == 0xee), "holes stay untouched");
        assert!(bytes[CHUNK..2 * CHUNK].iter().all(|b| *b == 0), "written zeros are copied");
        assert!(bytes[2 * CHUNK..].iter().all(|b| *b == 0xee));
    }
}
