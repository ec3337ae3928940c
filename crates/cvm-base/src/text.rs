//! Text as editors save it (with a byte order mark in front, or as UTF-16), and text of strangers
//! for a log, a console or a terminal.

/// Text in UTF-16, where its format is UTF-8: the text, for a format that allows both.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is UTF-16 text, and its format is UTF-8")]
pub struct Utf16(pub String);

/// Bytes without the byte order mark of UTF-8 (RFC 8259 §8.1 lets a reader pass over it). Other
/// bytes are as they were.
///
/// # Errors
/// [`Utf16`], with a mark or without one.
pub fn unmarked(bytes: &[u8]) -> Result<&[u8], Utf16> {
    let (read, units): (fn([u8; 2]) -> u16, _) = match bytes {
        [0xef, 0xbb, 0xbf, text @ ..] => return Ok(text),
        [0xff, 0xfe, text @ ..] => (u16::from_le_bytes, text),
        [0xfe, 0xff, text @ ..] => (u16::from_be_bytes, text),
        [first, 0, _, 0, ..] if is_ascii_text(*first) => (u16::from_le_bytes, bytes),
        [0, first, 0, _, ..] if is_ascii_text(*first) => (u16::from_be_bytes, bytes),
        _ => return Ok(bytes),
    };
    let is_marked = units.len() < bytes.len();
    let (units, odd) = units.as_chunks::<2>();
    let text = String::from_utf16(&units.iter().copied().map(read).collect::<Vec<_>>());
    // Without a mark, binary structures begin like this too: text has no control characters.
    let is_text = |text: &String| match is_marked {
        true => !text.contains('\0'),
        false => text.bytes().all(is_ascii_text),
    };
    match text.ok().filter(|text| odd.is_empty() && is_text(text)) {
        Some(text) => Err(Utf16(text)),
        None => Ok(bytes),
    }
}

/// What a console may show of a stranger's text: at most its first `most` bytes, and `?` in place of
/// each byte that is not printable ASCII.
pub fn printable(text: impl AsRef<[u8]>, most: usize) -> String {
    let visible = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '?',
    };
    text.as_ref().iter().take(most).map(visible).collect()
}

fn is_ascii_text(byte: u8) -> bool {
    byte == b' ' || byte.is_ascii_graphic() || matches!(byte, b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_editors_are_passed_over_and_utf_16_is_named() {
        let utf16 = |text: &str, to: fn(u16) -> [u8; 2]| {
            text.encode_utf16().flat_map(to).collect::<Vec<_>>()
        };
        assert_eq!(unmarked(b"\xef\xbb\xbf{}\r\n"), Ok(&b"{}\r\n"[..]));
        for to in [u16::to_le_bytes, u16::to_be_bytes] {
            for text in ["\u{feff}{\"ä\": 1}", "{\"a\": 1}\r\n"] {
                let Err(Utf16(found)) = unmarked(&utf16(text, to)) else { panic!("{text}") };
                assert_eq!(found, text.trim_start_matches('\u{feff}'));
            }
        }
        for binary in [
            &b""[..],
            b"\xff\xfe",
            b"\xff\xfe\x00\xd8",
            b"#\0\x0b\0\x05\0",
            b"\0#\0\x0b\0\x05",
            b"a\0b\0c",
        ] {
            let found = unmarked(binary);
            assert!(found == Ok(binary) || binary == b"\xff\xfe", "{found:?}");
        }
    }

    #[test]
    fn no_control_character_and_no_more_than_asked_for_is_shown() {
        assert_eq!(printable("a \u{1b}[2J~", 80), "a ?[2J~");
        assert_eq!(printable("\u{202e}é", 80), "?????");
        assert_eq!(printable([b'x'; 100], 3), "xxx");
    }
}
