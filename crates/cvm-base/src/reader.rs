//! A bounded cursor over hostile bytes.

/// A structure that ends too early, is too long, or has a value that its format forbids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {problem}")]
pub struct ReadError {
    /// The structure, as its reader named it.
    pub what: &'static str,
    /// Expected and found.
    pub problem: String,
}

/// Reads from a slice, never past its end, and names the structure in every error.
///
/// Numbers are big-endian unless the method's name ends in `_le`.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`, which should hold the structure `what`.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// An error about this structure.
    pub fn error(&self, problem: impl Into<String>) -> ReadError {
        ReadError { what: self.what, problem: problem.into() }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], ReadError> {
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

    /// The next `N` bytes, copied.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, ReadError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, ReadError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, ReadError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, ReadError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Two bytes, little-endian.
    pub fn u16_le(&mut self) -> Result<u16, ReadError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    pub fn u32_le(&mut self) -> Result<u32, ReadError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    pub fn u64_le(&mut self) -> Result<u64, ReadError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A TPM2B: a two-byte size and that many bytes, at most `limit`.
    pub fn sized(&mut self, limit: usize) -> Result<&'a [u8], ReadError> {
        let size = usize::from(self.u16()?);
        if size > limit {
            return Err(self.error(format!("a field of {size} bytes, at most {limit} allowed")));
        }
        self.take(size)
    }

    /// Refuses a field whose value is not the one that is allowed.
    pub fn require(&self, field: &str, expected: u32, found: u32) -> Result<(), ReadError> {
        if expected == found {
            return Ok(());
        }
        Err(self.error(format!("{field} is {found:#x}, expected {expected:#x}")))
    }

    /// Refuses bytes after the structure's end.
    pub fn end(&self) -> Result<(), ReadError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.error(format!("{} bytes too many", self.rest.len())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_stops_at_the_end_of_its_bytes() {
        let mut reader = Reader::new("pair", &[0, 1, 2, 3, 4, 5, 0, 2, 6]);
        assert_eq!((reader.u16(), reader.u32_le()), (Ok(1), Ok(0x0504_0302)));
        let text = |error: ReadError| error.to_string();
        assert_eq!(
            reader.clone().sized(1).map_err(text),
            Err("pair: a field of 2 bytes, at most 1 allowed".into())
        );
        assert_eq!(
            reader.clone().sized(2).map_err(text),
            Err("pair: 2 more bytes expected, 1 left".into())
        );
        assert_eq!(reader.end().map_err(text), Err("pair: 3 bytes too many".into()));
        assert!(reader.u64_le().is_err(), "a failed read takes nothing");
        assert_eq!(reader.array(), Ok([0, 2, 6]));
        assert_eq!((reader.end(), reader.rest()), (Ok(()), &[][..]));
    }
}
