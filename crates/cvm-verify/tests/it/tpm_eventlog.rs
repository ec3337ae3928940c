//! Event logs of every bank and form, against the registers recorded with them.

use std::{collections::BTreeMap, fs, path::PathBuf};

use cvm_evidence::{
    eventlog::{Form, Log, LoggedEvent, MAX_BYTES, Registers},
    tpm::{Digest, HashAlg},
};
use serde_json::Value;

fn evidence(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/evidence");
    fs::read(folder.join(name)).unwrap()
}

fn registers(json: &Value) -> BTreeMap<u32, Digest> {
    let value = |text: &Value| Digest::from_hex(text.as_str().unwrap()).unwrap();
    json.as_object()
        .unwrap()
        .iter()
        .map(|(register, text)| (register.parse().unwrap(), value(text)))
        .collect()
}

const LOGS: [&str; 4] = ["cos-85-amd-sev", "cos-93-amd-sev", "rhel8-uefi", "ubuntu-1804-amd-sev"];

#[test]
fn four_logs_replay_exactly_in_each_bank() {
    for name in LOGS {
        let bytes = evidence(&format!("tpm/eventlogs/{name}.bin"));
        let log = Log::parse(&bytes, Registers::Pcrs).unwrap();
        let banks: Value =
            serde_json::from_slice(&evidence(&format!("tpm/eventlogs/{name}.bin.pcrs.json")))
                .unwrap();
        for (bank, expected) in banks.as_object().unwrap() {
            let bank = HashAlg::ALL.into_iter().find(|alg| alg.name() == bank).unwrap();
            assert_eq!(log.replay(bank).unwrap(), registers(expected), "{name}, {bank}");
            assert!(log.banks().contains(&bank));
            // Event by event: the last value is the register's.
            for (register, value) in registers(expected) {
                assert_eq!(
                    log.replay_register(bank, register).last().map_or(value, |(_, last)| last),
                    value
                );
            }
        }
        assert_eq!(log.replay(HashAlg::Sha512), None, "{name} has no such bank");
    }
}

#[test]
fn one_log_replays_in_three_banks_to_the_values_quoted() {
    let bytes = evidence("tpm/gce-cos-85-nonce9009/eventlog.bin");
    let log = Log::parse(&bytes, Registers::Pcrs).unwrap();
    assert_eq!(log.banks(), [HashAlg::Sha1, HashAlg::Sha256, HashAlg::Sha384]);
    assert_eq!(log.form(), Form::CryptoAgile);
    for bank in [HashAlg::Sha1, HashAlg::Sha256, HashAlg::Sha384] {
        let quoted: Value = serde_json::from_slice(&evidence(&format!(
            "tpm/gce-cos-85-nonce9009/pcrs-{bank}.json"
        )))
        .unwrap();
        let (quoted, replayed) = (registers(&quoted), log.replay(bank).unwrap());
        assert!(replayed.len() > 8);
        for (register, value) in replayed {
            assert_eq!(value, quoted[&register], "{bank} {register}");
        }
    }
}

/// The same measurements in the form of TPM 1.2.
fn sha1_form(log: &Log<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for record in log.records() {
        out.extend(record.register.to_le_bytes());
        out.extend(record.kind.to_le_bytes());
        out.extend(record.digest(HashAlg::Sha1).unwrap());
        out.extend((record.data.len() as u32).to_le_bytes());
        out.extend(record.data);
    }
    out
}

#[test]
fn a_sha1_only_log_replays_in_its_one_bank() {
    let bytes = evidence("tpm/eventlogs/rhel8-uefi.bin");
    let log = Log::parse(&bytes, Registers::Pcrs).unwrap();
    let old = sha1_form(&log);
    let spec_id =
        [&[0; 4][..], &3u32.to_le_bytes(), &[0; 20], &16u32.to_le_bytes(), b"Spec ID Event02\0"]
            .concat();
    for header in [&[][..], &spec_id] {
        for padding in [vec![], vec![0; 500], vec![0xff; 500]] {
            let old = [header, &old, &padding].concat();
            let old = Log::parse(&old, Registers::Pcrs).unwrap();
            assert_eq!((old.form(), old.banks()), (Form::Sha1, &[HashAlg::Sha1][..]));
            assert_eq!(old.replay(HashAlg::Sha1), log.replay(HashAlg::Sha1));
            assert_eq!(old.replay(HashAlg::Sha256), None);
        }
    }
}

/// A TDX guest's log, written as a CCEL: dstack keeps it as JSON.
fn ccel() -> (Vec<u8>, Value) {
    let info: Value = serde_json::from_slice(&evidence("ccel/near-mpc/tcb_info.json")).unwrap();
    let events: Value = match &info["event_log"] {
        Value::String(text) => serde_json::from_str(text).unwrap(),
        events => events.clone(),
    };
    let mut spec = b"Spec ID Event03\0".to_vec();
    spec.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0c, 0, 48, 0, 0]);
    // The header names a register here: Intel's firmware writes RTMR 0.
    let mut log = [
        &1u32.to_le_bytes()[..],
        &3u32.to_le_bytes(),
        &[0; 20],
        &(spec.len() as u32).to_le_bytes(),
        &spec,
    ]
    .concat();
    for event in events.as_array().unwrap() {
        let field = |name: &str| event[name].as_u64().unwrap() as u32;
        let hex = |name: &str| hex::decode(event[name].as_str().unwrap()).unwrap();
        log.extend((field("imr") + 1).to_le_bytes());
        log.extend(field("event_type").to_le_bytes());
        log.extend([1, 0, 0, 0, 0x0c, 0]);
        log.extend(hex("digest"));
        log.extend((hex("event_payload").len() as u32).to_le_bytes());
        log.extend(hex("event_payload"));
    }
    (log, info)
}

#[test]
fn a_tdx_guests_log_replays_to_its_four_rtmrs() {
    let (mut log, info) = ccel();
    assert!(Log::parse(&log, Registers::Pcrs).is_err(), "a PC Client log's header names PCR 0");
    log.resize(64 * 1024, 0xff);
    let parsed = Log::parse(&log, Registers::ConfidentialComputing).unwrap();
    let replayed = parsed.replay(HashAlg::Sha384).unwrap();
    for rtmr in 0..4_u32 {
        assert_eq!(
            replayed[&(rtmr + 1)].to_string(),
            info[format!("rtmr{rtmr}")].as_str().unwrap(),
            "RTMR{rtmr}"
        );
    }
    let first = parsed.records().iter().find(|record| record.register == 1).unwrap();
    assert_eq!(LoggedEvent::new(first, HashAlg::Sha384).kind, "EV_EFI_HANDOFF_TABLES2");
}

#[test]
fn registers_that_do_not_exist_are_refused() {
    let (log, _) = ccel();
    let header = 32 + 33;
    for (register, good) in [(4_u32, true), (5, false), (u32::MAX, false)] {
        let mut changed = log.clone();
        changed[header..header + 4].copy_from_slice(&register.to_le_bytes());
        assert_eq!(
            Log::parse(&changed, Registers::ConfidentialComputing).is_ok(),
            good,
            "{register}"
        );
    }
}

#[test]
fn events_are_described_by_what_their_digests_prove() {
    let bytes = evidence("tpm/eventlogs/ubuntu-1804-amd-sev.bin");
    let log = Log::parse(&bytes, Registers::Pcrs).unwrap();
    for bank in [HashAlg::Sha1, HashAlg::Sha256] {
        let events: Vec<_> =
            log.records().iter().map(|record| LoggedEvent::new(record, bank)).collect();
        let proven = |kind: &str, text: &str| {
            events.iter().any(|event| event.kind == kind && event.text.as_deref() == Some(text))
        };
        let claimed = |kind: &str, text: &str| {
            events
                .iter()
                .any(|event| event.kind == kind && event.unproven_text.as_deref() == Some(text))
        };
        assert!(proven("EV_EFI_VARIABLE_DRIVER_CONFIG", "SecureBoot"), "{bank}");
        assert!(proven("EV_EFI_ACTION", "Calling EFI Application from Boot Option"));
        // An image's digest is Authenticode's: the path is in the log alone.
        assert!(claimed("EV_EFI_BOOT_SERVICES_APPLICATION", "\\EFI\\ubuntu\\shimx64.efi"));
        assert!(
            events.iter().any(|event| event.kind == "EV_IPL" && event.text.is_some()),
            "a GRUB command"
        );
        assert!(events.iter().all(|event| event.text.is_none() || event.unproven_text.is_none()));
    }
}

#[test]
fn a_difference_is_explained_by_its_event() {
    let bytes = evidence("tpm/eventlogs/cos-85-amd-sev.bin");
    let log = Log::parse(&bytes, Registers::Pcrs).unwrap();
    let steps: Vec<_> = log.replay_register(HashAlg::Sha256, 7).map(|(_, value)| value).collect();
    let early = log.explain(7, &steps[2]);
    assert!(
        early.contains("after event 3 of") && early.contains("EV_EFI_VARIABLE_DRIVER_CONFIG"),
        "{early}"
    );
    assert!(log.explain(7, &Digest::filled(HashAlg::Sha256, 0)).contains("nothing was measured"));
    assert!(log.explain(7, &Digest::filled(HashAlg::Sha256, 9)).contains("not logged"));
    assert!(log.explain(16, &Digest::filled(HashAlg::Sha256, 9)).contains("no event"));
}

#[test]
fn attack_a_log_of_zeros_takes_linear_time() {
    // Every 32 zeros are an event of the SHA-1 form, and the last byte keeps them from being
    // padding.
    let mut log = vec![0; MAX_BYTES - 32];
    log.extend([0; 31]);
    log.push(1); // an event of 16 MiB
    assert!(Log::parse(&log, Registers::Pcrs).is_err());
    let end = log.len();
    log[end - 32..].copy_from_slice(&[0; 32]);
    log[end - 28] = 4; // a separator
    let parsed = Log::parse(&log, Registers::Pcrs).unwrap();
    assert_eq!(parsed.records().len(), MAX_BYTES / 32);
    assert!(Log::parse(&vec![0; MAX_BYTES + 1], Registers::Pcrs).is_err());
}

#[test]
fn attack_lengths_of_4_gib_are_refused() {
    let bytes = evidence("tpm/eventlogs/cos-85-amd-sev.bin");
    let header = 32 + u32::from_le_bytes(bytes[28..32].try_into().unwrap()) as usize;
    // The header's size, its number of banks; the first event's number of digests.
    for at in [28, 32 + 24, header + 8] {
        let mut changed = bytes.clone();
        changed[at..at + 4].fill(0xff);
        assert!(Log::parse(&changed, Registers::Pcrs).is_err(), "{at}");
    }
    let old = sha1_form(&Log::parse(&bytes, Registers::Pcrs).unwrap());
    let mut changed = old.clone();
    changed[28..32].fill(0xff);
    assert!(Log::parse(&changed, Registers::Pcrs).is_err());
}

/// Every bit of every digest counts in its own bank, and in no other.
#[test]
fn a_flipped_digest_bit_changes_its_banks_register() {
    let bytes = evidence("tpm/gce-cos-85-nonce9009/eventlog.bin");
    let log = Log::parse(&bytes, Registers::Pcrs).unwrap();
    let banks = [HashAlg::Sha1, HashAlg::Sha256, HashAlg::Sha384];
    for record in log.records().iter().step_by(9) {
        for bank in banks {
            let digest = record.digest(bank).unwrap();
            let at = digest.as_ptr() as usize - bytes.as_ptr() as usize;
            let mut changed = bytes.clone();
            changed[at + digest.len() / 2] ^= 0x10;
            let changed = Log::parse(&changed, Registers::Pcrs).unwrap();
            for other in banks {
                assert_eq!(
                    changed.replay(other) == log.replay(other),
                    bank != other,
                    "{bank} {other}"
                );
            }
        }
    }
}
