//! Where a file's data lies: images are mostly holes, and a site's data partition may be larger
//! than memory.

use std::{fs::File, io, ops::Range};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};

/// The parts of a file that are not holes, in order. Moves the file's position.
pub(crate) fn extents(file: &File) -> io::Result<Vec<Range<u64>>> {
    let mut extents = Vec::new();
    let mut at = 0;
    loop {
        let start = match lseek(file, at, Whence::SeekData) {
            Ok(start) => start,
            // The rest is a hole.
            Err(Errno::ENXIO) => return Ok(extents),
            Err(error) => return Err(error.into()),
        };
        let end = lseek(file, start, Whence::SeekHole)?;
        extents.push(start as u64..end as u64);
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn holes_are_left_out() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(extents(&file).unwrap(), []);
        file.set_len(1 << 40).unwrap();
        assert_eq!(extents(&file).unwrap(), []);
        for at in [0, 1 << 30, (1 << 40) - 1] {
            file.write_all_at(b"x", at).unwrap();
        }
        let found = extents(&file).unwrap();
        assert!(
            found.iter().map(|extent| extent.end - extent.start).sum::<u64>() < 1 << 20,
            "{found:?}"
        );
        for at in [0, 1 << 30, (1 << 40) - 1] {
            assert!(found.iter().any(|extent| extent.contains(&at)), "{at}: {found:?}");
        }
    }
}
