//! Quotes of real and simulated TPMs, alone: every form, every scheme, and attacks.

use std::{collections::BTreeMap, fs, path::PathBuf};

use cvm_attest::{
    AttestError,
    tpm::{
        Digest, HashAlg, Key, Public,
        quote::{
            AkEndorsement, AttestationKey, Nonce, PcrValues, QuoteClaims, QuoteEvidence, TpmError, TpmPolicy, verify,
        },
    },
    x509::{Certificate, Path},
};
use cvm_base::Explain;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SerialNumber};

const NOW: u64 = 1_800_000_000;
const GCE: &str = "../../tests/vectors/evidence/tpm/gce-cos-85-nonce9009";
const OWN_ECDSA: &str = "../../tests/vectors/evidence/tpm/own-swtpm-ecdsa-quote";
const OWN: &str = "tests/vectors/own-swtpm-quotes";
const OWN_NONCE: &str = "00112233445566778899aabbccddeeff";

fn file(folder: &str, name: &str) -> Vec<u8> {
    fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder).join(name)).unwrap()
}

/// A quote's files, to change before they are verified.
#[derive(Clone)]
struct Files {
    message: Vec<u8>,
    signature: Vec<u8>,
    ak: Vec<u8>,
    pcrs: Option<Vec<u8>>,
    log: Option<Vec<u8>>,
    nonce: Option<Nonce>,
    policy: TpmPolicy,
}

impl Files {
    fn gce(bank: &str) -> Self {
        Self {
            message: file(GCE, &format!("quote-{bank}.msg")),
            signature: file(GCE, &format!("quote-{bank}.sig")),
            ak: file(GCE, "ak.tpmt_public"),
            pcrs: Some(file(GCE, &format!("pcrs-{bank}.json"))),
            log: Some(file(GCE, "eventlog.bin")),
            nonce: Some(Nonce::from_text("9009")),
            policy: TpmPolicy::default(),
        }
    }

    fn own(name: &str) -> Self {
        Self {
            message: file(OWN, &format!("{name}.msg")),
            signature: file(OWN, &format!("{name}.sig")),
            ak: file(OWN, &format!("{name}.ak.tpm2b")),
            pcrs: Some(file(OWN, "pcrs.json")),
            log: None,
            nonce: Some(Nonce::from_text(OWN_NONCE)),
            policy: TpmPolicy::default(),
        }
    }

    fn verify(&self) -> Result<QuoteClaims, TpmError> {
        self.verify_endorsed(None)
    }

    fn verify_endorsed(&self, endorsement: Option<&AkEndorsement<'_>>) -> Result<QuoteClaims, TpmError> {
        let mut evidence = QuoteEvidence::parse(&self.message, &self.signature, AttestationKey::parse(&self.ak)?)?;
        if let Some(pcrs) = &self.pcrs {
            evidence = evidence.with_pcrs(PcrValues::parse(pcrs)?);
        }
        if let Some(log) = &self.log {
            evidence = evidence.with_event_log(log)?;
        }
        verify(&evidence, self.nonce.as_ref(), endorsement, &self.policy, NOW)
    }
}

fn unchecked(claims: &QuoteClaims) -> Vec<&str> {
    claims.not_checked.iter().map(|skipped| skipped.check.as_str()).collect()
}

const OWN_ACCEPTED: [&str; 6] =
    ["rsassa-sha256", "rsassa-sha384", "rsapss-sha256", "ecdsa-p256-sha256", "ecdsa-p384-sha256", "ecdsa-p384-sha384"];

#[test]
fn googles_quotes_verify_with_their_event_log() {
    for (bank, size) in [("sha256", 32), ("sha384", 48)] {
        let claims = Files::gce(bank).verify().unwrap();
        assert_eq!((claims.bank.name(), claims.nonce.as_slice()), (bank, &[0x90, 0x09][..]));
        assert_eq!(claims.pcrs.len(), 24);
        assert!(claims.pcrs.values().all(|value| value.as_bytes().len() == size));
        assert!(claims.event_log.as_ref().unwrap().len() > 40);
        // The kernel's IMA measures into PCR 10 when the firmware's log is closed.
        assert_eq!(claims.not_replayed, [10]);
        assert_eq!(unchecked(&claims), ["event-log", "ak-endorsement"]);
        let json = claims.to_json();
        assert_eq!(json["tpm"]["pcr00"], serde_json::json!(claims.pcrs[&0]));
        assert_eq!(json["tpm"]["report_data"], "9009");
        assert_eq!(json["tpm"]["trust"], "untrusted-host");
        assert_eq!(QuoteClaims::from_json(&json).unwrap(), claims);
    }
}

#[test]
fn a_sha1_bank_is_read_and_refused_unless_the_policy_allows_it() {
    let mut files = Files::gce("sha1");
    let refused = files.verify().unwrap_err();
    assert!(matches!(&refused, TpmError::Bank { found, .. } if found.starts_with("sha1:0,1,")), "{refused}");
    assert_eq!(refused.code(), "ATT-334");
    files.policy.allow_sha1 = true;
    assert_eq!(files.verify().unwrap().pcrs.len(), 24);
    let mut own = Files::own("ecdsa-p256-bank-sha1");
    assert!(matches!(own.verify(), Err(TpmError::Bank { .. })));
    own.policy.allow_sha1 = true;
    own.verify().unwrap();
}

#[test]
fn every_scheme_of_swtpm_verifies() {
    for name in OWN_ACCEPTED {
        let claims = Files::own(name).verify().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(claims.pcrs.len(), 16, "{name}");
        assert_eq!(claims.ak_scheme, name.replace("-p256", "").replace("-p384", ""));
        assert_eq!(unchecked(&claims), ["event-log", "ak-endorsement"]);
    }
    let two_banks = Files::own("ecdsa-p256-sha256").verify().unwrap();
    assert_eq!(two_banks.selection, "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15+sha384:0,7");
    assert_eq!(two_banks.other_banks[&HashAlg::Sha384].keys().copied().collect::<Vec<_>>(), [0, 7]);
}

/// TPM2B_PUBLIC, TPMT_PUBLIC, PEM and DER name one key; the last two do not say what it may sign.
#[test]
fn a_keys_every_form_is_read() {
    for name in OWN_ACCEPTED {
        let (tpm2b, pem) = (file(OWN, &format!("{name}.ak.tpm2b")), file(OWN, &format!("{name}.ak.pem")));
        let key = AttestationKey::parse(&tpm2b).unwrap();
        assert_eq!(AttestationKey::parse(&tpm2b[2..]).unwrap(), key);
        assert_eq!(AttestationKey::parse(&pem).unwrap().spki(), key.spki());
        for ak in [pem, key.spki()] {
            let claims = Files { ak, ..Files::own(name) }.verify().unwrap();
            assert_eq!(unchecked(&claims), ["event-log", "ak-endorsement", "ak-attributes"], "{name}");
            assert_eq!((claims.ak_name, claims.ak_sha256), (None, key.sha256()));
        }
        for form in [tpm2b.clone(), tpm2b[2..].to_vec(), key.spki()] {
            let long = [&form[..], &[0]].concat();
            assert!(matches!(AttestationKey::parse(&long), Err(AttestError::Malformed { .. })), "{name}");
            for end in 0..form.len() {
                assert!(AttestationKey::parse(&form[..end]).is_err(), "{name} cut at {end}");
            }
        }
    }
}

#[test]
fn a_signatures_every_form_is_read() {
    // tpm2_quote -f plain: DER.
    for name in ["ecdsa-p256-sha256", "ecdsa-p384-sha384"] {
        let bare = Files {
            message: file(OWN, &format!("{name}.bare.msg")),
            signature: file(OWN, &format!("{name}.bare.sig")),
            ..Files::own(name)
        };
        bare.verify().unwrap();
        let long = Files { signature: [&bare.signature[..], &[0]].concat(), ..bare.clone() };
        assert!(long.verify().is_err());
        // Another quote of the same key.
        let other = Files { message: Files::own(name).message, ..bare };
        assert!(matches!(other.verify(), Err(TpmError::Signature { .. })));
    }
    // r ‖ s.
    let mut fixed = Files::own("ecdsa-p256-sha256");
    fixed.signature = [&fixed.signature[6..38], &fixed.signature[40..]].concat();
    fixed.verify().unwrap();
    // As long as the modulus; with a key that names its scheme, and with one that does not.
    for name in ["rsassa-sha256", "rsapss-sha256", "rsassa-sha384"] {
        let mut bare = Files::own(name);
        bare.signature.drain(..6);
        bare.verify().unwrap();
        bare.ak = file(OWN, &format!("{name}.ak.pem"));
        assert_eq!(bare.verify().is_ok(), name.ends_with("sha256"), "{name}");
    }
}

/// The signature file of 72 bytes is a TPMT_SIGNATURE; its PCR values are not among the vectors.
#[test]
fn our_first_quote_verifies_without_values() {
    let files = Files {
        message: file(OWN_ECDSA, "quote.msg"),
        signature: file(OWN_ECDSA, "quote.sig"),
        ak: file(OWN_ECDSA, "ak.pub"),
        pcrs: None,
        log: None,
        nonce: Some(Nonce::from_text("nonce-1234567890")),
        policy: TpmPolicy::default(),
    };
    let claims = files.verify().unwrap();
    assert_eq!(claims.selection, "sha256:0,7,11,15");
    assert!(claims.pcrs.is_empty());
    assert_eq!(unchecked(&claims), ["pcr-values", "event-log", "ak-endorsement"]);
    assert!(claims.to_json()["tpm"].get("pcr00").is_none());
    let mut required = files.clone();
    required.policy.required = [7].into();
    assert!(matches!(required.verify(), Err(TpmError::Selection { .. })), "a policy needs PCR 7");
    let wrong = Files { pcrs: Some(vec![0; 24 * 32]), ..files };
    assert!(matches!(wrong.verify(), Err(TpmError::PcrDigest { .. })));
}

#[test]
fn values_in_every_form_are_read() {
    let files = Files::gce("sha256");
    let map: BTreeMap<String, String> = serde_json::from_slice(files.pcrs.as_ref().unwrap()).unwrap();
    let list: Vec<&str> = (0..24).map(|pcr| map[&pcr.to_string()].as_str()).collect();
    let bare: Vec<u8> = list.iter().flat_map(|value| hex::decode(value).unwrap()).collect();
    let upper: Vec<_> = list.iter().map(|value| value.to_uppercase()).collect();
    for pcrs in [
        serde_json::json!({ "sha256": map }).to_string().into_bytes(),
        serde_json::json!(list).to_string().into_bytes(),
        serde_json::json!(upper).to_string().into_bytes(),
        bare,
    ] {
        Files { pcrs: Some(pcrs), ..files.clone() }.verify().unwrap();
    }
    for wrong in ["{}", "[]", "null", "[1]", r#"{"32": ""}"#, r#"{"00": ""}"#, r#"{"sha256": {"0": "00"}}"#, "[\"00\"]"]
    {
        assert!(Files { pcrs: Some(wrong.into()), ..files.clone() }.verify().is_err(), "{wrong}");
    }
    let of_another_bank = r#"{"sha1": {"0": "0000000000000000000000000000000000000000000000000000000000000000"}}"#;
    assert!(PcrValues::parse(of_another_bank.as_bytes()).is_err());
}

#[test]
fn a_nonce_is_the_verifiers_own() {
    for nonce in [Nonce::exact(&[0x90, 0x09]), Nonce::from_text("9009")] {
        Files { nonce: Some(nonce), ..Files::gce("sha256") }.verify().unwrap();
    }
    for nonce in [Nonce::exact(b"9009"), Nonce::exact(&[0x90]), Nonce::from_text("900900"), Nonce::from_text("9010")] {
        let refused = Files { nonce: Some(nonce), ..Files::gce("sha256") }.verify().unwrap_err();
        assert!(matches!(refused, TpmError::Nonce { .. }), "{refused}");
    }
    let claims = Files { nonce: None, ..Files::gce("sha256") }.verify().unwrap();
    assert_eq!(unchecked(&claims), ["nonce", "event-log", "ak-endorsement"]);
}

#[test]
fn attack_an_empty_nonce() {
    for nonce in [Nonce::exact(&[]), Nonce::from_text("")] {
        let refused = Files { nonce: Some(nonce), ..Files::gce("sha256") }.verify().unwrap_err();
        assert_eq!(refused, TpmError::EmptyNonce);
    }
}

#[test]
fn no_flipped_bit_passes() {
    for name in ["ecdsa-p256-sha256", "ecdsa-p384-sha384", "rsassa-sha256"] {
        let good = Files::own(name);
        let honest = good.verify().unwrap();
        // A P-384 verification takes some milliseconds here.
        let step = if name.contains("p384") { 7 } else { 1 };
        for bit in (0..good.message.len() * 8).step_by(step) {
            let mut bad = good.clone();
            bad.message[bit / 8] ^= 1 << (bit % 8);
            assert!(bad.verify().is_err(), "{name}: message bit {bit}");
        }
        // The scheme and its hash, the sizes, and the signature itself.
        for bit in (0..good.signature.len() * 8).step_by(step) {
            let mut bad = good.clone();
            bad.signature[bit / 8] ^= 1 << (bit % 8);
            assert!(bad.verify().is_err(), "{name}: signature bit {bit}");
        }
        for bit in (0..good.ak.len() * 8).step_by(step) {
            let mut bad = good.clone();
            bad.ak[bit / 8] ^= 1 << (bit % 8);
            // What the TPM enforces at the key's use (its policy, noDA and so on) does not change what it signed:
            // it is a key of another name, and the name is a claim.
            if let Ok(claims) = bad.verify() {
                assert_ne!(claims.ak_name, honest.ak_name, "{name}: key bit {bit}");
                assert_eq!(claims.ak_sha256, honest.ak_sha256);
            }
        }
    }
}

#[test]
fn no_flipped_bit_in_a_quoted_value_passes() {
    for bank in ["sha256", "sha384"] {
        let good = Files::gce(bank);
        let values: BTreeMap<String, Digest> = serde_json::from_slice(good.pcrs.as_ref().unwrap()).unwrap();
        let bare: Vec<u8> = (0..24).flat_map(|pcr| values[&pcr.to_string()].as_bytes().to_vec()).collect();
        let log = None;
        let good = Files { pcrs: Some(bare), log, ..good };
        good.verify().unwrap();
        for bit in (0..good.pcrs.as_ref().unwrap().len() * 8).step_by(5) {
            let mut bad = good.clone();
            bad.pcrs.as_mut().unwrap()[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(bad.verify(), Err(TpmError::PcrDigest { .. })), "{bank}: bit {bit}");
        }
    }
}

/// A digest does not say what it covers: only the selection does.
#[test]
fn attack_values_of_other_registers() {
    let good = Files::own("ecdsa-p384-sha384");
    let claims = good.verify().unwrap();
    // Shifted by one: PCR 1 shown as PCR 0, and so on.
    let shifted: BTreeMap<u32, Digest> = claims.pcrs.iter().map(|(pcr, value)| ((pcr + 1) % 16, *value)).collect();
    let bad = Files { pcrs: Some(serde_json::to_vec(&shifted).unwrap()), ..good.clone() };
    assert!(matches!(bad.verify(), Err(TpmError::PcrDigest { .. })));
    // One register left out.
    let mut fewer = claims.pcrs.clone();
    fewer.remove(&4);
    let bad = Files { pcrs: Some(serde_json::to_vec(&fewer).unwrap()), ..good.clone() };
    assert!(matches!(bad.verify(), Err(TpmError::Selection { .. })));
    // Registers that the quote does not cover are not claimed.
    let mut more = claims.pcrs.clone();
    more.insert(23, Digest::filled(HashAlg::Sha384, 0x66));
    let shown = Files { pcrs: Some(serde_json::to_vec(&more).unwrap()), ..good.clone() };
    assert_eq!(shown.verify().unwrap(), claims);
    // And a policy that needs one of them refuses.
    let mut needed = shown;
    needed.policy.required = [23].into();
    assert!(matches!(needed.verify(), Err(TpmError::Selection { .. })));
}

#[test]
fn attack_another_attestation_key() {
    for (name, other) in [
        ("ecdsa-p256-sha256", "ecdsa-p256-bank-sha1"),
        ("rsassa-sha256", "rsapss-sha256"),
        ("ecdsa-p384-sha384", "ecdsa-p384-sha256"),
        ("rsassa-sha256", "ecdsa-p256-sha256"),
        ("ecdsa-p256-sha256", "rsassa-sha256"),
        ("ecdsa-p256-sha256", "ecdsa-p384-sha384"),
    ] {
        for key in [format!("{other}.ak.tpm2b"), format!("{other}.ak.pem")] {
            let refused = Files { ak: file(OWN, &key), ..Files::own(name) }.verify().unwrap_err();
            assert!(matches!(refused, TpmError::Signature { .. } | TpmError::Scheme { .. }), "{name} {key}: {refused}");
        }
    }
}

/// A key that signs anything could sign a message that begins like a quote.
#[test]
fn attack_a_key_that_could_sign_anything() {
    for name in OWN_ACCEPTED {
        // TPMA_OBJECT: restricted, fixedTPM, sensitiveDataOrigin, fixedParent, sign; and decrypt set.
        for bit in [16, 1, 5, 4, 18, 17] {
            let mut bad = Files::own(name);
            let at = 2 + 4 + 3 - bit / 8;
            bad.ak[at] ^= 1 << (bit % 8);
            let refused = bad.verify().unwrap_err();
            assert!(matches!(refused, TpmError::Structure(AttestError::AttestationKey { .. })), "{name} {bit}");
        }
    }
}

/// The signature of one scheme under the name of another, and hashes that nobody should believe.
#[test]
fn attack_a_scheme_that_is_not_the_keys() {
    for (name, at, value) in [
        ("rsassa-sha256", 1, 0x16), // called RSAPSS
        ("rsapss-sha256", 1, 0x14),
        ("rsassa-sha256", 3, 0x04), // called SHA-1
        ("ecdsa-p256-sha256", 3, 0x0c),
        ("ecdsa-p256-sha256", 3, 0x04),
        ("ecdsa-p384-sha384", 3, 0x0b),
    ] {
        let mut bad = Files::own(name);
        bad.signature[at] = value;
        assert!(matches!(bad.verify(), Err(TpmError::Scheme { .. })), "{name}");
        bad.ak = file(OWN, &format!("{name}.ak.pem"));
        let refused = bad.verify().unwrap_err();
        assert!(matches!(refused, TpmError::Scheme { .. } | TpmError::Signature { .. }), "{name}: {refused}");
    }
}

/// The log says less, more or something else than was measured.
#[test]
fn attack_a_log_that_does_not_lead_to_the_quote() {
    let good = Files::gce("sha256");
    let log = good.log.clone().unwrap();
    let header = 32 + u32::from_le_bytes(log[28..32].try_into().unwrap()) as usize;
    // The header alone: nothing explains PCR 0.
    let bad = Files { log: Some(log[..header].to_vec()), ..good.clone() };
    assert!(matches!(bad.verify(), Err(TpmError::Replay { register: 0, .. })));
    // The first event of PCR 7 is said to be PCR 6's.
    let at = find_event(&log, header, 7);
    let mut moved = log.clone();
    moved[at] = 6;
    let refused = Files { log: Some(moved), ..good.clone() }.verify().unwrap_err();
    assert!(matches!(refused, TpmError::Replay { register: 6, .. }), "{refused}");
    assert_eq!(refused.code(), "ATT-337");
    // The log of another boot.
    let other = file("../../tests/vectors/evidence/tpm/eventlogs", "cos-93-amd-sev.bin");
    assert!(matches!(Files { log: Some(other), ..good.clone() }.verify(), Err(TpmError::Replay { .. })));
    // An extension that nobody logged, into a register that the firmware owns.
    let own = Files { log: Some(log[..header].to_vec()), ..Files::own("rsassa-sha256") };
    let refused = own.verify().unwrap_err();
    assert!(refused.to_string().contains("the log lists no event"), "{refused}");
}

/// Into these the system measures when the firmware's log is closed: said, and not claimed.
#[test]
fn what_the_log_does_not_explain_is_listed() {
    let good = Files::gce("sha256");
    let mut log = good.log.clone().unwrap();
    let header = 32 + u32::from_le_bytes(log[28..32].try_into().unwrap()) as usize;
    let at = find_event(&log, header, 8);
    log[at + 4 + 4 + 4 + 2 + 20 + 2] ^= 1; // its SHA-256 digest
    let mut files = Files { log: Some(log), ..good };
    let claims = files.verify().unwrap();
    assert_eq!(claims.not_replayed, [8, 10]);
    assert_eq!(unchecked(&claims), ["event-log", "event-log", "ak-endorsement"]);
    assert!(claims.event_log.unwrap().iter().all(|event| event.register != 8));
    files.policy.must_replay.insert(8);
    assert!(matches!(files.verify(), Err(TpmError::Replay { register: 8, .. })));
}

/// A log may have no bank that the quote covers.
#[test]
fn a_log_without_the_quotes_bank_explains_nothing() {
    let separator = [[0; 4], [4, 0, 0, 0]].concat();
    let sha1_only = [&separator[..], &[7; 20], &4u32.to_le_bytes(), &[0; 4]].concat();
    let claims = Files { log: Some(sha1_only), ..Files::gce("sha384") }.verify().unwrap();
    assert_eq!(claims.event_log, None);
    assert_eq!(unchecked(&claims), ["event-log", "ak-endorsement"]);
}

fn find_event(log: &[u8], header: usize, pcr: u32) -> usize {
    let number = |at: usize| u32::from_le_bytes(log[at..at + 4].try_into().unwrap());
    let mut at = header;
    // Three banks, in the order SHA-1, SHA-256, SHA-384.
    let data = 12 + (2 + 20) + (2 + 32) + (2 + 48);
    while number(at) != pcr || number(at + 4) == 3 {
        at += data + 4 + number(at + data) as usize;
    }
    at
}

mod endorsed {
    use super::*;

    /// As rcgen wants a public key that is not its own.
    struct Ak(Vec<u8>);

    impl rcgen::PublicKeyData for Ak {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }

        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            &rcgen::PKCS_ECDSA_P256_SHA256
        }
    }

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
        assert_eq!(unchecked(&claims), ["event-log", "certificate-revocation"]);

        let refused = with(&good, std::slice::from_ref(&other.root), &[]).unwrap_err();
        assert!(matches!(refused, TpmError::Certificate(_)), "{refused}");
        let for_something_else = certificate(&pki, &key, &[1, 3, 6, 1, 5, 5, 7, 3, 1]);
        assert!(matches!(with(&for_something_else, &[pki.root.clone()], &[]), Err(TpmError::Certificate(_))));
        let another = Public::parse(&Files::own("ecdsa-p256-bank-sha1").ak[2..]).unwrap();
        let of_another = certificate(&pki, another.key(), AK_USAGE);
        assert!(matches!(with(&of_another, &[pki.root.clone()], &[]), Err(TpmError::Endorsement { .. })));

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
            let outcome = with(&good, &[pki.root.clone()], &[crl]);
            assert_eq!(outcome.is_ok(), good_after, "{outcome:?}");
            assert!(outcome.is_err() || unchecked(&outcome.unwrap()) == ["event-log"]);
        }
    }
}

/// `cargo test --release … -- --ignored bench --nocapture`: quotes verified a second, parsing included.
#[test]
#[ignore = "a measurement"]
fn bench() {
    for (name, rounds) in [("ecdsa-p256-sha256", 20_000), ("rsassa-sha256", 20_000), ("ecdsa-p384-sha384", 5_000)] {
        let files = Files::own(name);
        let started = std::time::Instant::now();
        for _ in 0..rounds {
            files.verify().unwrap();
        }
        println!("{name}: {:.0} quotes/s", f64::from(rounds) / started.elapsed().as_secs_f64());
    }
    let files = Files::gce("sha256");
    let started = std::time::Instant::now();
    for _ in 0..2000 {
        files.verify().unwrap();
    }
    println!("RSA-2048 with an event log: {:.0} quotes/s", 2000.0 / started.elapsed().as_secs_f64());
}
