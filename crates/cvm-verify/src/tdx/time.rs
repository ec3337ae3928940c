//! Dates as Intel's services write them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use x509_cert::der::DateTime;

/// Seconds since 1970 UTC; in text `2025-06-19T10:16:03Z` (RFC 3339, in UTC, without a fraction).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match DateTime::from_unix_duration(Duration::from_secs(self.0)) {
            Ok(date) => s.collect_str(&date),
            // A year past 9999: no certificate or list reaches it.
            Err(_) => s.collect_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let date: DateTime =
            text.parse().map_err(|_| D::Error::custom("not a date like 2025-06-19T10:16:03Z"))?;
        Ok(Self(date.unix_duration().as_secs()))
    }
}
