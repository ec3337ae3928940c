//! DER, read strictly and in place: definite, minimal lengths, tags of one byte, nothing left over.
//!
//! Only for what x509-cert has no type for in its current version: DICE extensions and OCSP
//! responses, and for the raw bytes of a certificate's fields, which OCSP hashes.

use x509_cert::der::{
    Decode,
    asn1::{GeneralizedTime, UtcTime},
};

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
pub(super) const GENERALIZED_TIME: u8 = 0x18;

/// `[number]`, constructed.
pub(super) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// Why DER was refused, for an error's `problem`.
pub(super) type Problem = &'static str;

/// What is left of a run of elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

/// One element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub tag: u8,
    /// Its content.
    pub value: &'a [u8],
    /// Tag, length and content.
    pub whole: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The content of `bytes`, which must be one element of this tag.
    pub(super) fn only(bytes: &'a [u8], tag: u8) -> Result<&'a [u8], Problem> {
        let mut reader = Self(bytes);
        let value = reader.read(tag)?;
        reader.end()?;
        Ok(value)
    }

    /// The elements within the one SEQUENCE that `bytes` are.
    pub(super) fn sequence(bytes: &'a [u8]) -> Result<Self, Problem> {
        Self::only(bytes, SEQUENCE).map(Self)
    }

    /// The next element, whatever it is.
    pub(super) fn next(&mut self) -> Result<Element<'a>, Problem> {
        let (&[tag, short], rest) =
            self.0.split_first_chunk::<2>().ok_or("ends within an element")?;
        if tag & 0x1f == 0x1f {
            return Err("a tag of several bytes");
        }
        let (length, rest) = match short {
            0..=0x7f => (usize::from(short), rest),
            0x81..=0x84 => {
                let count = usize::from(short & 0x7f);
                let (bytes, rest) = rest.split_at_checked(count).ok_or("ends within a length")?;
                let length =
                    bytes.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
                if length < 0x80 || length >> (8 * (count - 1)) == 0 {
                    return Err("a length that is not minimal");
                }
                (usize::try_from(length).unwrap_or(usize::MAX), rest)
            }
            _ => return Err("an indefinite length, or one beyond 4 GiB"),
        };
        let (value, rest) =
            rest.split_at_checked(length).ok_or("an element longer than what holds it")?;
        let whole = self.0.get(..self.0.len() - rest.len()).unwrap_or_default();
        self.0 = rest;
        Ok(Element { tag, value, whole })
    }

    /// The content of the next element, which must have this tag.
    pub(super) fn read(&mut self, tag: u8) -> Result<&'a [u8], Problem> {
        self.optional(tag)?.ok_or("another element than its specification has there")
    }

    /// The content of the next element, if it has this tag.
    pub(super) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Problem> {
        if self.0.first() != Some(&tag) {
            return Ok(None);
        }
        self.next().map(|element| Some(element.value))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), Problem> {
        if self.is_empty() { Ok(()) } else { Err("more after its last element") }
    }
}

/// The content of a BIT STRING of whole bytes.
pub(super) fn bits(content: &[u8]) -> Result<&[u8], Problem> {
    content.strip_prefix(&[0]).ok_or("a BIT STRING that is not of whole bytes")
}

/// UTCTime or GeneralizedTime, in seconds since 1970 UTC.
pub(super) fn time(element: Element<'_>) -> Result<u64, Problem> {
    let bad = "it is not a time";
    let since = match element.tag {
        GENERALIZED_TIME => {
            GeneralizedTime::from_der(element.whole).map_err(|_| bad)?.to_unix_duration()
        }
        _ => UtcTime::from_der(element.whole).map_err(|_| bad)?.to_unix_duration(),
    };
    Ok(since.as_secs())
}

/// An INTEGER's content as a decimal number, as OpenSSL prints serial numbers.
pub(super) fn decimal(big_endian: &[u8]) -> String {
    let mut digits = vec![0_u8];
    for byte in big_endian {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 10) as u8;
            carry /= 10;
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    }
    digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_follow_each_other_and_nothing_else_does() {
        let bytes = [0x30, 6, 2, 1, 5, 4, 1, 7];
        let mut inner = Reader::sequence(&bytes).unwrap();
        assert_eq!(inner.read(INTEGER), Ok(&[5][..]));
        assert!(inner.end().is_err());
        assert_eq!(inner.optional(SET), Ok(None));
        assert_eq!(inner.next().unwrap(), Element { tag: 4, value: &[7], whole: &[4, 1, 7] });
        assert_eq!(inner.end(), Ok(()));
        for bad in [
            &[0x30][..],
            &[0x30, 1],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81, 1, 0],
            &[0x30, 0x82, 0, 1, 0],
        ] {
            assert!(Reader::sequence(bad).is_err(), "{bad:02x?}");
        }
        assert!(Reader::sequence(&[0x30, 0, 0]).is_err(), "one byte after it");
    }

    #[test]
    fn numbers_and_times_in_words() {
        assert_eq!(decimal(&[0]), "0");
        assert_eq!(decimal(&[1, 0]), "256");
        assert_eq!(decimal(&[0xff; 9]), "4722366482869645213695");
    }
}
