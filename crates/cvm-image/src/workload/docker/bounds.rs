//! How much may come out of an archive, and what its bytes must hash to.

use std::{
    cell::{Cell, RefCell},
    io::{self, Read},
    rc::Rc,
};

use sha2::{Digest as _, Sha256};

use super::ArchiveError;

/// No file system compresses better than this; gzip itself ends at 1032.
const MAX_RATIO: u64 = 200;
/// Where the ratio begins to count, in bytes: a layer of some empty megabytes is ordinary.
const RATIO_FLOOR: u64 = 64 << 20;

/// The bytes that may come out of all compressed streams together.
pub(super) struct Budget {
    limit: u64,
    used: Cell<u64>,
    /// Why a stream was cut off: the readers around it replace the error.
    cut: Cell<Option<Cut>>,
}

#[derive(Clone, Copy)]
enum Cut {
    Total,
    Ratio,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, used: Cell::new(0), cut: Cell::new(None) }
    }

    /// What a failed read of `part` means.
    pub(super) fn explain(&self, part: &str, error: &io::Error) -> ArchiveError {
        match self.cut.get() {
            Some(Cut::Total) => {
                ArchiveError::TooLarge(format!("more than {} bytes come out of it", self.limit))
            }
            Some(Cut::Ratio) => ArchiveError::TooLarge(format!(
                "{part} expands more than {MAX_RATIO} times, as a zip bomb does"
            )),
            None => ArchiveError::Corrupt { part: part.into(), problem: error.to_string() },
        }
    }
}

/// Counts what is read from a compressed stream.
pub(super) struct Consumed<R> {
    pub(super) inner: R,
    pub(super) count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Consumed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

/// A stream's plain bytes: counted against the budget, and hashed.
pub(super) struct Plain<'a> {
    pub(super) inner: Box<dyn Read + 'a>,
    pub(super) consumed: Rc<Cell<u64>>,
    pub(super) produced: u64,
    pub(super) budget: &'a Budget,
    pub(super) hash: Rc<RefCell<Sha256>>,
}

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let (bytes, _) = buffer.split_at(count);
        self.hash.borrow_mut().update(bytes);
        self.produced += count as u64;
        let used = self.budget.used.get() + count as u64;
        self.budget.used.set(used);
        let cut = if used > self.budget.limit {
            Cut::Total
        } else if self.produced > RATIO_FLOOR && self.produced / MAX_RATIO > self.consumed.get() {
            Cut::Ratio
        } else {
            return Ok(count);
        };
        self.budget.cut.set(Some(cut));
        Err(io::Error::other("cut off"))
    }
}
