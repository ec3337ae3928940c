//! Times as people type them.

/// Reads a time: RFC 3339 in UTC (`2025-12-10T00:00:00Z`), a date alone (its first second), or
/// seconds since 1970.
pub fn parse_time(text: &str) -> Option<u64> {
    let date = |text: &str| {
        text.parse::<x509_cert::der::DateTime>().ok().map(|date| date.unix_duration().as_secs())
    };
    text.parse().ok().or_else(|| date(text)).or_else(|| date(&format!("{text}T00:00:00Z")))
}
