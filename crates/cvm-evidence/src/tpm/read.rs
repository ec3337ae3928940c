//! A bounded cursor over hostile bytes.

use crate::AttestError;

/// Reads numbers and fields from a slice, never past its end. Every error names the structure.
pub struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; `what` names the structure in errors.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// Reads `bytes` from `offset` on.
    ///
    /// An offset past the end leaves nothing to read, so the next [`Reader::take`] fails.
    pub fn at(what: &'static str, bytes: &'a [u8], offset: usize) -> Self {
        Self::new(what, bytes.get(offset..).unwrap_or_default())
    }

    /// An error about this structure.
    pub fn error(&self, problem: impl Into<String>) -> AttestError {
        AttestError::malformed(self.what, problem)
    }

    /// The bytes that are not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] when fewer are left.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], AttestError> {
        match self.rest.split_at_checked(count) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => {
                Err(self.error(format!("{count} more bytes expected, {} left", self.rest.len())))
            }
        }
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// As [`Reader::take`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], AttestError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// One byte.
    ///
    /// # Errors
    /// As [`Reader::take`].
    pub fn u8(&mut self) -> Result<u8, AttestError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes, big-endian.
    ///
    /// # Errors
    /// As [`Reader::take`].
    pub fn u16(&mut self) -> Result<u16, AttestError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, big-endian.
    ///
    /// # Errors
    /// As [`Reader::take`].
    pub fn u32(&mut self) -> Result<u32, AttestError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes, big-endian.
    ///
    /// # Errors
    /// As [`Reader::take`].
    pub fn u64(&mut self) -> Result<u64, AttestError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Two bytes, little-endian.
    ///
    /// # Errors
    /// As [`Reader::take`].
    pub fn u16_le(&mut self) -> Result<u16, AttestError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// As [`Reader::take`].
    pub fn u32_le(&mut self) -> Result<u32, AttestError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// As [`Reader::take`].
    pub fn u64_le(&mut self) -> Result<u64, AttestError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A TPM2B: a size of two bytes, big-endian, then that many bytes, at most `limit`.
    ///
    /// # Errors
    /// As [`Reader::take`], and for a size above `limit`.
    pub fn sized(&mut self, limit: usize) -> Result<&'a [u8], AttestError> {
        let size = usize::from(self.u16()?);
        if size > limit {
            return Err(self.error(format!("a field of {size} bytes, at most {limit} allowed")));
        }
        self.take(size)
    }

    /// Compares a field that was read with the only value that it may have.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for any other value.
    pub fn require(&self, field: &str, expected: u32, found: u32) -> Result<(), AttestError> {
        if expected == found {
            return Ok(());
        }
        Err(self.error(format!("{field} is {found:#x}, expected {expected:#x}")))
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for trailing bytes.
    pub fn end(&self) -> Result<(), AttestError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.error(format!("{} bytes too many", self.rest.len())))
        }
    }
}
