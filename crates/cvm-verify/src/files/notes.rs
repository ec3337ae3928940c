//! Files beside evidence that are not evidence: notes of people, and signatures over the files
//! themselves.
//!
//! Anything else that nobody can read may be evidence that was damaged, or of a kind that is not
//! known here.

/// A longer run of hex digits is data, as a measurement or a report is.
const MAX_HEX: usize = 31;
/// The same for base64. Words are shorter.
const MAX_BASE64: usize = 39;
/// More characters than any nonce has.
const MAX_NONCE: usize = 128;
/// More than anybody writes about a folder, in bytes.
const MAX_NOTE: usize = 256 * 1024;

/// Whether an unreadable file is a note: text that is called one (`README`, `*.md`, `LICENSE`,
/// `SHA256SUMS`) or reads as one; a hidden file, as desktops and version control leave them; or a
/// short text that is called a nonce, and does not count as one.
pub fn is_note(name: &str, bytes: &[u8]) -> bool {
    let name = file_name(name);
    if name.starts_with('.') {
        return true;
    }
    let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_NOTE) else {
        return false;
    };
    !text.trim().is_empty() && !text.contains(|c: char| c.is_control() && !c.is_whitespace()) && {
        is_called_a_note(name) || is_called_a_nonce(name, text) || is_prose(text)
    }
}

/// Whether a file is called a signature or a digest of another: `report.bin.sig` of `report.bin`.
pub fn signs(name: &str, other: &str) -> bool {
    const SUFFIXES: [&str; 7] =
        [".sig", ".asc", ".minisig", ".sigstore", ".sha256", ".sha384", ".sha512"];
    name.strip_prefix(other).is_some_and(|suffix| SUFFIXES.contains(&suffix))
}

fn is_called_a_note(name: &str) -> bool {
    const NAMES: [&str; 6] = ["readme", "license", "notice", "changelog", "provenance", "copying"];
    let name = name.to_ascii_lowercase();
    let (stem, extension) = name.rsplit_once('.').unwrap_or((&name, ""));
    let sums = name.starts_with("sha") && name.ends_with("sums");
    sums || matches!(extension, "md" | "rst")
        || (matches!(extension, "" | "txt") && NAMES.contains(&stem))
}

fn is_called_a_nonce(name: &str, text: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    matches!(stem.as_str(), "nonce" | "challenge" | "eat_nonce") && text.trim().len() <= MAX_NONCE
}

/// Words, not data: neither a structure, nor a dump, nor register values.
fn is_prose(text: &str) -> bool {
    let structured =
        text.trim_start().starts_with(['{', '[', '"', '<']) || text.contains("-----BEGIN");
    let longest = |of: fn(char) -> bool| text.split(|c| !of(c)).map(str::len).max().unwrap_or(0);
    let data = longest(|c| c.is_ascii_hexdigit()) > MAX_HEX
        || longest(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/')) > MAX_BASE64;
    // A hex dump has short runs too; words have other letters than a to f.
    let is_word =
        |word: &&str| word.contains(|c: char| c.is_alphabetic() && !c.is_ascii_hexdigit());
    let words = text.split_whitespace().filter(is_word).count();
    !structured && !data && 2 * words >= text.split_whitespace().count()
}

fn file_name(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_told_from_evidence_that_nobody_can_read() {
        let sum = "5b0f1e9d".repeat(8);
        let readme = format!("# Evidence\nreport.bin has SHA-256 {sum}\n");
        for (name, text) in [
            ("e/notes.txt", "asked on Monday"),
            ("e/README.md", &readme),
            ("README", &readme),
            ("SHA256SUMS", &format!("{sum}  report.bin\n")),
            (".DS_Store", "\0\0\0\u{1}Bud1"),
            ("COPYING.txt", &sum),
            ("m/nonce.txt", "9009"),
            ("challenge", "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k="),
        ] {
            assert!(is_note(name, text.as_bytes()), "{name}");
        }
        let dump: String = (0..64)
            .map(|line| format!("{:08x}: 0200 0000 d447 b55d 1974 91bf e15c f298\n", line * 16))
            .collect();
        let base64 = "AgAAAAAAAAAAAAMAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".repeat(20);
        for (name, text) in [
            ("snp.bin", "\u{2}\0\0\0\0"),
            ("README.md", "\u{2}\0\0\0\0"),
            ("report.txt", &dump),
            ("report.txt", &base64),
            ("report.json", r#"{"tee": "sev", "what": "a new form"}"#),
            ("pcrs.yaml", &format!("sha256:\n  0 : 0x{sum}\n")),
            ("vcek.pem", "-----BEGIN CERTIFICATE-----\nit was cut off"),
            ("quote.txt", ""),
            ("nonce.txt", &base64),
            ("log.xml", "<log>of a new firmware</log>"),
        ] {
            assert!(!is_note(name, text.as_bytes()), "{name}: {text:.40}");
        }
        assert!(signs("e/report.bin.sig", "e/report.bin") && signs("q.json.asc", "q.json"));
        assert!(!signs("quote.sig", "quote.msg") && !signs("report.bin", "report.bin"));
    }
}
