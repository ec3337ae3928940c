//! Forms of reports, tables and certificates.

use cvm_base::Explain;
use cvm_verify::snp::{REPORT_BYTES, SnpError, SnpEvidence, SnpReport, SnpRoots};

use super::{
    NOW, check, evidence,
    mint::{pem, report, vcek},
    repository, vector,
};

#[test]
fn lengths() {
    let bytes = vector("milan-virtee/report.bin");
    SnpReport::parse(&bytes).unwrap();
    for bad in [
        &bytes[..0],
        &bytes[..REPORT_BYTES - 1],
        &[&bytes[..], &[0]].concat(),
        &[&bytes[..], &bytes].concat(),
    ] {
        assert!(matches!(SnpReport::parse(bad), Err(SnpError::Malformed { .. })), "{}", bad.len());
    }
}

/// constellation's report.raw is a report with the header of Azure's runtime data after it.
#[test]
fn azures_header_and_no_other_tail() {
    let raw = vector("constellation-azure/report.raw");
    let plain = SnpReport::parse(&vector("constellation-azure/report.bin")).unwrap();
    assert_eq!(SnpReport::parse(&raw).unwrap(), plain);
    // Length, version, type and hash each must fit.
    for at in [0, 4, 8, 12, 16] {
        let mut bytes = raw.clone();
        bytes[REPORT_BYTES + at] ^= 0x40;
        assert!(SnpReport::parse(&bytes).is_err(), "{at}");
    }
}

#[test]
fn versions() {
    for version in [0, 1, 6, 7, 0x0200_0000, u32::MAX] {
        let mut bytes = vector("milan-virtee/report.bin");
        bytes[..4].copy_from_slice(&version.to_le_bytes());
        let refused = SnpReport::parse(&bytes).unwrap_err();
        assert_eq!((refused.code(), &refused), ("ATT-301", &SnpError::Version { found: version }));
    }
}

/// Firmware that is newer than this program sets what the ABI reserved; the chip signs it all the
/// same.
#[test]
fn what_the_abi_reserves_is_read_and_named() {
    // CPUID from version 3, mitigation vectors from version 5.
    for (at, since) in [
        (0x188, 3),
        (0x18a, 3),
        (0x18b, 9),
        (0x19f, 9),
        (0x1f8, 5),
        (0x207, 5),
        (0x208, 9),
        (0x29f, 9),
    ] {
        for version in 2..=5 {
            let mut bytes = report(version, [0; 3], &vcek("Milan"));
            bytes[at] = 0x19;
            let named = SnpReport::parse(&bytes).unwrap().unknown;
            assert_eq!(
                named.is_empty(),
                version >= since,
                "{at:#x} in version {version}: {named:?}"
            );
        }
    }
    for version in 2..=5 {
        for (at, bit, name) in [
            (0x40, 6, "PLATFORM_INFO bit 6"),
            (0x41, 0, "PLATFORM_INFO bit 8"),
            (0x47, 7, "PLATFORM_INFO bit 63"),
            (0x48, 5, "KEY_INFO bit 5"),
            (0x4b, 7, "KEY_INFO bit 31"),
            (0x4c, 0, "byte 0x4c"),
            (0x1eb, 0, "byte 0x1eb"),
            (0x1ef, 0, "byte 0x1ef"),
        ] {
            let mut bytes = report(version, [0; 3], &vcek("Milan"));
            bytes[at] |= 1 << bit;
            assert_eq!(SnpReport::parse(&bytes).unwrap().unknown, [name], "version {version}");
        }
        for (at, bit) in [
            (0x48, 3), // SIGNING_KEY 2 and 4
            (0x48, 4),
            (0x30, 2),       // VMPL 4
            (0x34, 1),       // signature algorithm 3
            (0x2a0 + 48, 0), // the signature, which nothing signs
            (0x2a0 + 143, 0),
            (0x2a0 + 144, 0),
            (0x49f, 7),
        ] {
            let mut bytes = report(version, [0; 3], &vcek("Milan"));
            SnpReport::parse(&bytes).unwrap();
            bytes[at] |= 1 << bit;
            let refused = SnpReport::parse(&bytes).unwrap_err();
            assert_eq!(
                refused.code(),
                "ATT-300",
                "{at:#x} bit {bit} in version {version}: {refused}"
            );
        }
    }
}

#[test]
fn attack_a_report_that_the_host_asked_for_or_that_is_not_signed() {
    let mut bytes = report(3, [0; 3], &vcek("Milan"));
    bytes[0x30..0x34].fill(0xff);
    assert!(SnpReport::parse(&bytes).unwrap_err().to_string().contains("the host asked"));
    let mut bytes = report(3, [0; 3], &vcek("Milan"));
    bytes[0x48] = 7 << 2;
    assert!(SnpReport::parse(&bytes).unwrap_err().to_string().contains("not signed"));
}

/// GUID, offset, length; then the contents.
fn table(entries: &[(&str, &[u8])], end: bool) -> Vec<u8> {
    let mut offset = 24 * (entries.len() + usize::from(end));
    let mut table = Vec::new();
    for (guid, content) in entries {
        table.extend(hex::decode(guid).unwrap());
        table.extend((offset as u32).to_le_bytes());
        table.extend((content.len() as u32).to_le_bytes());
        offset += content.len();
    }
    table.resize(table.len() + if end { 24 } else { 0 }, 0);
    entries.iter().for_each(|(_, content)| table.extend(*content));
    table
}

const VCEK: &str = "8d75da6364e66445adc5f4b93be8accd";
const VLEK: &str = "c24b07a85aa23e48aae639c045a0b8a1";
const ASK: &str = "79b3b74aacbbe44fa02f05aef327c782";
const ARK: &str = "a406b4c003a8524997433fb6014cd0ae";
const OTHER: &str = "00112233445566778899aabbccddeeff";

#[test]
fn certificate_tables() {
    let report = vector("milan-virtee/report.bin");
    let leaf = vector("milan-virtee/vcek.der");
    let authority = super::certificates(&repository("keys/roots/amd/ask_ark_milan.pem"));
    let (ask, ark) = (authority[0].der(), authority[1].der());
    let padded = |mut table: Vec<u8>| {
        table.resize(16 * 1024, 0);
        table
    };
    for good in [
        table(&[(VCEK, &leaf)], true),
        table(&[(ARK, ark), (VCEK, &leaf), (ASK, ask)], true),
        table(&[(OTHER, b"no certificate"), (ASK, ask), (VCEK, &leaf)], true),
        table(&[(VCEK, pem(&[&leaf]).as_bytes())], true),
        padded(table(&[(VCEK, &leaf), (ASK, ask), (ARK, ark)], true)),
    ] {
        check(&SnpEvidence::from_extended(&report, &good).unwrap(), NOW).unwrap();
    }
    let vlek = vector("trustee-vlek/vlek.der");
    let cloud = table(&[(VLEK, &vlek)], true);
    check(&SnpEvidence::from_extended(&vector("trustee-vlek/report.bin"), &cloud).unwrap(), NOW)
        .unwrap();

    let mut trailing = table(&[(VCEK, &leaf)], true);
    trailing.pop();
    let mut far = table(&[(VCEK, &leaf)], true);
    far[16..20].fill(0xff);
    let mut long = table(&[(VCEK, &leaf)], true);
    long[20..24].fill(0xff);
    let garbage = table(&[(VCEK, b"no certificate")], true);
    let unended = table(&[(VCEK, b"")], false);
    let many = vec![(OTHER, b"".as_slice()); 40];
    for bad in [trailing, far, long, garbage, unended, table(&many, true), vec![0; 65 * 1024]] {
        assert!(SnpEvidence::from_extended(&report, &bad).is_err());
    }
    // An empty table is a table; the VCEK must then come from elsewhere.
    for empty in [&[0; 24][..], &[]] {
        let empty = SnpEvidence::from_extended(&report, empty).unwrap();
        assert!(matches!(check(&empty, NOW), Err(SnpError::Certificates { .. })));
    }
}

#[test]
fn roots() {
    for bad in [b"".as_slice(), b"no PEM", &vector("milan-virtee/vcek.der")] {
        assert!(SnpRoots::from_pem(bad).is_err());
    }
    // What is embedded is what is in keys/roots.
    let milan = SnpRoots::from_pem(&repository("keys/roots/amd/ask_ark_milan.pem")).unwrap();
    let evidence = evidence("milan-virtee");
    cvm_verify::snp::verify(&evidence, &milan, &[], &Default::default(), NOW).unwrap();
    let genoa = SnpRoots::from_pem(&repository("keys/roots/amd/ask_ark_genoa.pem")).unwrap();
    assert!(cvm_verify::snp::verify(&evidence, &genoa, &[], &Default::default(), NOW).is_err());
}
