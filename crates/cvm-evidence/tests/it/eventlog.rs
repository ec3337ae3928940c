//! Real event logs replay to the registers recorded with them; damaged ones are refused.

use std::{collections::BTreeMap, fs, path::PathBuf};

use cvm_evidence::{
    AttestError,
    eventlog::{EventLog, MAX_BYTES},
};

fn vector(name: &str) -> Vec<u8> {
    fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(name))
        .unwrap()
}

fn sha256_pcrs(name: &str) -> BTreeMap<u8, String> {
    let all: serde_json::Value = serde_json::from_slice(&vector(name)).unwrap();
    let bank = all.get("sha256").unwrap_or(&all);
    bank.as_object()
        .unwrap()
        .iter()
        .map(|(k, v)| (k.parse().unwrap(), v.as_str().unwrap().into()))
        .collect()
}

const LOGS: [(&str, &str); 7] = [
    ("eventlogs/cos-85-amd-sev.bin", "eventlogs/cos-85-amd-sev.bin.pcrs.json"),
    ("eventlogs/cos-93-amd-sev.bin", "eventlogs/cos-93-amd-sev.bin.pcrs.json"),
    ("eventlogs/rhel8-uefi.bin", "eventlogs/rhel8-uefi.bin.pcrs.json"),
    ("eventlogs/ubuntu-1804-amd-sev.bin", "eventlogs/ubuntu-1804-amd-sev.bin.pcrs.json"),
    ("gce-cos-85-nonce9009/eventlog.bin", "gce-cos-85-nonce9009/pcrs-sha256.json"),
    ("boot-debian12/eventlog.bin", "boot-debian12/pcrs.json"),
    ("boot-debian12/eventlog-with-cdrom.bin", "boot-debian12/pcrs-with-cdrom.json"),
];

#[test]
fn real_logs_replay_to_the_registers_recorded_with_them() {
    for (log, pcrs) in LOGS {
        let bytes = vector(log);
        let parsed = EventLog::parse(&bytes).unwrap();
        let replayed = parsed.replay();
        let expected = sha256_pcrs(pcrs);
        assert!(parsed.events().len() > 20, "{log}");
        for (pcr, value) in &replayed {
            assert_eq!(value.to_string(), expected[pcr], "{log}: PCR {pcr}");
        }
        assert!((0..8).all(|pcr| replayed.contains_key(&pcr)), "{log}");
    }
}

#[test]
fn padding_behind_the_log_is_ignored_and_costs_nothing() {
    let mut bytes = vector(LOGS[0].0);
    let plain = EventLog::parse(&bytes.clone()).unwrap().replay();
    for filler in [0x00, 0xff] {
        bytes.resize(MAX_BYTES, filler);
        assert_eq!(EventLog::parse(&bytes).unwrap().replay(), plain);
        bytes.truncate(vector(LOGS[0].0).len());
    }
}

#[test]
fn a_log_over_its_limit_is_refused_unread() {
    let mut bytes = vector(LOGS[0].0);
    bytes.resize(MAX_BYTES + 1, 0);
    assert!(matches!(EventLog::parse(&bytes), Err(AttestError::Malformed { .. })));
}

/// A log cut anywhere is an error or lacks measurements: it never reaches the same registers.
#[test]
fn a_truncated_log_never_replays_to_the_same_registers() {
    let bytes = vector("boot-debian12/eventlog.bin");
    let whole = EventLog::parse(&bytes).unwrap().replay();
    for end in 0..bytes.len() {
        if let Ok(log) = EventLog::parse(&bytes[..end]) {
            assert_ne!(log.replay(), whole, "cut at {end}");
        }
    }
}

#[test]
fn a_flipped_digest_bit_changes_a_register() {
    let bytes = vector("boot-debian12/eventlog.bin");
    let whole = EventLog::parse(&bytes).unwrap();
    let digests: Vec<_> = whole.events().iter().map(|event| event.digest.0).collect();
    for digest in digests {
        let at = bytes.windows(32).position(|window| window == digest).unwrap();
        for bit in [0, 7, 131, 255] {
            let mut changed = bytes.clone();
            changed[at + bit / 8] ^= 1 << (bit % 8);
            assert_ne!(EventLog::parse(&changed).unwrap().replay(), whole.replay());
        }
    }
}

/// The event data is not measured: a lie in it must not name an event.
#[test]
fn a_lie_in_event_data_is_not_repeated() {
    let bytes = vector("boot-debian12/eventlog.bin");
    let honest: Vec<_> =
        EventLog::parse(&bytes).unwrap().events().iter().map(|e| e.describe()).collect();
    assert!(honest.contains(&"variable SecureBoot".into()));
    assert!(honest.contains(&"Calling EFI Application from Boot Option".into()));
    let text = b"Calling EFI Application";
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    let mut changed = bytes;
    changed[at..at + 7].copy_from_slice(b"Trusted");
    let log = EventLog::parse(&changed).unwrap();
    assert!(log.events().iter().all(|event| !event.describe().contains("Trusted")));
}

/// Spec ID header and the events given, with one SHA-256 bank.
fn synthetic(events: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let mut spec = b"Spec ID Event03\0".to_vec();
    spec.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0b, 0, 32, 0, 0]);
    let mut log =
        [&[0; 4][..], &3u32.to_le_bytes(), &[0; 20], &(spec.len() as u32).to_le_bytes(), &spec]
            .concat();
    for (pcr, kind, data) in events {
        log.extend([pcr.to_le_bytes(), kind.to_le_bytes(), 1u32.to_le_bytes()].concat());
        log.extend([0x0b, 0]);
        log.extend([7; 32]);
        log.extend((data.len() as u32).to_le_bytes());
        log.extend(*data);
    }
    log
}

#[test]
fn startup_locality_sets_where_pcr_0_begins() {
    let plain = synthetic(&[(0, 8, b"x")]);
    let locality_3 = synthetic(&[(0, 3, b"StartupLocality\0\x03"), (0, 8, b"x")]);
    let (plain, locality_3) =
        (EventLog::parse(&plain).unwrap().replay(), EventLog::parse(&locality_3).unwrap().replay());
    assert_ne!(plain[&0], locality_3[&0]);
}

#[test]
fn two_startup_localities_that_differ_are_refused() {
    let twice = synthetic(&[
        (0, 3, b"StartupLocality\0\x00"),
        (0, 3, b"StartupLocality\0\x03"),
        (0, 8, b"x"),
    ]);
    assert!(EventLog::parse(&twice).unwrap_err().to_string().contains("StartupLocalities"));
    // Wherever it is and however often: PCR 0 began with it, which the quote proves or not.
    let early = synthetic(&[(0, 3, b"StartupLocality\0\x03"), (0, 8, b"x")]);
    let late = synthetic(&[
        (0, 8, b"x"),
        (0, 3, b"StartupLocality\0\x03"),
        (0, 3, b"StartupLocality\0\x03"),
    ]);
    assert_eq!(EventLog::parse(&late).unwrap().replay(), EventLog::parse(&early).unwrap().replay());
}

#[test]
fn counts_and_sizes_that_lie_are_refused() {
    let good = synthetic(&[(4, 4, &[0; 4])]);
    EventLog::parse(&good).unwrap();
    let event = synthetic(&[]).len();
    // PCR 24; 2^32−1 digests; an unknown bank; an event of 4 GiB.
    for (at, bytes) in [(0, [24, 0, 0, 0]), (8, [0xff; 4]), (12, [0x0c, 0, 7, 7]), (46, [0xff; 4])]
    {
        let mut bad = good.clone();
        bad[event + at..event + at + 4].copy_from_slice(&bytes);
        assert!(EventLog::parse(&bad).is_err(), "offset {at}");
    }
    // In the header: 2^32−1 banks, a SHA-256 bank of 20 bytes, a SHA-1-only log.
    for (at, bytes) in
        [(32 + 24, vec![0xff; 4]), (32 + 30, vec![20, 0]), (32, b"Spec ID Event00\0".to_vec())]
    {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(&bytes);
        assert!(EventLog::parse(&bad).is_err(), "header offset {at}");
    }
}
