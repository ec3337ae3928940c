//! Times of the protocol: RFC 3339, as Python writes it too.

pub use cvm_base::time::{now, rfc3339};

/// RFC 3339 in UTC, also as Python writes it (`2027-01-15T08:05:00.25+00:00`); fractions are cut.
pub fn parse(text: &str) -> Option<u64> {
    if text.len() > 40 {
        return None;
    }
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"))?;
    let whole = match text.split_once('.') {
        None => text,
        Some((whole, fraction)) if fraction.bytes().all(|b| b.is_ascii_digit()) => whole,
        Some(_) => return None,
    };
    cvm_verify::x509::parse_time(&format!("{whole}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_comes_back() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_800_000_300, "2027-01-15T08:05:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!((rfc3339(seconds).as_str(), parse(text)), (text, Some(seconds)));
        }
        assert_eq!(parse("2027-01-15T08:05:00.250000+00:00"), Some(1_800_000_300));
        for bad in [
            "",
            "Z",
            "1800000300",
            "2027-01-15T08:05:00+01:00",
            "2027-01-15T08:05:00.xZ",
            "2027-13-15T08:05:00Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
