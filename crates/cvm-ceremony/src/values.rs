//! The small checked values of the ceremony.

use std::{fmt, str::FromStr};

use cvm_base::time::date;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What a party owns; each ceremony has at least one party of each role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartyRole {
    /// The model and its code.
    ModelOwner,
    /// The data at a site.
    DataOwner,
}

/// The text is not a value of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not {expected}")]
pub struct ValueError {
    expected: &'static str,
    found: String,
}

impl ValueError {
    pub(crate) fn new(expected: &'static str, found: &str) -> Self {
        Self { expected, found: found.chars().take(80).collect() }
    }
}

fn refuse<T>(expected: &'static str, found: &str) -> Result<T, ValueError> {
    Err(ValueError::new(expected, found))
}

impl fmt::Display for PartyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ModelOwner => "model_owner",
            Self::DataOwner => "data_owner",
        })
    }
}

impl FromStr for PartyRole {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "model_owner" => Ok(Self::ModelOwner),
            "data_owner" => Ok(Self::DataOwner),
            _ => refuse("model_owner or data_owner", text),
        }
    }
}

/// A day, `YYYY-MM-DD` of UTC, as its signer states it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

/// The last second of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

impl Date {
    /// The UTC day of a Unix time in seconds, years 1970 to 9999.
    pub fn from_unix(seconds: u64) -> Self {
        let (year, month, day) = date(seconds.min(LAST_SECOND));
        Self { year: year as u16, month, day }
    }

    /// Year, month 1 to 12, day 1 to 31.
    pub fn parts(&self) -> (u16, u8, u8) {
        (self.year, self.month, self.day)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl FromStr for Date {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut parts = text.splitn(3, '-');
        let mut next = || parts.next().and_then(|part| part.parse::<u16>().ok());
        match (next(), next(), next()) {
            (Some(year @ 1970..=9999), Some(month @ 1..=12), Some(day @ 1..=31)) => {
                let date = Self { year, month: month as u8, day: day as u8 };
                if date.to_string() == text { Ok(date) } else { refuse("a day YYYY-MM-DD", text) }
            }
            _ => refuse("a day YYYY-MM-DD", text),
        }
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Where a key holder listens: `https://HOST:PORT`, no path; at most 200 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A DNS name, an IPv4 address, or an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        let host =
            self.0.trim_start_matches("https://").rsplit_once(':').map_or("", |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl FromStr for Url {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parts = text.strip_prefix("https://").and_then(|rest| rest.rsplit_once(':'));
        let good = parts.is_some_and(|(host, port)| {
            let host_good = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
                Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
                None => {
                    !host.is_empty()
                        && !host.starts_with(['-', '.'])
                        && host.bytes().all(|b| {
                            b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b)
                        })
                }
            };
            host_good
                && port.parse::<u16>().is_ok_and(|number| number > 0 && number.to_string() == port)
        });
        if good && text.len() <= 200 {
            Ok(Self(text.to_owned()))
        } else {
            refuse("https://HOST:PORT without a path", text)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An `age` X25519 recipient, `age1` and 58 lowercase letters or digits.
///
/// Its checksum is verified when something is sealed to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient(String);

impl Recipient {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Recipient {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let good = text.len() == 62
            && text.starts_with("age1")
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if good { Ok(Self(text.to_owned())) } else { refuse("an age recipient (age1…)", text) }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Recipient {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_strict() {
        for (seconds, text) in
            [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (1_795_305_600, "2026-11-22")]
        {
            assert_eq!(Date::from_unix(seconds).to_string(), text);
            assert_eq!(text.parse::<Date>().unwrap(), Date::from_unix(seconds));
        }
        for bad in
            ["", "2026-1-01", "2026-13-01", "2026-01-32", "+026-01-01", "2026-01-01-", "1969-01-01"]
        {
            assert!(bad.parse::<Date>().is_err(), "{bad:?}");
        }
        assert_eq!(Date::from_unix(u64::MAX).to_string(), "9999-12-31");
    }

    #[test]
    fn urls_are_strict() {
        for (text, host) in [
            ("https://kh.acme.com:8443", "kh.acme.com"),
            ("https://10.0.2.2:1", "10.0.2.2"),
            ("https://[::1]:443", "::1"),
        ] {
            assert_eq!(text.parse::<Url>().unwrap().host(), host);
        }
        for bad in [
            "http://a:1",
            "https://a",
            "https://a:0",
            "https://a:65536",
            "https://a:01",
            "https://a:1/",
            "https://:1",
            "https://A:1",
            "https://a b:1",
            "https://u@a:1",
            "https://[::1:1",
            "https://[x]:1",
            "https://a:1?x",
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad:?}");
        }
    }
}
