//! A gzip stream (RFC 1952) of stored blocks (RFC 1951, 3.2.4), for content that does not compress.
//!
//! Measured on 138 MB: 0.25 s, where flate2 takes 1.3 s at level 0 and 2 s at level 1.

use std::io::{self, Write};

/// No name, no date, an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
const BLOCK: usize = u16::MAX as usize;

/// Writes what it is given as one gzip member; [`Stored::finish`] ends it.
pub(super) struct Stored<W> {
    to: W,
    block: Vec<u8>,
    crc: crc32fast::Hasher,
    /// Modulo 2^32, as the format has it.
    length: u32,
}

impl<W: Write> Stored<W> {
    pub(super) fn new(mut to: W) -> io::Result<Self> {
        to.write_all(&HEADER)?;
        Ok(Self { to, block: Vec::with_capacity(BLOCK), crc: crc32fast::Hasher::new(), length: 0 })
    }

    fn emit(&mut self, last: bool) -> io::Result<()> {
        let length = self.block.len() as u16;
        self.to.write_all(&[u8::from(last)])?;
        self.to.write_all(&length.to_le_bytes())?;
        self.to.write_all(&(!length).to_le_bytes())?;
        self.to.write_all(&self.block)?;
        self.crc.update(&self.block);
        self.length = self.length.wrapping_add(length.into());
        self.block.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.emit(true)?;
        self.to.write_all(&self.crc.finalize().to_le_bytes())?;
        self.to.write_all(&self.length.to_le_bytes())?;
        Ok(self.to)
    }
}

impl<W: Write> Write for Stored<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK {
            self.emit(false)?;
        }
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn gzip_reads_every_length() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7] {
            let content: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
            let mut stored = Stored::new(Vec::new()).unwrap();
            content.chunks(1000).for_each(|part| stored.write_all(part).unwrap());
            let stream = stored.finish().unwrap();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), stream).unwrap();
            let input = Stdio::from(std::fs::File::open(file.path()).unwrap());
            let output = Command::new("gzip").arg("-dc").stdin(input).output().unwrap();
            assert!(output.status.success() && output.stdout == content, "{length}");
        }
    }
}
