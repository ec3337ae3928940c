//! The certificates that an SNP host hands to its guest beside a report. Whoever collects, verifies
//! or serves that table uses this reader.

use crate::{AttestError, tpm::Reader};

/// The longest table that Linux hands over (`SEV_FW_BLOB_MAX_SIZE`), in bytes.
pub const MAX_TABLE_BYTES: usize = 16 * 1024;
/// A table entry: GUID, offset, length.
const ENTRY_BYTES: usize = 24;
/// The most entries that are read.
const MAX_ENTRIES: usize = 16;

/// GHCB specification 2.03, §4.1.8.1.
const KNOWN: [(u128, CertificateKind); 5] = [
    (0x63da758d_e664_4564_adc5_f4b93be8accd, CertificateKind::Vcek),
    (0xa8074bc2_a25a_483e_aae6_39c045a0b8a1, CertificateKind::Vlek),
    (0x4ab7b379_bbac_4fe4_a02f_05aef327c782, CertificateKind::Ask),
    (0xc0b406a4_a803_4952_9743_3fb6014cd0ae, CertificateKind::Ark),
    (0x92f81bc3_5811_4d3d_97ff_d19f88dc67ea, CertificateKind::Crl),
];

/// Which certificate the host says it is (by GUID).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateKind {
    /// The chip's.
    Vcek,
    /// The cloud provider's.
    Vlek,
    /// AMD's intermediate.
    Ask,
    /// AMD's root.
    Ark,
    /// The list of what AMD revoked.
    Crl,
    /// Something else.
    Other([u8; 16]),
}

/// A certificate from the host: unverified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpCertificate {
    /// What the host calls it.
    pub kind: CertificateKind,
    /// Mostly DER, sometimes PEM.
    pub bytes: Vec<u8>,
}

/// Reads a certificate table: entries up to one of zeros, then the certificates. Zeros alone are an
/// empty table.
///
/// # Errors
/// [`AttestError::Malformed`] for an entry that points outside.
pub fn parse_certificate_table(table: &[u8]) -> Result<Vec<SnpCertificate>, AttestError> {
    let fail = |problem: String| AttestError::malformed("certificate table", problem);
    if table.len() > MAX_TABLE_BYTES {
        return Err(fail(format!("{} bytes, at most {MAX_TABLE_BYTES} allowed", table.len())));
    }
    let mut found = Vec::new();
    for entry in table.chunks_exact(ENTRY_BYTES) {
        if entry.iter().all(|byte| *byte == 0) {
            return Ok(found);
        }
        if found.len() == MAX_ENTRIES {
            return Err(fail(format!("more than {MAX_ENTRIES} entries")));
        }
        let mut r = Reader::new("certificate table", entry);
        let (guid, offset, length) = (r.array()?, r.u32_le()? as usize, r.u32_le()? as usize);
        let bytes = Reader::at("certificate table", table, offset)
            .take(length)
            .map_err(|_| fail(format!("{length} bytes at {offset} lie outside")))?;
        found.push(SnpCertificate { kind: kind(guid), bytes: bytes.to_vec() });
    }
    if table.is_empty() { Ok(found) } else { Err(fail("no end".into())) }
}

/// Writes what [`parse_certificate_table`] reads.
pub fn certificate_table(certificates: &[SnpCertificate]) -> Vec<u8> {
    let mut offset = (certificates.len() + 1) * ENTRY_BYTES;
    let mut table = Vec::new();
    for certificate in certificates {
        let known = KNOWN
            .iter()
            .find(|(_, kind)| *kind == certificate.kind)
            .map(|(guid, _)| guid.to_be_bytes());
        let guid = match certificate.kind {
            CertificateKind::Other(guid) => guid,
            _ => known.unwrap_or_default(),
        };
        table.extend_from_slice(&guid);
        table.extend_from_slice(&(offset as u32).to_le_bytes());
        table.extend_from_slice(&(certificate.bytes.len() as u32).to_le_bytes());
        offset += certificate.bytes.len();
    }
    table.resize(table.len() + ENTRY_BYTES, 0);
    certificates.iter().for_each(|certificate| table.extend_from_slice(&certificate.bytes));
    table
}

/// GUIDs as they lie in memory: big-endian (RFC 4122 §4.1.2), or the first three groups
/// little-endian, as UEFI writes them. Hosts write both, and the GHCB specification does not say
/// which.
fn kind(guid: [u8; 16]) -> CertificateKind {
    let [a, b, c, d, e, f, g, h, rest @ ..] = guid;
    let [i, j, k, l, m, n, o, p] = rest;
    let swapped = u128::from_be_bytes([d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]);
    let plain = u128::from_be_bytes(guid);
    let known = KNOWN.iter().find(|(known, _)| *known == plain || *known == swapped);
    known.map_or(CertificateKind::Other(guid), |(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VCEK: [u8; 16] = [
        0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac,
        0xcd,
    ];

    fn table(entries: &[([u8; 16], u32, u32)], length: usize) -> Vec<u8> {
        let mut table = Vec::new();
        for (guid, offset, length) in entries {
            table.extend([&guid[..], &offset.to_le_bytes(), &length.to_le_bytes()].concat());
        }
        table.resize(length, 0);
        table
    }

    #[test]
    fn tables_of_hosts() {
        let mut bytes = table(&[(VCEK, 100, 3), ([9; 16], 103, 1)], 4096);
        bytes[100..104].copy_from_slice(b"abcd");
        let found = parse_certificate_table(&bytes).unwrap();
        assert_eq!(
            found[0],
            SnpCertificate { kind: CertificateKind::Vcek, bytes: b"abc".to_vec() }
        );
        assert_eq!(
            found[1],
            SnpCertificate { kind: CertificateKind::Other([9; 16]), bytes: b"d".to_vec() }
        );
        let mut microsoft = VCEK;
        microsoft[..4].reverse();
        microsoft[4..6].reverse();
        microsoft[6..8].reverse();
        let found = parse_certificate_table(&table(&[(microsoft, 60, 1)], 96)).unwrap();
        assert_eq!(found[0].kind, CertificateKind::Vcek);
        for empty in [&[][..], &[0; 24], &[0; 4096]] {
            assert_eq!(parse_certificate_table(empty).unwrap(), []);
        }
    }

    #[test]
    fn attack_tables_that_point_outside() {
        for (offset, length) in [(4096, 1), (0, 4097), (u32::MAX, u32::MAX), (4095, 2)] {
            assert!(
                parse_certificate_table(&table(&[(VCEK, offset, length)], 4096)).is_err(),
                "{offset} {length}"
            );
        }
        assert!(parse_certificate_table(&table(&[(VCEK, 0, 1); 17], 4096)).is_err());
        assert!(parse_certificate_table(&table(&[(VCEK, 0, 1)], 24)).is_err(), "no end");
        assert!(parse_certificate_table(&[1; 20_000]).is_err());
    }
}
