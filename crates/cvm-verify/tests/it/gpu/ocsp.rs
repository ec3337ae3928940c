//! OCSP responses of a responder of our own, for the synthetic chain: what is believed, and what is
//! not.

use aws_lc_rs::{
    digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA384},
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair},
};
use cvm_base::Explain;
use cvm_verify::gpu::{
    Collateral, DeviceClaims, DeviceEvidence, GpuClaims, GpuError, GpuPolicy, OcspResponse,
    ResultPolicy, Rim, verify,
};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};

use super::{
    LATER,
    synthetic::{Authority, Device, World, key, params},
};

const ECDSA_SHA384: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
const SHA1: &[u8] = &[0x30, 9, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0];
const SHA384_ID: &[u8] = &[0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2, 5, 0];
const NONCE: &[u8] = b"0123456789abcdef";

/// DER: tag, length, content.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = match content.len() {
        short @ 0..0x80 => vec![short as u8],
        long @ 0x80..0x100 => vec![0x81, long as u8],
        long => vec![0x82, (long >> 8) as u8, long as u8],
    };
    [&[tag][..], &length, &content].concat()
}

/// What a responder says; changed by the tests.
#[derive(Clone)]
struct Says {
    /// Good, revoked with a time and reason 1, or unknown.
    status: Vec<u8>,
    this_update: &'static str,
    next_update: Option<&'static str>,
    nonce: Option<&'static [u8]>,
    sha1: bool,
}

impl Says {
    fn good() -> Self {
        let (this_update, next_update) = ("20261122000000Z", Some("20261123000000Z"));
        Self { status: vec![0x80, 0], this_update, next_update, nonce: Some(NONCE), sha1: false }
    }
}

/// Serial number, subject's DER, key: what OCSP names a certificate by.
struct Named {
    serial: Vec<u8>,
    subject: Vec<u8>,
    key: Vec<u8>,
}

/// The TBSCertificate's fields in their order: version, serial, algorithm, issuer, dates, subject,
/// key.
fn named(der: &[u8]) -> Named {
    fn read(bytes: &[u8]) -> (&[u8], &[u8], &[u8]) {
        let (head, length) = match bytes[1] {
            0x81 => (3, usize::from(bytes[2])),
            0x82 => (4, usize::from(bytes[2]) << 8 | usize::from(bytes[3])),
            short => (2, usize::from(short)),
        };
        (&bytes[..head + length], &bytes[head..head + length], &bytes[head + length..])
    }
    let mut rest = read(read(der).1).1;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let (whole, content, after) = read(rest);
        fields.push((whole, content));
        rest = after;
    }
    let bits = read(read(fields[6].1).2).1;
    Named { serial: fields[1].1.to_vec(), subject: fields[5].0.to_vec(), key: bits[1..].to_vec() }
}

fn response(subject: &[u8], issuer: &[u8], by: (&KeyPair, &[u8]), says: &Says) -> Vec<u8> {
    let (subject, issuer) = (named(subject), named(issuer));
    let (algorithm, id) =
        if says.sha1 { (&SHA1_FOR_LEGACY_USE_ONLY, SHA1) } else { (&SHA384, SHA384_ID) };
    let hash = |bytes: &[u8]| digest::digest(algorithm, bytes);
    let (name, key) = (hash(&issuer.subject), hash(&issuer.key));
    let cert_id = tlv(
        0x30,
        &[id, &tlv(4, &[name.as_ref()]), &tlv(4, &[key.as_ref()]), &tlv(2, &[&subject.serial])],
    );
    let time = |text: &str| tlv(0x18, &[text.as_bytes()]);
    let next = says.next_update.map(|next| tlv(0xa0, &[&time(next)])).unwrap_or_default();
    let single = tlv(0x30, &[&cert_id, &says.status, &time(says.this_update), &next]);
    let nonce = says.nonce.map(|nonce| {
        let oid = [6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2];
        tlv(0xa1, &[&tlv(0x30, &[&tlv(0x30, &[&oid, &tlv(4, &[&tlv(4, &[nonce])])])])])
    });
    let responder = tlv(0xa1, &[&named(by.1).subject]);
    let data = tlv(
        0x30,
        &[&responder, &time(says.this_update), &tlv(0x30, &[&single]), &nonce.unwrap_or_default()],
    );
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, by.0.serialized_der()).unwrap();
    let signature = key.sign(&SystemRandom::new(), &data).unwrap();
    let certificates = tlv(0xa0, &[&tlv(0x30, &[by.1])]);
    let basic =
        tlv(0x30, &[&data, ECDSA_SHA384, &tlv(3, &[&[0], signature.as_ref()]), &certificates]);
    let oid = [6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
    tlv(0x30, &[&[10, 1, 0], &tlv(0xa0, &[&tlv(0x30, &[&oid, &tlv(4, &[&basic])])])])
}

/// A responder that this authority appointed, or one that it did not.
fn responder(under: &Authority, appointed: bool) -> (KeyPair, Vec<u8>) {
    let key = key();
    let mut params = params("Responder", None);
    if appointed {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    }
    let certificate = params.signed_by(&key, under).unwrap();
    (key, certificate.der().to_vec())
}

struct Setting {
    world: World,
    evidence: DeviceEvidence,
    rims: [Rim; 2],
    /// Each certificate that OCSP is about, its issuer, and who answers for that one.
    asked: Vec<Asked>,
}

type Asked = (Vec<u8>, Vec<u8>, (KeyPair, Vec<u8>));

impl Setting {
    fn new() -> Self {
        let world = World::new();
        let device = Device::blackwell();
        let chain = world.chain_parts(&device);
        let mut report = device.unsigned();
        report.extend(world.sign(&report));
        let evidence = DeviceEvidence::parse(&report, chain.pem.as_bytes()).unwrap();
        let rim =
            |version, golden: &[(u8, &[u8], bool)]| world.signed_rim("GB100", version, golden);
        let (driver, driver_signer) = rim("575.32", &[(1, &[1; 48], true)]);
        let (vbios, vbios_signer) = rim("97.00.88.00.0F", &[(2, &[2; 48], true)]);
        let rims = [driver, vbios].map(|xml| Rim::parse(xml.as_bytes(), None).unwrap());
        let root = &world.device_root;
        let mut asked = vec![
            (
                chain.identity.der().to_vec(),
                world.family.der().to_vec(),
                responder(&world.family, true),
            ),
            (world.family.der().to_vec(), root.der().to_vec(), responder(root, true)),
            (
                world.signer.der().to_vec(),
                world.rim_root.der().to_vec(),
                responder(&world.rim_root, true),
            ),
        ];
        for signer in [driver_signer, vbios_signer] {
            asked.push((signer, world.signer.der().to_vec(), responder(&world.signer, true)));
        }
        Self { world, evidence, rims, asked }
    }

    fn responses(&self, says: &Says) -> Vec<Vec<u8>> {
        let answer = |(subject, issuer, (key, certificate)): &Asked| {
            response(subject, issuer, (key, certificate), says)
        };
        self.asked.iter().map(answer).collect()
    }

    fn verify(
        &self,
        responses: &[Vec<u8>],
        nonce: Option<&[u8]>,
        now: u64,
    ) -> Result<GpuClaims, GpuError> {
        let ocsp: Vec<_> = responses
            .iter()
            .map(|der| OcspResponse::parse(der, nonce))
            .collect::<Result<_, _>>()?;
        let collateral = Collateral { rims: &self.rims, ocsp: &ocsp, crls: &[] };
        let roots = self.world.roots();
        match verify(&self.evidence, &roots, collateral, Some(&[7; 32]), now)? {
            DeviceClaims::Gpu(claims) => Ok(claims),
            DeviceClaims::Switch(_) => panic!("a switch"),
        }
    }
}

fn policies() -> [ResultPolicy; 2] {
    [
        include_bytes!("../../../../../keys/policies/nvidia-result-policy-1.0.json").as_slice(),
        include_bytes!("../../../../../keys/policies/nvidia-result-policy-4.0.json"),
    ]
    .map(|file| ResultPolicy::parse(file).unwrap())
}

#[test]
fn with_every_response_both_policies_pass() {
    let setting = Setting::new();
    for says in [Says::good(), Says { sha1: true, next_update: None, ..Says::good() }] {
        let claims = setting.verify(&setting.responses(&says), Some(NONCE), LATER).unwrap();
        assert_eq!(claims.facts.not_checked, []);
        assert_eq!(claims.report.chain.ocsp_status, "good");
        for policy in policies() {
            policy.evaluate(std::slice::from_ref(&claims)).unwrap();
        }
        GpuPolicy { ocsp: true, ..GpuPolicy::default() }.check(&claims).unwrap();
    }
}

#[test]
fn without_one_response_or_without_the_nonce_policy_1_0_does_not_pass() {
    let setting = Setting::new();
    let all = setting.responses(&Says::good());
    for missing in 0..all.len() {
        let mut some = all.clone();
        some.remove(missing);
        let claims = setting.verify(&some, Some(NONCE), LATER).unwrap();
        assert!(claims.facts.not_checked.iter().all(|check| check.check == "ocsp"));
        for policy in policies() {
            let broken = policy.evaluate(std::slice::from_ref(&claims)).unwrap_err();
            assert!(broken.iter().all(|broken| broken.reason.is_some()), "{broken:?}");
        }
    }
    let claims = setting.verify(&all, None, LATER).unwrap();
    assert!(claims.facts.not_checked.iter().all(|check| check.check == "ocsp-nonce"));
    let [old, new] = policies();
    let broken = old.evaluate(std::slice::from_ref(&claims)).unwrap_err();
    assert_eq!(broken.len(), 1);
    assert_eq!(broken[0].rule, "x-nv-gpu-cert-ocsp-nonce-match");
    assert_eq!(new.evaluate(&[claims]).unwrap_err()[0].rule, "x-nvidia-overall-att-result");
}

#[test]
fn attack_revoked_unknown_stale_and_replayed() {
    let setting = Setting::new();
    let revoked = tlv(0xa1, &[&tlv(0x18, &[b"20260101000000Z"]), &tlv(0xa0, &[&[10, 1, 1]])]);
    let good = setting.responses(&Says::good());
    for (says, expected) in [
        (Says { status: revoked, ..Says::good() }, "revoked since 2026-01-01T00:00:00Z, reason 1"),
        (Says { status: vec![0x82, 0], ..Says::good() }, "does not know"),
        (
            Says {
                this_update: "20261121000000Z",
                next_update: Some("20261121235959Z"),
                ..Says::good()
            },
            "valid from",
        ),
        (Says { next_update: None, this_update: "20261120000000Z", ..Says::good() }, "valid from"),
        (Says { this_update: "20261122010000Z", ..Says::good() }, "valid from"),
        (Says { nonce: None, ..Says::good() }, "does not repeat the nonce"),
        (Says { nonce: Some(b"another"), ..Says::good() }, "another nonce"),
    ] {
        let bad = setting.responses(&says);
        for at in 0..good.len() {
            let mut responses = good.clone();
            responses[at] = bad[at].clone();
            let error = setting.verify(&responses, Some(NONCE), LATER).unwrap_err();
            assert_eq!(error.code(), "ATT-349");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

#[test]
fn attack_responders_that_nobody_appointed() {
    let setting = Setting::new();
    let (subject, issuer, _) = &setting.asked[0];
    let says = Says::good();
    let mut expired = params("Responder", None);
    expired.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    expired.not_after = rcgen::date_time_ymd(2026, 1, 1);
    let expired_key = key();
    let expired = expired.signed_by(&expired_key, &setting.world.family).unwrap();
    let leaf = key();
    for (key, certificate) in [
        responder(&setting.world.family, false),
        responder(&setting.world.device_root, true),
        responder(&setting.world.rim_root, true),
        responder(&World::new().family, true),
        // Another key than the certificate's; a certificate that has expired.
        (leaf, responder(&setting.world.family, true).1),
        (expired_key, expired.der().to_vec()),
    ] {
        let der = response(subject, issuer, (&key, &certificate), &says);
        let error = setting.verify(&[der], Some(NONCE), LATER).unwrap_err();
        assert!(matches!(error, GpuError::Ocsp { .. }), "{error}");
    }
    // The issuer itself may answer.
    let der = response(subject, issuer, (setting.world.family.key(), issuer), &says);
    setting.verify(&[der], Some(NONCE), LATER).unwrap();
}

#[test]
fn attack_every_bit_of_a_response() {
    let setting = Setting::new();
    let all = setting.responses(&Says::good());
    let good = setting.verify(&all, Some(NONCE), LATER).unwrap();
    let first = &all[0];
    for bit in (0..8 * first.len()).step_by(7) {
        let mut responses = all.clone();
        responses[0][bit / 8] ^= 1 << (bit % 8);
        // Refused, or no longer an answer for this certificate; never another good answer.
        if let Ok(claims) = setting.verify(&responses[..1], Some(NONCE), LATER) {
            assert!(!claims.report.chain.ocsp_response_valid, "bit {bit}");
        }
    }
    for length in (0..first.len()).step_by(3) {
        assert!(OcspResponse::parse(&first[..length], None).is_err());
    }
    assert!(OcspResponse::parse(&[first.clone(), vec![0]].concat(), None).is_err());
    assert!(OcspResponse::parse(&[0x30, 3, 10, 1, 6], None).is_err(), "unauthorized");
    assert!(OcspResponse::parse(&vec![0x30; 70_000], None).is_err());
    assert!(good.report.chain.ocsp_response_valid);
}
