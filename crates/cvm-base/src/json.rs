//! Bounds on JSON of strangers, checked before a parser makes a tree of it.
//!
//! A tree takes many times the memory of its text: the seven bytes of `{"":0},` become a map of
//! some 600 bytes. A bound on the text alone does not bound the memory.

/// The most values in one document. Stock attesters write certificates as lists of numbers, some
/// thousand each.
pub const MAX_VALUES: usize = 64 * 1024;
/// The most lists and objects among them.
pub const MAX_CONTAINERS: usize = 4096;
/// The deepest nesting.
pub const MAX_DEPTH: usize = 32;

/// A document with more values, or deeper nesting, than any of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// More values than [`MAX_VALUES`].
    #[error("JSON with more than {MAX_VALUES} values")]
    Values,
    /// More lists and objects than [`MAX_CONTAINERS`].
    #[error("JSON with more than {MAX_CONTAINERS} lists and objects")]
    Containers,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("JSON nested more than {MAX_DEPTH} deep")]
    Depth,
}

/// Bounds the tree that `json` can become. Whether it is JSON at all, the parser will tell.
///
/// # Errors
/// [`ShapeError`].
pub fn check_shape(json: &[u8]) -> Result<(), ShapeError> {
    let (mut values, mut containers, mut depth) = (1, 0, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            // Counts its first member; each comma counts another one.
            b'[' | b'{' => (values, containers, depth) = (values + 1, containers + 1, depth + 1),
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(ShapeError::Depth);
        } else if containers > MAX_CONTAINERS {
            return Err(ShapeError::Containers);
        } else if values > MAX_VALUES {
            return Err(ShapeError::Values);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_a_small_text_that_becomes_a_large_tree() {
        let list_of = |item: &str, times: usize| format!("[{}]", vec![item; times].join(","));
        assert_eq!(
            check_shape(list_of("{\"\":0}", 150_000).as_bytes()),
            Err(ShapeError::Containers)
        );
        assert_eq!(check_shape(list_of("0", MAX_VALUES).as_bytes()), Err(ShapeError::Values));
        assert_eq!(check_shape("[".repeat(MAX_DEPTH + 1).as_bytes()), Err(ShapeError::Depth));
        assert_eq!(check_shape(list_of("0", MAX_VALUES / 2).as_bytes()), Ok(()));
        assert_eq!(check_shape(list_of("[]", MAX_CONTAINERS - 1).as_bytes()), Ok(()));
    }

    #[test]
    fn what_stands_in_a_string_is_no_value() {
        let text =
            format!(r#"{{"a":"\"{}","b":"{}\\"}}"#, "[".repeat(100_000), ",".repeat(100_000));
        assert_eq!(check_shape(text.as_bytes()), Ok(()));
        // Whatever else the bytes are, they are only counted.
        for bytes in [&b""[..], b"\"", b"\\", b"]]]}", b"\xff\xfe", b"{\"\\"] {
            assert_eq!(check_shape(bytes), Ok(()));
        }
    }
}
