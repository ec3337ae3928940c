//! Code in the host's ACPI tables under the shipped policies and the written ones. The logs are of
//! real boots, with and without an attack: see `vectors/PROVENANCE.md`.

use std::collections::BTreeMap;

use cvm_base::{Bytes, Bytes32};
use cvm_evidence::{
    ReferenceSet,
    eventlog::{EventLog, PredictedEvent},
    platform::TdxReference,
    reference::TpmReference,
    reference_set::FirmwareReference,
};
use cvm_policy::{Decision, Policy, new_policies};
use serde_json::{Value, json};

const TPM: &str = include_str!("../../../../keys/policies/tpm.rego");
const ROOT: Bytes32 = Bytes([0xee; 32]);

fn log(name: &str) -> Vec<u8> {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/host-acpi");
    std::fs::read(folder.join(name)).unwrap()
}

fn registers(log: &[u8]) -> BTreeMap<u8, Bytes32> {
    let mut values = EventLog::parse(log).unwrap().replay();
    for pcr in 0..16 {
        values.entry(pcr).or_insert(Bytes([0; 32]));
    }
    values
}

/// A key holder's claims of the machine that wrote this log.
fn machine(log: &[u8]) -> Value {
    let registers = registers(log);
    let mut claims = json!({
        "ek_root_sha256": ROOT, "trust": "untrusted-host", "handed_off": false, "pcrs": registers,
        "not_checked": [{"check": "acpi", "reason": "PCR 0 and 1 were not compared"}],
    });
    registers.iter().for_each(|(pcr, value)| claims[format!("pcr{pcr:02}")] = json!(value));
    claims
}

fn decide(policy: &str, kind: &str, claims: &Value, data: &Value) -> Decision {
    let input = json!({"submods": {"cpu0": {"ear.veraison.annotated-evidence": { kind: claims }}}});
    Policy::compile("policy.rego", policy.as_bytes()).unwrap().decide(&input, data).unwrap()
}

/// The shipped policy of a party, on the boot that the log is of.
fn shipped(log: &[u8], edits: &[(&str, &str)]) -> Decision {
    let mut policy = TPM.replace("@EK_ROOT_SHA256@", &ROOT.to_string());
    for (from, to) in edits {
        assert!(policy.contains(from), "{from}");
        policy = policy.replace(from, to);
    }
    decide(&policy, "tpm", &machine(log), &json!({"reference": {"tpm": {"pcrs": registers(log)}}}))
}

const NOT_BY_NAME: (&str, &str) =
    (r#"accepted_not_checked := {"acpi", "ocsp"}"#, r#"accepted_not_checked := {"ocsp"}"#);

#[test]
fn attack_acpi_code_of_the_host_under_a_policy_that_names_the_firmware() {
    let (honest, attacked) = (log("debian13-honest.bin"), log("debian13-attacked.bin"));
    let known = FirmwareReference::of_log(&honest).unwrap();
    let other = FirmwareReference::of_log(&attacked).unwrap();
    assert_eq!(known.pcr0, other.pcr0, "the firmware's code is the same");
    let named = format!("firmware := {{{}}}", json!(known));
    let named = ("firmware := set()", named.as_str());
    for edits in [&[named][..], &[named, NOT_BY_NAME]] {
        let decision = shipped(&honest, edits);
        assert!(decision.allowed && decision.not_checked.is_empty(), "{:?}", decision.reasons);
        let refused = shipped(&attacked, edits);
        assert!(
            !refused.allowed && refused.reasons[0].contains(&other.pcr1.to_string()),
            "{:?}",
            refused.reasons
        );
    }
}

#[test]
fn attack_acpi_code_of_the_host_under_firmware_that_measures_none() {
    let (honest, attacked) = (log("debian12-honest.bin"), log("debian12-attacked.bin"));
    let same =
        |pcr| assert_eq!(registers(&honest).get(&pcr), registers(&attacked).get(&pcr), "PCR {pcr}");
    (0..8).for_each(same);
    for log in [honest, attacked] {
        let error = FirmwareReference::of_log(&log).unwrap_err();
        assert!(error.to_string().contains("measured no ACPI tables"), "{error}");
        // Nothing tells the two apart: who accepts either accepts both, by this name.
        assert!(shipped(&log, &[]).allowed);
        let refused = shipped(&log, &[NOT_BY_NAME]);
        assert_eq!(
            refused.reasons,
            ["acpi was not checked, and accepted_not_checked does not list it"]
        );
    }
}

#[test]
fn a_tpm_that_is_trusted_is_one_of_firmware_that_the_policy_names() {
    let honest = log("debian13-honest.bin");
    let trusted = format!(r#"trusted_machines := {{"{ROOT}": {{"bind"}}}}"#);
    let trusted = ("trusted_machines := {}", trusted.as_str());
    let refused = shipped(&honest, &[trusted]);
    // The reason is the line to name.
    let known = json!(FirmwareReference::of_log(&honest).unwrap());
    assert_eq!(refused.reasons.len(), 1);
    for value in ["pcr0", "pcr1"].map(|member| known[member].as_str().unwrap()) {
        assert!(refused.reasons[0].contains(value), "{:?}", refused.reasons);
    }
    let named = format!("firmware := {{{known}}}");
    assert!(shipped(&honest, &[trusted, ("firmware := set()", &named)]).allowed);
}

#[test]
fn written_policies_check_acpi_where_a_register_covers_it() {
    let (honest, attacked) = (log("debian13-honest.bin"), log("debian13-attacked.bin"));
    let event = |pcr| PredictedEvent { pcr, event: "e".into(), digest: Bytes([pcr; 32]) };
    let tpm = TpmReference::from_events(vec![event(4), event(7), event(11)], &[]);
    let mut set = ReferenceSet {
        tpm: Some(tpm.clone()),
        ek_roots: vec![ROOT],
        tdx: vec![TdxReference {
            platform: "t".into(),
            mrtd: Bytes([2; 48]),
            rtmr0: Bytes([3; 48]),
            rtmr1: Bytes([4; 48]),
            rtmr2: Bytes([5; 48]),
            rtmr3: Bytes([0; 48]),
            events: vec![],
        }],
        ..ReferenceSet::new(Bytes([7; 16]))
    };
    let ask = |set: &ReferenceSet, kind: &str, mut claims: Value| {
        let [(_, policy), ..] = new_policies(set).unwrap();
        claims["not_checked"] = json!([{"check": "acpi", "reason": "host"}]);
        decide(&policy, kind, &claims, &json!({})).reasons
    };
    let booted = |log: &[u8]| {
        let mut claims = machine(log);
        tpm.pcrs.iter().for_each(|(pcr, value)| claims[format!("pcr{pcr:02}")] = json!(value));
        claims
    };
    let left_out = ["acpi was not checked, and accepted_not_checked does not list it"];
    assert_eq!(ask(&set, "tpm", booted(&honest)), left_out);
    set.firmware = vec![FirmwareReference::of_log(&honest).unwrap()];
    assert_eq!(ReferenceSet::parse(&set.to_bytes()).unwrap(), set);
    assert_eq!(ask(&set, "tpm", booted(&honest)), [""; 0]);
    let refused = ask(&set, "tpm", booted(&attacked));
    assert!(
        refused.iter().any(|reason| reason.contains("which tpm_firmware does not name")),
        "{refused:?}"
    );

    let snp = json!({
        "measurement": Bytes([1; 48]), "policy_debug_allowed": false, "policy_migrate_ma": false,
        "vmpl": 0,
    });
    let refused = ask(&set, "snp", snp);
    assert!(
        refused.iter().any(|reason| reason == left_out[0]),
        "no launch digest covers them: {refused:?}"
    );
    let td = |rtmr0: u8| {
        let [mr_td, rtmr_0, rtmr_1, rtmr_2, rtmr_3] =
            [2, rtmr0, 4, 5, 0].map(|byte| Bytes([byte; 48]));
        json!({
            "quote": {"body": {
                "mr_td": mr_td, "rtmr_0": rtmr_0, "rtmr_1": rtmr_1,
                "rtmr_2": rtmr_2, "rtmr_3": rtmr_3,
            }},
            "td_attributes": {"debug": false}, "tcb_status": "UpToDate", "advisory_ids": [],
        })
    };
    assert_eq!(ask(&set, "tdx", td(3)), [""; 0]);
    // A TD's word about its own tables is none about another CPU's.
    let [(_, policy), ..] = new_policies(&set).unwrap();
    let left = json!([{"check": "acpi", "reason": "host"}]);
    let beside = json!({"submods": {
        "cpu0": {"ear.veraison.annotated-evidence": {"tdx": td(3)}},
        "cpu1": {"ear.veraison.annotated-evidence": {"snp": {"not_checked": left}}},
    }});
    let refused = Policy::compile("policy.rego", policy.as_bytes())
        .unwrap()
        .decide(&beside, &json!({}))
        .unwrap();
    assert_eq!(refused.reasons, left_out);
    let refused = ask(&set, "tdx", td(9));
    assert!(refused.iter().any(|reason| reason == left_out[0]), "another RTMR0: {refused:?}");
}
