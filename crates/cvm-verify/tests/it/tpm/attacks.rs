//! What must be refused, and how a log that lies is met.

use super::*;

#[test]
fn attack_an_empty_nonce() {
    for nonce in [Nonce::exact(&[]), Nonce::any_of(vec![b"a nonce".to_vec(), vec![]])] {
        let refused = Files { nonce: Some(nonce), ..Files::gce("sha256") }.verify().unwrap_err();
        assert_eq!(refused, TpmError::EmptyNonce);
    }
}

#[test]
fn no_flipped_bit_passes() {
    for name in ["ecdsa-p256-sha256", "ecdsa-p384-sha384", "rsassa-sha256"] {
        let good = Files::own(name);
        let honest = good.verify().unwrap();
        // A P-384 verification takes some milliseconds in a debug build.
        let step = if cfg!(debug_assertions) && name.contains("p384") { 7 } else { 1 };
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
            // What the TPM enforces at the key's use (its policy, noDA and so on) does not change
            // what it signed: it is a key of another name, and the name is a claim.
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
        let values: BTreeMap<String, Digest> =
            serde_json::from_slice(good.pcrs.as_ref().unwrap()).unwrap();
        let bare: Vec<u8> =
            (0..24).flat_map(|pcr| values[&pcr.to_string()].as_bytes().to_vec()).collect();
        let log = None;
        let good = Files { pcrs: Some(bare), log, ..good };
        good.verify().unwrap();
        for bit in (0..good.pcrs.as_ref().unwrap().len() * 8).step_by(if cfg!(debug_assertions) {
            5
        } else {
            1
        }) {
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
    let shifted: BTreeMap<u32, Digest> =
        claims.pcrs.iter().map(|(pcr, value)| ((pcr + 1) % 16, *value)).collect();
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
            assert!(
                matches!(refused, TpmError::Signature { .. } | TpmError::Scheme { .. }),
                "{name} {key}: {refused}"
            );
        }
    }
}

/// A key that signs anything could sign a message that begins like a quote.
#[test]
fn attack_a_key_that_could_sign_anything() {
    for name in OWN_ACCEPTED {
        // TPMA_OBJECT: restricted, fixedTPM, sensitiveDataOrigin, fixedParent, sign; and decrypt
        // set.
        for bit in [16, 1, 5, 4, 18, 17] {
            let mut bad = Files::own(name);
            let at = 2 + 4 + 3 - bit / 8;
            bad.ak[at] ^= 1 << (bit % 8);
            let refused = bad.verify().unwrap_err();
            assert!(
                matches!(refused, TpmError::Structure(AttestError::AttestationKey { .. })),
                "{name} {bit}"
            );
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
        assert!(
            matches!(refused, TpmError::Scheme { .. } | TpmError::Signature { .. }),
            "{name}: {refused}"
        );
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
    assert!(matches!(
        Files { log: Some(other), ..good.clone() }.verify(),
        Err(TpmError::Replay { .. })
    ));
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
    assert_eq!(unchecked(&claims), ["event-log", "event-log", "ak-endorsement", "acpi"]);
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
    assert_eq!(unchecked(&claims), ["event-log", "ak-endorsement", "acpi"]);
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
