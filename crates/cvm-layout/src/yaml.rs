//! Small YAML files that somebody else may have written.

use serde::de::DeserializeOwned;

/// No file of ours has more mappings and lists in brackets.
const MAX_BRACKETS: usize = 1024;

/// Refuses a file that the YAML scanner would work on for too long: nested brackets take it
/// quadratic time.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    if bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() > MAX_BRACKETS {
        return Err(format!("it has more than {MAX_BRACKETS} opening brackets"));
    }
    Ok(())
}

/// Reads a file whose length its caller has bounded.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    check(bytes)?;
    serde_yaml::from_slice(bytes).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_brackets_that_nest() {
        for (open, close) in [("[", "]"), ("{a: ", "}")] {
            let nested = |depth| format!("{}1{}", open.repeat(depth), close.repeat(depth));
            assert!(parse::<serde_yaml::Value>(nested(8).as_bytes()).is_ok());
            let error =
                parse::<serde_yaml::Value>(nested(MAX_BRACKETS + 1).as_bytes()).unwrap_err();
            assert!(error.contains("opening brackets"), "{error}");
        }
    }
}
