//! Event logs: replay, differences, forgeries, both forms.

use cvm_base::Explain as _;
use cvm_evidence::rtmr::{RtmrEvent, explain};
use cvm_verify::tdx::{CcEventLog, TdxError, TdxEvidence};
use serde_json::{Value, json};

use super::{NEAR, evidence, quote, verifier};

#[test]
fn the_event_log_replays_all_four_registers() {
    let log = evidence("ccel/near-mpc/tcb_info.json");
    let verifier = verifier("near-mpc", NEAR).unwrap();
    let parsed = TdxEvidence::parse(&quote("near-mpc"), Some(&log)).unwrap();
    let claims = verifier.verify(&parsed, None, NEAR).unwrap();
    assert_eq!(CcEventLog::parse(&log).unwrap().replay(), claims.rtmrs());
    let document: Value = serde_json::from_slice(&log).unwrap();
    for (rtmr, value) in claims.rtmrs().iter().enumerate() {
        assert_eq!(document[format!("rtmr{rtmr}")], value.to_string());
    }
    assert!(claims.not_checked.iter().all(|check| check.check != "event-log"));
    // The array alone, and as a string within an object, are the same log.
    let array = serde_json::to_vec(&document["event_log"]).unwrap();
    let text = json!({ "event_log": String::from_utf8(array.clone()).unwrap() }).to_string();
    for form in [&array[..], text.as_bytes()] {
        assert_eq!(CcEventLog::parse(form).unwrap(), CcEventLog::parse(&log).unwrap());
    }
    // Names that the digests prove.
    let measurements = claims.measurements();
    let named = |name: &str| measurements.iter().any(|event| event.event == name);
    for name in [
        "variable SecureBoot",
        "separator",
        "Calling EFI Application from Boot Option",
        "dstack compose-hash",
    ] {
        assert!(named(name), "{name}");
    }
    assert!(
        measurements
            .iter()
            .any(|event| event.event == "LOADED_IMAGE::LoadOptions" && event.rtmr == 2)
    );
}

#[test]
fn a_mismatch_names_the_register_and_the_first_event() {
    let verifier = verifier("near-mpc", NEAR).unwrap();
    let log = evidence("ccel/near-mpc/tcb_info.json");
    let parsed = TdxEvidence::parse(&quote("near-mpc"), Some(&log)).unwrap();
    let found = verifier.verify(&parsed, None, NEAR).unwrap().measurements();
    assert_eq!(explain(&found, &found), []);
    let mut expected = found.clone();
    let changed = |event: &mut RtmrEvent| event.digest.0[0] ^= 1;
    let options =
        expected.iter().position(|event| event.event == "LOADED_IMAGE::LoadOptions").unwrap();
    changed(&mut expected[options]);
    let [mismatch] = &explain(&expected, &found)[..] else { panic!() };
    assert_eq!(
        (mismatch.rtmr, mismatch.position, &*mismatch.likely),
        (2, 0, "the command line changed")
    );
    changed(&mut expected[1]);
    changed(&mut expected[0]);
    let [memory, _] = &explain(&expected, &found)[..] else { panic!() };
    assert_eq!((memory.rtmr, memory.position), (0, 0));
    assert!(memory.likely.contains("memory size"), "{memory}");
}

#[test]
fn attack_event_log_changed() {
    let verifier = verifier("near-mpc", NEAR).unwrap();
    let quote = quote("near-mpc");
    let log: Value = serde_json::from_slice(&evidence("ccel/near-mpc/tcb_info.json")).unwrap();
    let events = log["event_log"].as_array().unwrap();
    let verify = |events: &[Value]| {
        let log = serde_json::to_vec(events).unwrap();
        verifier.verify(&TdxEvidence::parse(&quote, Some(&log))?, None, NEAR).map(drop)
    };
    assert_eq!(verify(events), Ok(()));
    for left_out in 0..events.len() {
        let mut fewer = events.clone();
        let event = fewer.remove(left_out);
        let refused = verify(&fewer).unwrap_err();
        let rtmr = event["imr"].as_u64().unwrap();
        assert!(
            matches!(&refused, TdxError::Replay { rtmr: found, .. } if u64::from(*found) == rtmr),
            "{refused}"
        );
    }
    // A payload that its digest does not cover: dstack's policies read it.
    let compose = events.iter().position(|event| event["event"] == "compose-hash").unwrap();
    for (member, value) in [("event_payload", "00"), ("event", "app-id")] {
        let mut lie = events.clone();
        lie[compose][member] = json!(value);
        assert_eq!(verify(&lie).unwrap_err().code(), "ATT-318");
    }
    for (member, value) in
        [("imr", json!(4)), ("digest", json!("00")), ("event_payload", json!("0"))]
    {
        let mut bad = events.clone();
        bad[0][member] = value;
        assert_eq!(verify(&bad).unwrap_err().code(), "ATT-318", "{member}");
    }
    assert_eq!(verify(&[]).unwrap_err().code(), "ATT-319");
}

/// A CCEL area written from the same measurements, with the padding that firmware leaves.
#[test]
fn a_ccel_area_replays_like_dstacks_log() {
    let json = evidence("ccel/near-mpc/tcb_info.json");
    let log = CcEventLog::parse(&json).unwrap();
    let area = ccel(&log);
    for padding in [&[][..], &[0; 1000], &[0xff; 1000]] {
        let padded = [&area[..], padding].concat();
        let parsed = CcEventLog::parse(&padded).unwrap();
        assert_eq!(parsed.replay(), log.replay());
        assert_eq!(parsed.events().len(), log.events().len());
        let evidence = TdxEvidence::parse(&quote("near-mpc"), Some(&padded)).unwrap();
        verifier("near-mpc", NEAR).unwrap().verify(&evidence, None, NEAR).unwrap();
    }
    for end in 0..area.len() {
        if let Ok(cut) = CcEventLog::parse(&area[..end]) {
            assert_ne!(cut.replay(), log.replay(), "cut at {end}");
        }
    }
    for bad in
        [&[0xff; 500][..], b"", b"{", b"[{}]", &[0; 2_000_000], &[&area[..], &[1; 40]].concat()]
    {
        assert_eq!(CcEventLog::parse(bad).unwrap_err().code(), "ATT-318");
    }
    // A size of 4 GiB is refused, not allocated.
    let mut huge = area.clone();
    huge[65 + 12 + 50..65 + 12 + 54].fill(0xff);
    assert!(CcEventLog::parse(&huge).is_err());
}

fn ccel(log: &CcEventLog) -> Vec<u8> {
    // TCG_PCR_EVENT: register 1, EV_NO_ACTION, zeros; Spec ID with one bank, SHA-384.
    let mut area =
        [&[1, 0, 0, 0, 3, 0, 0, 0][..], &[0; 20], &[33, 0, 0, 0], b"Spec ID Event03\0"].concat();
    area.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0c, 0, 48, 0, 0]);
    let mut event = |index: u32, kind: u32, digest: &[u8], data: &[u8]| {
        area.extend(
            [&index.to_le_bytes()[..], &kind.to_le_bytes(), &[1, 0, 0, 0, 0x0c, 0], digest]
                .concat(),
        );
        area.extend([&(data.len() as u32).to_le_bytes()[..], data].concat());
    };
    event(1, 3, &[0; 48], b"informs, extends nothing");
    for e in log.events() {
        event(u32::from(e.rtmr) + 1, e.kind, &e.digest.0, &e.data);
    }
    area
}
