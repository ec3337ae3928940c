//! Quotes of real and simulated TPMs, alone: every form, every scheme, and attacks.

#[path = "../../support/ak.rs"]
mod ak;
mod attacks;
mod endorsed;

use std::{collections::BTreeMap, fs, path::PathBuf};

use cvm_base::Explain;
use cvm_evidence::{
    AttestError,
    tpm::{Digest, HashAlg, Key, Public},
};
use cvm_verify::{
    quote::{
        AkEndorsement, AttestationKey, Nonce, PcrValues, QuoteClaims, QuoteEvidence, TpmError,
        TpmPolicy, verify,
    },
    x509::{Certificate, Path},
};

const NOW: u64 = 1_800_000_000;
const GCE: &str = "../../tests/vectors/evidence/tpm/gce-cos-85-nonce9009";
const OWN_ECDSA: &str = "../../tests/vectors/evidence/tpm/own-swtpm-ecdsa-quote";
const OWN: &str = "../../tests/vectors/own-swtpm-quotes";
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
            nonce: Some(Nonce::exact(&[0x90, 0x09])),
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
            nonce: Some(Nonce::exact(&hex::decode(OWN_NONCE).unwrap())),
            policy: TpmPolicy::default(),
        }
    }

    fn verify(&self) -> Result<QuoteClaims, TpmError> {
        self.verify_endorsed(None)
    }

    fn verify_endorsed(
        &self,
        endorsement: Option<&AkEndorsement<'_>>,
    ) -> Result<QuoteClaims, TpmError> {
        let mut evidence =
            QuoteEvidence::parse(&self.message, &self.signature, AttestationKey::parse(&self.ak)?)?;
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

const OWN_ACCEPTED: [&str; 6] = [
    "rsassa-sha256",
    "rsassa-sha384",
    "rsapss-sha256",
    "ecdsa-p256-sha256",
    "ecdsa-p384-sha256",
    "ecdsa-p384-sha384",
];

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
        assert_eq!(unchecked(&claims), ["event-log", "ak-endorsement", "acpi"]);
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
    assert!(
        matches!(&refused, TpmError::Bank { found, .. } if found.starts_with("sha1:0,1,")),
        "{refused}"
    );
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
        assert_eq!(unchecked(&claims), ["event-log", "ak-endorsement", "acpi"]);
    }
    let two_banks = Files::own("ecdsa-p256-sha256").verify().unwrap();
    assert_eq!(two_banks.selection, "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15+sha384:0,7");
    assert_eq!(two_banks.other_banks[&HashAlg::Sha384].keys().copied().collect::<Vec<_>>(), [0, 7]);
}

/// TPM2B_PUBLIC, TPMT_PUBLIC, PEM and DER name one key; the last two do not say what it may sign.
#[test]
fn a_keys_every_form_is_read() {
    for name in OWN_ACCEPTED {
        let (tpm2b, pem) =
            (file(OWN, &format!("{name}.ak.tpm2b")), file(OWN, &format!("{name}.ak.pem")));
        let key = AttestationKey::parse(&tpm2b).unwrap();
        assert_eq!(AttestationKey::parse(&tpm2b[2..]).unwrap(), key);
        assert_eq!(AttestationKey::parse(&pem).unwrap().spki(), key.spki());
        for ak in [pem, key.spki()] {
            let claims = Files { ak, ..Files::own(name) }.verify().unwrap();
            assert_eq!(
                unchecked(&claims),
                ["event-log", "ak-endorsement", "ak-attributes", "acpi"],
                "{name}"
            );
            assert_eq!((claims.ak_name, claims.ak_sha256), (None, key.sha256()));
        }
        for form in [tpm2b.clone(), tpm2b[2..].to_vec(), key.spki()] {
            let long = [&form[..], &[0]].concat();
            assert!(
                matches!(AttestationKey::parse(&long), Err(AttestError::Malformed { .. })),
                "{name}"
            );
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
        nonce: Some(Nonce::exact(b"nonce-1234567890")),
        policy: TpmPolicy::default(),
    };
    let claims = files.verify().unwrap();
    assert_eq!(claims.selection, "sha256:0,7,11,15");
    assert!(claims.pcrs.is_empty());
    assert_eq!(unchecked(&claims), ["pcr-values", "event-log", "ak-endorsement", "acpi"]);
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
    let map: BTreeMap<String, String> =
        serde_json::from_slice(files.pcrs.as_ref().unwrap()).unwrap();
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
    for wrong in [
        "{}",
        "[]",
        "null",
        "[1]",
        r#"{"32": ""}"#,
        r#"{"00": ""}"#,
        r#"{"+1": ""}"#,
        r#"{"sha256": {"0": "00"}}"#,
        "[\"00\"]",
    ] {
        assert!(Files { pcrs: Some(wrong.into()), ..files.clone() }.verify().is_err(), "{wrong}");
    }
    let of_another_bank =
        r#"{"sha1": {"0": "0000000000000000000000000000000000000000000000000000000000000000"}}"#;
    assert!(PcrValues::parse(of_another_bank.as_bytes()).is_err());
}

#[test]
fn a_nonce_is_the_verifiers_own() {
    for nonce in
        [Nonce::exact(&[0x90, 0x09]), Nonce::any_of(vec![b"9009".to_vec(), vec![0x90, 0x09]])]
    {
        Files { nonce: Some(nonce), ..Files::gce("sha256") }.verify().unwrap();
    }
    for nonce in [
        Nonce::exact(b"9009"),
        Nonce::exact(&[0x90]),
        Nonce::exact(&[0x90, 0x09, 0x00]),
        Nonce::any_of(vec![vec![0x90, 0x10], b"9010".to_vec()]),
    ] {
        let refused = Files { nonce: Some(nonce), ..Files::gce("sha256") }.verify().unwrap_err();
        assert!(matches!(refused, TpmError::Nonce { .. }), "{refused}");
    }
    let claims = Files { nonce: None, ..Files::gce("sha256") }.verify().unwrap();
    assert_eq!(unchecked(&claims), ["nonce", "event-log", "ak-endorsement", "acpi"]);
}
