//! Endorsement certificates: what a path must have, and what breaks it.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

use super::*;

const EK: &[u64] = &[2, 23, 133, 8, 1];
const NOW: u64 = 1_800_000_000;

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// As vendors make them: no subject, a critical directoryName, the EK usage.
fn endorsement() -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(EK.to_vec())];
    // GeneralNames { [4] Name { tpmManufacturer = "id:0" } }
    let name = [
        &[
            0x30, 0x18, 0xa4, 0x16, 0x30, 0x14, 0x31, 0x12, 0x30, 0x10, 0x06, 0x05, 0x67, 0x81,
            0x05, 0x02, 0x01,
        ][..],
        &[0x0c, 0x07],
        b"id:0000",
    ]
    .concat();
    let mut san = CustomExtension::from_oid_content(&[2, 5, 29, 17], name);
    san.set_criticality(true);
    params.custom_extensions.push(san);
    params
}

fn chain(leaf: CertificateParams, issuer: CertificateParams) -> (Vec<u8>, String) {
    let (root_key, issuer_key, leaf_key) = (key(), key(), key());
    let root = authority("root");
    let root_pem = root.clone().self_signed(&root_key).unwrap().pem();
    let issuer_pem =
        issuer.clone().signed_by(&issuer_key, &Issuer::new(root, root_key)).unwrap().pem();
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(issuer, issuer_key)).unwrap();
    (leaf.der().to_vec(), root_pem + &issuer_pem)
}

fn outcome(
    leaf: CertificateParams,
    issuer: CertificateParams,
    now: u64,
) -> Result<Bytes32, AttestError> {
    let (leaf, pem) = chain(leaf, issuer);
    Roots::from_pem(pem.as_bytes()).unwrap().verify_ek(&leaf, now)
}

#[test]
fn an_empty_subject_and_a_critical_directory_name_are_accepted() {
    outcome(endorsement(), authority("issuer"), NOW).unwrap();
}

#[test]
fn a_certificate_for_another_use_is_refused() {
    let mut leaf = endorsement();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert!(matches!(
        outcome(leaf, authority("issuer"), NOW),
        Err(AttestError::EndorsementCertificate { .. })
    ));
    let mut leaf = endorsement();
    leaf.extended_key_usages = vec![];
    assert!(matches!(
        outcome(leaf, authority("issuer"), NOW),
        Err(AttestError::EndorsementCertificate { .. })
    ));
}

#[test]
fn an_issuer_that_is_no_authority_is_refused() {
    let mut issuer = authority("issuer");
    issuer.is_ca = IsCa::ExplicitNoCa;
    assert!(outcome(endorsement(), issuer, NOW).is_err());
}

#[test]
fn an_expired_certificate_or_issuer_is_refused() {
    let mut old = endorsement();
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    assert!(outcome(old, authority("issuer"), NOW).is_err());
    let mut issuer = authority("issuer");
    issuer.not_after = rcgen::date_time_ymd(2020, 1, 1);
    assert!(outcome(endorsement(), issuer, NOW).is_err());
}

#[test]
fn an_unknown_critical_extension_is_refused() {
    let mut leaf = endorsement();
    let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    extension.set_criticality(true);
    leaf.custom_extensions.push(extension);
    assert!(outcome(leaf, authority("issuer"), NOW).is_err());
}

#[test]
fn a_missing_intermediate_is_an_unknown_root() {
    let (leaf, pem) = chain(endorsement(), authority("issuer"));
    let root_only = &pem[..pem.rfind("-----BEGIN").unwrap()];
    let roots = Roots::from_pem(root_only.as_bytes()).unwrap();
    assert_eq!(roots.verify_ek(&leaf, NOW), Err(AttestError::UnknownRoot));
}

#[test]
fn a_revoked_certificate_is_refused() {
    use rcgen::SerialNumber;
    let (root_key, leaf_key) = (key(), key());
    let mut root = authority("root");
    root.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let pem = root.clone().self_signed(&root_key).unwrap().pem();
    let issuer = Issuer::new(root, root_key);
    let mut leaf = endorsement();
    leaf.serial_number = Some(SerialNumber::from(77_u64));
    let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap().der().to_vec();
    let crl = |serial: u64, until: i32| {
        let params = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![rcgen::RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: rcgen::date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&issuer).unwrap().der().to_vec()
    };
    let outcome = |crls: &[Vec<u8>]| {
        Roots::from_pem(pem.as_bytes())
            .unwrap()
            .with_crls(crls)
            .and_then(|roots| roots.verify_ek(&leaf, NOW))
    };
    outcome(&[]).unwrap();
    outcome(&[crl(78, 2030)]).unwrap();
    assert!(matches!(outcome(&[crl(77, 2030)]), Err(AttestError::EndorsementCertificate { .. })));
    assert!(
        matches!(outcome(&[crl(78, 2027)]), Err(AttestError::EndorsementCertificate { .. })),
        "an old list"
    );
    assert!(matches!(outcome(&[vec![0x30, 0]]), Err(AttestError::Roots { .. })));
}

#[test]
fn no_flipped_bit_in_a_certificate_passes() {
    let (leaf, pem) = chain(endorsement(), authority("issuer"));
    let roots = Roots::from_pem(pem.as_bytes()).unwrap();
    roots.verify_ek(&leaf, NOW).unwrap();
    for bit in 0..leaf.len() * 8 {
        let mut changed = leaf.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(roots.verify_ek(&changed, NOW).is_err(), "bit {bit}");
    }
}
