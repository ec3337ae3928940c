//! Attacks on the guard. Unless a test says otherwise the attacker knows the MAC key and mends
//! every checksum, so that only the whitelist can refuse the header.

use std::fs;

use cvm_base::Explain;
use cvm_seal::{
    HEADER_BYTES, MacKey,
    guard::{self, Expected, GuardError, Protection, binary, record},
};

const COPY: usize = 16 * 1024;
const JSON: usize = 4096;
const BOTH: [Protection; 2] = [Protection::Encrypted, Protection::Authenticated];

fn key() -> MacKey {
    MacKey::new(&[8; 32])
}

/// A header area that libcryptsetup made, without its keyslots; sealed with [`key`].
fn header(protection: Protection) -> Vec<u8> {
    let name = match protection {
        Protection::Encrypted => "encrypted",
        Protection::Authenticated => "authenticated",
    };
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/guard");
    let mut bytes = fs::read(format!("{seeds}/{name}.bin")).unwrap();
    bytes.resize(HEADER_BYTES, 0);
    sealed(bytes)
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    binary::mend(&mut bytes);
    record::write(&mut bytes, &key()).unwrap();
    bytes
}

fn check(bytes: &[u8], protection: Protection) -> Result<(), GuardError> {
    guard::check(bytes, &Expected::new(protection), &key()).map(|header| {
        assert_eq!(header.as_bytes(), bytes);
        assert_eq!(header.digest(), cvm_base::sha256(bytes));
    })
}

fn json(bytes: &[u8]) -> String {
    let text = &bytes[JSON..COPY];
    let end = text.iter().position(|b| *b == 0).unwrap();
    String::from_utf8(text[..end].to_vec()).unwrap()
}

/// The same JSON in the copies named, everything mended.
fn with_json(protection: Protection, text: &[u8], copies: &[usize]) -> Vec<u8> {
    let mut bytes = header(protection);
    for copy in copies {
        let area = &mut bytes[copy * COPY + JSON..(copy + 1) * COPY];
        area.fill(0);
        area[..text.len()].copy_from_slice(text);
    }
    sealed(bytes)
}

/// Replaces text in the JSON and wants a refusal with this code.
fn refuses(protection: Protection, from: &str, to: &str, code: &str) {
    let before = json(&header(protection));
    let after = before.replace(from, to);
    assert_ne!(before, after, "{from} is not in the header");
    let error = check(&with_json(protection, after.as_bytes(), &[0, 1]), protection).expect_err(to);
    assert_eq!(error.code(), code, "{from} -> {to}: {error}");
}

#[test]
fn our_headers_pass_and_only_as_what_they_are() {
    check(&header(Protection::Encrypted), Protection::Encrypted).unwrap();
    check(&header(Protection::Authenticated), Protection::Authenticated).unwrap();
    assert!(check(&header(Protection::Encrypted), Protection::Authenticated).is_err());
    assert!(check(&header(Protection::Authenticated), Protection::Encrypted).is_err());
}

#[test]
fn null_cipher_cve_2025_59054() {
    for protection in BOTH {
        for null in ["cipher_null-ecb", "cipher_null", "aes-ecb", "aes-cbc-null", ""] {
            let segment = format!("\"encryption\":\"{null}\",\"sector_size\"");
            refuses(
                protection,
                "\"encryption\":\"aes-xts-plain64\",\"sector_size\"",
                &segment,
                "SEAL-104",
            );
            let keyslot = format!("\"encryption\":\"{null}\",\"key_size\"");
            refuses(
                protection,
                "\"encryption\":\"aes-xts-plain64\",\"key_size\"",
                &keyslot,
                "SEAL-104",
            );
        }
    }
}

#[test]
fn header_of_another_key_cve_2025_58356() {
    for protection in BOTH {
        let mut bytes = header(protection);
        record::write(&mut bytes, &MacKey::new(&[9; 32])).unwrap();
        assert_eq!(check(&bytes, protection), Err(GuardError::Mac));
    }
}

#[test]
fn weakened_or_costly_parameters() {
    for protection in BOTH {
        for number in ["0", "1", "999", "1001", "4294967295"] {
            refuses(
                protection,
                "\"iterations\":1000",
                &format!("\"iterations\":{number}"),
                "SEAL-104",
            );
            refuses(protection, "\"stripes\":4000", &format!("\"stripes\":{number}"), "SEAL-104");
        }
        for number in ["-1", "1e9", "4294967296", "\"1000\"", "null", "{}"] {
            refuses(
                protection,
                "\"iterations\":1000",
                &format!("\"iterations\":{number}"),
                "SEAL-103",
            );
        }
        for (from, to) in [
            ("sha256", "sha1"),
            ("pbkdf2", "argon2id"),
            ("\"sector_size\":4096", "\"sector_size\":512"),
            ("\"type\":\"luks2\"", "\"type\":\"reencrypt\""),
            ("\"type\":\"crypt\"", "\"type\":\"linear\""),
            ("\"size\":\"dynamic\"", "\"size\":\"4096\""),
            ("\"iv_tweak\":\"0\"", "\"iv_tweak\":\"8\""),
            ("\"offset\":\"1048576\"", "\"offset\":\"0\""),
            ("\"offset\":\"1048576\"", "\"offset\":\"2097152\""),
            ("\"offset\":\"1048576\"", "\"offset\":\"01048576\""),
            ("\"offset\":\"32768\"", "\"offset\":\"36864\""),
            ("\"keyslots\":[\"0\"]", "\"keyslots\":[]"),
            ("\"segments\":[\"0\"]", "\"segments\":[\"0\",\"0\"]"),
            ("\"json_size\":\"12288\"", "\"json_size\":\"12284\""),
            ("\"keyslots_size\":\"983040\"", "\"keyslots_size\":\"1015808\""),
            ("\"salt\":\"", "\"salt\":\"AA"),
            ("\"digest\":\"", "\"digest\":\"="),
        ] {
            refuses(protection, from, to, "SEAL-104");
        }
    }
}

#[test]
fn additions_are_refused() {
    for protection in BOTH {
        let text = json(&header(protection));
        let keyslot =
            &text[text.find("{\"type\":\"luks2\"").unwrap()..text.find(",\"tokens\"").unwrap() - 1];
        for (from, to) in [
            ("\"keyslots\":{\"0\":", format!("\"keyslots\":{{\"1\":{keyslot},\"0\":")),
            ("\"keyslots\":{\"0\":", format!("\"keyslots\":{{\"0\":{keyslot},\"0\":")),
            ("\"keyslots\":{\"0\":", "\"keyslots\":{\"1\":".into()),
            (
                "\"tokens\":{}",
                "\"tokens\":{\"0\":{\"type\":\"luks2-keyring\",\"keyslots\":[\"0\"]}}".into(),
            ),
            ("\"tokens\":{}", "\"tokens\":{},\"tokens\":{}".into()),
            ("\"segments\":{\"0\":", "\"segments\":{\"1\":{},\"0\":".into()),
            ("\"digests\":{\"0\":", "\"digests\":{\"1\":{},\"0\":".into()),
            ("\"config\":{", "\"config\":{\"flags\":[\"allow-discards\"],".into()),
            (
                "\"config\":{",
                "\"config\":{\"requirements\":{\"mandatory\":[\"online-reencrypt-v2\"]},".into(),
            ),
            ("\"type\":\"crypt\"", "\"type\":\"crypt\",\"flags\":[\"backup-final\"]".into()),
            ("\"type\":\"luks2\"", "\"type\":\"luks2\",\"priority\":2".into()),
            ("\"type\":\"raw\"", "\"type\":\"raw\",\"shift_size\":\"0\"".into()),
            ("\"stripes\"", "\"x\":0,\"stripes\"".into()),
            ("{\"keyslots\"", "{\"\":0,\"keyslots\"".into()),
        ] {
            refuses(protection, from, &to, "SEAL-103");
        }
    }
}

#[test]
fn integrity_removed_or_changed() {
    let authenticated = Protection::Authenticated;
    let member = concat!(
        r#""integrity":{"type":"hmac(sha256)","#,
        r#""journal_encryption":"none","journal_integrity":"none"}"#
    );
    refuses(authenticated, &format!(",{member}"), "", "SEAL-104");
    refuses(authenticated, "hmac(sha256)", "none", "SEAL-104");
    refuses(authenticated, "hmac(sha256)", "poly1305", "SEAL-104");
    refuses(
        authenticated,
        "\"journal_integrity\":\"none\"",
        "\"journal_integrity\":\"crc32\"",
        "SEAL-104",
    );
    refuses(
        Protection::Encrypted,
        "\"sector_size\":4096",
        &format!("\"sector_size\":4096,{member}"),
        "SEAL-104",
    );
}

#[test]
fn the_second_copy_tells_another_story() {
    for protection in BOTH {
        // Each copy is valid by itself: libcryptsetup would take the one with the higher sequence
        // number.
        let other = json(&header(protection)).replace("\"salt\":\"", "\"salt\": \"");
        for copy in [0, 1] {
            let error =
                check(&with_json(protection, other.as_bytes(), &[copy]), protection).unwrap_err();
            assert_eq!(error, GuardError::Binary { what: "two copies differ" });
        }
        for (offset, value) in [(23, 9), (168, b'0')] {
            let mut bytes = header(protection);
            bytes[COPY + offset] = if bytes[COPY + offset] == value { b'1' } else { value };
            let error = check(&sealed(bytes), protection).unwrap_err();
            assert_eq!(error, GuardError::Binary { what: "two copies differ" });
        }
    }
}

#[test]
fn hostile_binary_headers() {
    // Version, length of a copy, sequence number, label, checksum algorithm, UUID, subsystem,
    // offset, padding.
    for (offset, value) in [
        (0, b'S'),
        (7, 1),
        (8, 0xff),
        (14, 0x80),
        (16, 1),
        (24, b'x'),
        (72, b'S'),
        (79, b'2'),
        (168, 0xff),
        (205, 1),
        (208, 1),
        (263, 1),
        (264, 1),
        (448 + 32, 1),
        (512, 1),
    ] {
        let mut bytes = header(Protection::Encrypted);
        for copy in [0, COPY] {
            bytes[copy + offset] = value;
        }
        let error = check(&sealed(bytes), Protection::Encrypted).unwrap_err();
        assert_eq!(error.code(), "SEAL-102", "offset {offset}: {error}");
    }
}

#[test]
fn flipped_bits() {
    // A vandal: no checksum is mended, no MAC renewed.
    let mut bytes = header(Protection::Authenticated);
    let everywhere = (0..2 * COPY)
        .chain((2 * COPY..HEADER_BYTES).step_by(9973))
        .chain(HEADER_BYTES - 8192..HEADER_BYTES);
    for at in everywhere.step_by(7) {
        bytes[at] ^= 1 << (at % 8);
        assert!(check(&bytes, Protection::Authenticated).is_err(), "byte {at}");
        // The checksums are not secret.
        let mut mended = bytes.clone();
        if at < 2 * COPY && at % 5 == 0 {
            binary::mend(&mut mended);
            let is_checksum = (448..480).contains(&(at % COPY));
            assert!(
                check(&mended, Protection::Authenticated).is_err() || is_checksum,
                "byte {at}, mended"
            );
        }
        bytes[at] ^= 1 << (at % 8);
    }
    check(&bytes, Protection::Authenticated).unwrap();
}

#[test]
fn truncated_blank_and_unfinished() {
    let whole = header(Protection::Encrypted);
    for length in [0, 1, 4096, COPY, 2 * COPY, HEADER_BYTES - 4096, HEADER_BYTES - 1] {
        assert_eq!(
            check(&whole[..length], Protection::Encrypted),
            Err(GuardError::Length { found: length })
        );
    }
    let longer = [&whole[..], &[0]].concat();
    assert_eq!(
        check(&longer, Protection::Encrypted),
        Err(GuardError::Length { found: HEADER_BYTES + 1 })
    );
    assert_eq!(check(&vec![0; HEADER_BYTES], Protection::Encrypted), Err(GuardError::Blank));

    let mut unfinished = whole.clone();
    unfinished[record::OFFSET..].fill(0);
    assert_eq!(check(&unfinished, Protection::Encrypted), Err(GuardError::NoRecord));
    let mut smuggled = whole;
    smuggled[HEADER_BYTES - 1] = 1;
    assert_eq!(check(&smuggled, Protection::Encrypted), Err(GuardError::Mac));
}

#[test]
fn giant_and_nested_json() {
    let room = COPY - JSON;
    for text in [
        vec![b'['; room],
        vec![b' '; room],
        b"{\"keyslots\":".repeat(room / 12),
        vec![0xff; room],
        vec![b'9'; room],
    ] {
        let error = check(&with_json(Protection::Encrypted, &text, &[0, 1]), Protection::Encrypted)
            .unwrap_err();
        assert_eq!(error.code(), "SEAL-103", "{error}");
        assert!(error.to_string().len() < 300, "the host chooses what the console shows");
    }
    let escape = b"{\"\\u001b[2J\":0}";
    let error = check(&with_json(Protection::Encrypted, escape, &[0, 1]), Protection::Encrypted)
        .unwrap_err();
    assert!(error.to_string().is_ascii() && !error.to_string().contains('\x1b'), "{error}");
    let mut hidden = json(&header(Protection::Encrypted)).into_bytes();
    hidden.extend(b"\0{}");
    let error = check(&with_json(Protection::Encrypted, &hidden, &[0, 1]), Protection::Encrypted)
        .unwrap_err();
    assert_eq!(error.code(), "SEAL-103");
}

#[test]
fn the_fuzz_target_survives_its_seeds_and_their_mutations() {
    for protection in BOTH {
        let seed = header(protection)[..2 * COPY].to_vec();
        assert!(guard::fuzz(&seed), "a seed must pass once mended");
        for n in 0..400_usize {
            let mut bytes = seed.clone();
            let at = (n * 2_654_435_761) % bytes.len();
            match n % 4 {
                0 => bytes[at] = bytes[at].wrapping_add(n as u8),
                1 => bytes.truncate(at),
                2 => bytes.rotate_left(at),
                _ => bytes[JSON + at % 1200] = b"{}[]\",:0-\\"[n % 10],
            }
            guard::fuzz(&bytes);
        }
    }
}
