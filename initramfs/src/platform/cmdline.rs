//! The kernel command line: part of the measured UKI, yet parsed as if it were not.

use cvm_base::Bytes32;

/// The one parameter that is ours.
const MANIFEST: &str = "flare_cvm.manifest=";

/// Why the command line names no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineError {
    /// Not UTF-8.
    #[error("the command line is not UTF-8")]
    Text,
    /// The parameter is there this many times.
    #[error("expected `flare_cvm.manifest=` once, found it {0} times")]
    Count(usize),
    /// Its value is not a digest.
    #[error("flare_cvm.manifest: {0}")]
    Digest(#[from] cvm_base::HexError),
}

/// The manifest's SHA-256 out of `/proc/cmdline`.
///
/// A second parameter is refused, not overruled: somebody who can append one must not win.
pub fn manifest_digest(cmdline: &[u8]) -> Result<Bytes32, CommandLineError> {
    let text = std::str::from_utf8(cmdline).map_err(|_| CommandLineError::Text)?;
    let values: Vec<_> =
        text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(MANIFEST)).collect();
    match values[..] {
        [value] => Ok(value.parse()?),
        _ => Err(CommandLineError::Count(values.len())),
    }
}

/// What the fuzz target runs: a digest is found only in a text that names it.
pub fn fuzz(bytes: &[u8]) {
    if let Ok(digest) = manifest_digest(bytes) {
        assert!(String::from_utf8_lossy(bytes).contains(&format!("{MANIFEST}{digest}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_seeds_and_their_mutations() {
        crate::seeds::run("command_line", fuzz);
    }

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn one_digest_is_read_and_anything_else_refused() {
        let line = format!("console=ttyS0 flare_cvm.manifest={HEX} panic=-1\n");
        assert_eq!(manifest_digest(line.as_bytes()).unwrap().to_string(), HEX);
        let doubled = format!("{line} flare_cvm.manifest={HEX}");
        assert_eq!(manifest_digest(doubled.as_bytes()), Err(CommandLineError::Count(2)));
        assert_eq!(manifest_digest(b"quiet"), Err(CommandLineError::Count(0)));
        assert_eq!(manifest_digest(b"\xff"), Err(CommandLineError::Text));
        assert!(matches!(
            manifest_digest(b"flare_cvm.manifest=00"),
            Err(CommandLineError::Digest(_))
        ));
        let upper = format!("flare_cvm.manifest={}", HEX.to_uppercase());
        assert!(manifest_digest(upper.as_bytes()).is_err());
    }
}
