//! An attestation key's certificate.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SerialNumber,
};

use super::{ak::Ak, *};

struct Pki {
    root: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

fn pki() -> Pki {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let root = Certificate::from_der(params.clone().self_signed(&key).unwrap().der()).unwrap();
    Pki { root, issuer: Issuer::new(params, key) }
}

fn certificate(pki: &Pki, key: &Key, usage: &[u64]) -> Certificate {
    let Key::P256 { point } = key else { panic!("a P-256 key") };
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.serial_number = Some(SerialNumber::from(77_u64));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(usage.to_vec())];
    let ak = Ak([&[4], &point[..]].concat());
    Certificate::from_der(params.signed_by(&ak, &pki.issuer).unwrap().der()).unwrap()
}

const AK_USAGE: &[u64] = &[2, 23, 133, 8, 3];

#[test]
fn a_certificate_binds_the_key_to_a_root() {
    let files = Files::own("ecdsa-p256-sha256");
    let key = Public::parse(&files.ak[2..]).unwrap().key().clone();
    let (pki, other) = (pki(), pki());
    let good = certificate(&pki, &key, AK_USAGE);
    let with = |certificate: &Certificate, roots: &[Certificate], crls: &[Vec<u8>]| {
        let path = Path { intermediates: &[], roots, crls };
        files.verify_endorsed(Some(&AkEndorsement { certificate, path }))
    };
    let claims = with(&good, std::slice::from_ref(&pki.root), &[]).unwrap();
    assert_eq!(claims.ak_root_sha256, Some(cvm_base::sha256(pki.root.der())));
    assert_eq!(unchecked(&claims), ["event-log", "certificate-revocation", "acpi"]);

    let refused = with(&good, std::slice::from_ref(&other.root), &[]).unwrap_err();
    assert!(matches!(refused, TpmError::Certificate(_)), "{refused}");
    let for_something_else = certificate(&pki, &key, &[1, 3, 6, 1, 5, 5, 7, 3, 1]);
    assert!(matches!(
        with(&for_something_else, std::slice::from_ref(&pki.root), &[]),
        Err(TpmError::Certificate(_))
    ));
    let another = Public::parse(&Files::own("ecdsa-p256-bank-sha1").ak[2..]).unwrap();
    let of_another = certificate(&pki, another.key(), AK_USAGE);
    assert!(matches!(
        with(&of_another, std::slice::from_ref(&pki.root), &[]),
        Err(TpmError::Endorsement { .. })
    ));

    for (revoked, good_after) in [(78_u64, true), (77, false)] {
        let crl = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2030, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![rcgen::RevokedCertParams {
                serial_number: SerialNumber::from(revoked),
                revocation_time: rcgen::date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let crl = crl.signed_by(&pki.issuer).unwrap().der().to_vec();
        let outcome = with(&good, std::slice::from_ref(&pki.root), &[crl]);
        assert_eq!(outcome.is_ok(), good_after, "{outcome:?}");
        assert!(outcome.is_err() || unchecked(&outcome.unwrap()) == ["event-log", "acpi"]);
    }
}
