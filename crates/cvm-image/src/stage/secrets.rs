//! The search for secrets in what the host can read: invariant 1 of ARCHITECTURE.md.
//!
//! It finds two kinds: what looks like a private key in any of its usual forms, and the exact
//! secrets of this build ([`Needles`]), also as hex or base64.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use base64::Engine as _;
use zeroize::Zeroizing;

use crate::{WorkError, sparse};

/// The secrets of a build, by name. Shorter ones than 16 bytes are left out.
#[derive(Default)]
pub struct Needles(Vec<Needle>);

struct Needle {
    name: String,
    form: &'static str,
    bytes: Zeroizing<Vec<u8>>,
}

/// A secret where none may be. It says what was found and where, never the secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file and the first byte's offset in it: `config.img at byte 8192`.
    pub place: String,
    /// What was found.
    pub what: String,
}

/// Shorter secrets would be found everywhere, by chance.
const SHORTEST: usize = 16;

impl Needles {
    /// Adds a secret in its raw form, as hex (both cases) and as base64.
    pub fn add(&mut self, name: &str, secret: &[u8]) {
        if secret.len() < SHORTEST {
            return;
        }
        let mut push = |form, bytes: Vec<u8>| {
            self.0.push(Needle { name: name.to_owned(), form, bytes: Zeroizing::new(bytes) });
        };
        push("", secret.to_vec());
        let hex = |upper: bool| -> Vec<u8> {
            let digits: &[u8; 16] = if upper { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
            secret
                .iter()
                .flat_map(|b| [digits[usize::from(b >> 4)], digits[usize::from(b & 15)]])
                .collect()
        };
        push(" as hex", hex(false));
        push(" as hex", hex(true));
        // Without its last characters, which depend on what follows the secret.
        let whole = secret.len() / 3 * 3;
        for engine in
            [base64::engine::general_purpose::STANDARD, base64::engine::general_purpose::URL_SAFE]
        {
            push(" as base64", engine.encode(&secret[..whole]).into_bytes());
        }
    }

    /// Adds the body of a PEM file: its first base64 lines, which no other file has.
    pub fn add_pem(&mut self, name: &str, pem: &[u8]) {
        for line in pem.split(|b| *b == b'\n').map(<[u8]>::trim_ascii) {
            if line.len() >= 48 && !line.starts_with(b"-----") {
                self.0.push(Needle {
                    name: name.into(),
                    form: " (PEM)",
                    bytes: Zeroizing::new(line.to_vec()),
                });
            }
        }
        self.add(name, pem);
    }
}

impl Needles {
    /// Calls `found` for the first place of each needle. One pass for all of them, because
    /// partitions are large and needles many: a needle is compared only where its first two bytes
    /// are found.
    fn places(&self, bytes: &[u8], mut found: impl FnMut(usize, &Needle)) {
        let head = |bytes: &[u8]| {
            bytes.first_chunk().map_or(0, |pair| usize::from(u16::from_le_bytes(*pair)))
        };
        let mut starts = vec![false; 1 << 16];
        self.0.iter().for_each(|needle| starts[head(&needle.bytes)] = true);
        let mut left: Vec<&Needle> = self.0.iter().collect();
        for (at, pair) in bytes.windows(2).enumerate() {
            if starts[head(pair)] {
                let rest = bytes.get(at..).unwrap_or_default();
                left.retain(|needle| {
                    let is_here = rest.starts_with(&needle.bytes);
                    if is_here {
                        found(at, needle);
                    }
                    !is_here
                });
            }
        }
    }
}

/// How much of a file is searched at once, and how much of it again with what follows: more than
/// any needle or shape is long.
const WINDOW: u64 = 16 << 20;
const OVERLAP: u64 = 64 << 10;

/// Searches a file, such as a partition's image. Its holes are zeros and hold no secret.
pub fn scan_file(path: &Path, needles: &Needles) -> Result<Vec<Finding>, WorkError> {
    let fail = || WorkError::io("read", path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let file = File::open(path).map_err(fail())?;
    let mut findings = Vec::new();
    let mut window = Zeroizing::new(Vec::new());
    for extent in sparse::extents(&file).map_err(fail())? {
        let mut start = extent.start;
        loop {
            let end = extent.end.min(start + WINDOW + OVERLAP);
            window.resize((end - start) as usize, 0);
            file.read_exact_at(&mut window, start).map_err(fail())?;
            findings.extend(scan_from(&name, start, &window, needles));
            if end == extent.end {
                break;
            }
            start += WINDOW;
        }
    }
    Ok(findings)
}

/// Searches a file of programs: as [`scan_file`], but without the shapes of DER keys. Programs
/// carry PKCS #8 templates (ring has some) and published test vectors (the kernel has one), which
/// are not secrets.
pub fn scan_programs(path: &Path, needles: &Needles) -> Result<Vec<Finding>, WorkError> {
    Ok(without_der(scan_file(path, needles)?))
}

/// Searches a program's bytes, by the rules of [`scan_programs`].
pub fn scan_program_bytes(name: &str, bytes: &[u8], needles: &Needles) -> Vec<Finding> {
    without_der(scan_bytes(name, bytes, needles))
}

fn without_der(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.retain(|finding| finding.what != DER_KEY);
    findings
}

/// Searches bytes; `name` says what they are.
fn scan_bytes(name: &str, bytes: &[u8], needles: &Needles) -> Vec<Finding> {
    scan_from(name, 0, bytes, needles)
}

/// Searches bytes that begin at the offset `start` of `name`.
fn scan_from(name: &str, start: u64, bytes: &[u8], needles: &Needles) -> Vec<Finding> {
    let finding = |at: usize, what: String| Finding {
        place: format!("{name} at byte {}", start + at as u64),
        what,
    };
    let mut findings = Vec::new();
    needles.places(bytes, |at, needle| {
        findings.push(finding(at, format!("{}{}", needle.name, needle.form)))
    });
    for (at, what) in key_shapes(bytes) {
        findings.push(finding(at, what.into()));
    }
    findings
}

/// Whether a file is, or holds, a private key.
pub fn holds_private_key(bytes: &[u8]) -> bool {
    key_shapes(bytes).next().is_some()
}

/// Where `needle` begins in `bytes`.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, rest) = needle.split_first()?;
    let mut from = 0;
    loop {
        let at = from + bytes.get(from..)?.iter().position(|b| b == first)?;
        if bytes.get(at + 1..)?.starts_with(rest) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// How a private key begins: a first byte to look for, and a test of the bytes from there.
type Shape = (u8, &'static str, fn(&[u8]) -> bool);

const DER_KEY: &str = "a private key (DER)";
const SHAPES: [Shape; 3] = [
    (b'-', "a private key (PEM)", is_pem_key),
    (b'A', "an age secret key", is_age_key),
    (0x30, DER_KEY, is_der_key),
];

fn key_shapes(bytes: &[u8]) -> impl Iterator<Item = (usize, &'static str)> {
    bytes.iter().enumerate().filter_map(|(at, byte)| {
        let (_, what, is) = SHAPES.iter().find(|(first, ..)| first == byte)?;
        let rest = bytes.get(at..)?;
        is(rest).then_some((at, *what))
    })
}

/// `-----BEGIN … PRIVATE KEY-----`, followed by a line of base64 (or of a header): programs that
/// read PEM have the words without the line.
fn is_pem_key(bytes: &[u8]) -> bool {
    let Some(rest) = bytes.strip_prefix(b"-----BEGIN ") else { return false };
    let head = rest.get(..48).unwrap_or(rest);
    let Some(end) = find(head, b"PRIVATE KEY-----") else { return false };
    let label_is_plain =
        rest.iter().take(end).all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b' ');
    let body = rest.get(end + b"PRIVATE KEY-----".len()..).unwrap_or_default().trim_ascii_start();
    let like_base64 =
        body.iter().take(32).filter(|b| b.is_ascii_alphanumeric() || b"+/=".contains(b)).count();
    label_is_plain && (like_base64 >= 32 || body.starts_with(b"Proc-Type:"))
}

/// `AGE-SECRET-KEY-1` and 58 characters of Bech32.
fn is_age_key(bytes: &[u8]) -> bool {
    let Some(rest) = bytes.strip_prefix(b"AGE-SECRET-KEY-1") else { return false };
    rest.len() >= 58 && rest.iter().take(58).all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// PKCS #8 (RFC 5208) of RSA, EC, Ed25519 and X25519 keys; PKCS #1 (RFC 8017) and SEC 1 (RFC 5915).
fn is_der_key(bytes: &[u8]) -> bool {
    let content = match bytes {
        [0x30, 0x82, _, _, rest @ ..] | [0x30, 0x81, _, rest @ ..] => rest,
        [0x30, length, rest @ ..] if *length < 0x80 => rest,
        _ => return false,
    };
    const PKCS8: [&[u8]; 3] = [
        // rsaEncryption, NULL, OCTET STRING.
        b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x04",
        // id-ecPublicKey and its curve.
        b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06",
        // The same with a curve of SECG.
        b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04",
    ];
    if let Some(rest) =
        content.strip_prefix(b"\x02\x01\x00").or_else(|| content.strip_prefix(b"\x02\x01\x01"))
    {
        let edwards = rest.starts_with(b"\x30\x05\x06\x03\x2b\x65")
            && rest.get(6).is_some_and(|b| (0x6e..=0x71).contains(b));
        let octets = rest.get(7..11) == Some(b"\x04\x22\x04\x20");
        // PKCS #1: version 0, then the modulus, 256 bytes or more, with its leading zero.
        let rsa = rest.starts_with(b"\x02\x82")
            && rest.get(4) == Some(&0)
            && rest.get(5).is_some_and(|b| *b >= 0x80);
        // SEC 1: version 1, then the scalar, then the curve or the public key.
        let sec1 = rest.starts_with(b"\x04\x20") && matches!(rest.get(34), Some(0xa0 | 0xa1));
        return (edwards && octets)
            || rsa
            || sec1
            || PKCS8.iter().any(|head| rest.starts_with(head));
    }
    false
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{fs, process::Command};

    use super::*;
    use crate::tree;

    /// Searches every file below a folder.
    pub(crate) fn scan_tree(folder: &Path, needles: &Needles) -> Vec<Finding> {
        let mut findings = Vec::new();
        tree::walk(folder, &mut |path, metadata| {
            if metadata.is_file() {
                let name = path.strip_prefix(folder).unwrap_or(path).to_string_lossy();
                findings.extend(scan_bytes(&name, &fs::read(path).unwrap(), needles));
            }
            Ok(())
        })
        .unwrap();
        findings
    }

    fn openssl(arguments: &[&str], input: Option<&Path>) -> Vec<u8> {
        let mut command = Command::new("openssl");
        command.args(arguments);
        if let Some(input) = input {
            command.arg("-in").arg(input);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Private keys as OpenSSL writes them, by name.
    fn keys() -> Vec<(String, Vec<u8>)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let mut keys = Vec::new();
        for (name, arguments) in [
            ("rsa", vec!["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
            ("p256", vec!["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
            ("ed25519", vec!["-algorithm", "ED25519"]),
            ("x25519", vec!["-algorithm", "X25519"]),
        ] {
            let pem = openssl(&[&["genpkey"], arguments.as_slice()].concat(), None);
            fs::write(&path, &pem).unwrap();
            keys.push((format!("{name} pkcs8 pem"), pem));
            keys.push((
                format!("{name} pkcs8 der"),
                openssl(&["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"], Some(&path)),
            ));
            if let "rsa" | "p256" = name {
                keys.push((
                    format!("{name} old pem"),
                    openssl(&["pkey", "-traditional"], Some(&path)),
                ));
                keys.push((
                    format!("{name} old der"),
                    openssl(&["pkey", "-traditional", "-outform", "DER"], Some(&path)),
                ));
            }
        }
        let age = b"# created by \
            age\nAGE-SECRET-KEY-1QQPQYPQXPQ9QCRSSZG2PVXQ6RS0ZQG3YYC5Z5TPWXQERGD3C8G7RUSQ0M3K2\n";
        keys.push(("age".into(), age.to_vec()));
        keys
    }

    #[test]
    fn every_form_of_private_key_is_found_wherever_it_lies() {
        for (name, key) in keys() {
            let mut bytes = vec![0x30; 4097];
            bytes.extend_from_slice(&key);
            bytes.extend_from_slice(&[0; 100]);
            let findings = scan_bytes("x", &bytes, &Needles::default());
            assert!(!findings.is_empty(), "{name}");
            assert!(holds_private_key(&key), "{name}");
        }
    }

    #[test]
    fn a_secret_of_this_build_is_found_raw_as_hex_and_as_base64() {
        let secret: Vec<u8> = (0..32_u8).map(|i| i.wrapping_mul(37) ^ 0x5a).collect();
        let mut needles = Needles::default();
        needles.add("system key", &secret);
        let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        let base64 = base64::engine::general_purpose::STANDARD.encode(&secret);
        for text in [
            secret.clone(),
            hex.clone().into_bytes(),
            hex.to_uppercase().into_bytes(),
            base64.into_bytes(),
        ] {
            let findings =
                scan_bytes("p4", &[b"lead ".as_slice(), &text, b" tail"].concat(), &needles);
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert!(
                findings[0].what.starts_with("system key") && findings[0].place == "p4 at byte 5"
            );
            assert!(
                !format!("{findings:?}").contains(&hex),
                "a finding does not repeat the secret"
            );
        }
        assert!(scan_bytes("p4", &secret[1..], &needles).is_empty());
    }

    #[test]
    fn a_secret_across_two_windows_is_found_and_holes_cost_nothing() {
        let secret: Vec<u8> = (1..33).collect();
        let mut needles = Needles::default();
        needles.add("system key", &secret);
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        file.as_file().write_all_at(&vec![7; WINDOW as usize + 100], 1 << 30).unwrap();
        let at = (1 << 30) + WINDOW - 10;
        file.as_file().write_all_at(&secret, at).unwrap();
        let findings = scan_file(file.path(), &needles).unwrap();
        assert!(findings[0].place.ends_with(&format!(" at byte {at}")), "{findings:?}");
    }

    #[test]
    fn certificates_public_keys_and_programs_are_not_findings() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        fs::write(&key, openssl(&["genpkey", "-algorithm", "ED25519"], None)).unwrap();
        let public = openssl(&["pkey", "-pubout"], Some(&key));
        let certificate = openssl(
            &["req", "-x509", "-subj", "/CN=x", "-key", key.to_str().unwrap(), "-outform", "DER"],
            None,
        );
        let words =
            b"-----BEGIN PRIVATE KEY-----\0-----END PRIVATE KEY-----\0AGE-SECRET-KEY-1\0".to_vec();
        for clean in [public, certificate, words, fs::read("/usr/bin/bash").unwrap()] {
            assert_eq!(scan_bytes("x", &clean, &Needles::default()), [], "{} bytes", clean.len());
        }
    }
}
