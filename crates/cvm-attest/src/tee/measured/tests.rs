use serde_json::json;

use super::*;
use crate::reference::{Platforms, PredictedEvent, TpmReference};

fn hex48(byte: u8) -> String {
    Bytes([byte; 48]).to_string()
}

fn reference() -> Reference {
    let events = [4, 7, 11].map(|pcr| PredictedEvent { pcr, event: "event".into(), digest: Bytes([pcr; 32]) });
    let tpm = TpmReference::from_events(events.to_vec(), &[]);
    let least = SnpTcb { bootloader: 3, tee: 0, snp: 8, microcode: 115 };
    let snp = |platform: &str, byte, min_tcb| SnpReference {
        platform: platform.into(),
        measurement: Bytes([byte; 48]),
        min_tcb,
        variants: vec![],
    };
    let tdx = TdxReference {
        platform: "q35".into(),
        mrtd: Bytes([1; 48]),
        rtmr0: Bytes([2; 48]),
        rtmr1: Bytes([3; 48]),
        rtmr2: Bytes([4; 48]),
        rtmr3: Bytes([0; 48]),
        events: vec![],
    };
    let pcrs = BTreeMap::from([(4, Bytes([4; 32])), (11, Bytes([11; 32]))]);
    let azure = AzureReference { platform: "DC".into(), tee: AzureTee::Snp, measurement: Bytes([9; 48]), pcrs };
    let platforms = Platforms {
        snp: vec![snp("4 vCPUs", 1, Some(least)), snp("8 vCPUs", 2, None)],
        tdx: vec![tdx],
        azure: vec![azure],
    };
    Reference::new(Bytes([7; 16]), Bytes([8; 32]), tpm, platforms)
}

fn told(annotated: &Value) -> (Phase, String) {
    phase(annotated, &reference()).unwrap()
}

fn snp_claims(measurement: u8, microcode: u8) -> Value {
    json!({ "snp": { "measurement": hex48(measurement), "reported_tcb_bootloader": 4, "reported_tcb_tee": 0,
        "reported_tcb_snp": 8, "reported_tcb_microcode": microcode } })
}

fn tdx_claims(rtmr_1: u8, rtmr_3: &str) -> Value {
    json!({ "tdx": { "quote": { "body": { "mr_td": hex48(1), "rtmr_0": hex48(2), "rtmr_1": hex48(rtmr_1),
        "rtmr_2": hex48(4), "rtmr_3": rtmr_3 } } } })
}

fn azure_claims(measurement: u8, pcr11: &Bytes32) -> Value {
    let pcr04 = Bytes([4_u8; 32]).to_string();
    let tpm = json!({ "pcr04": pcr04, "pcr11": pcr11, "pcr15": UNTOUCHED });
    json!({ "az-snp-vtpm": { "measurement": hex48(measurement), "tpm": tpm } })
}

#[test]
fn snp_shows_the_image_and_never_a_handoff() {
    assert_eq!(told(&snp_claims(1, 115)).0, Phase::Boot);
    assert_eq!(told(&snp_claims(2, 0)).0, Phase::Boot, "that platform asks for no TCB");
    let (phase, problem) = told(&snp_claims(3, 115));
    assert_eq!(phase, Phase::Other);
    assert!(problem.contains("4 vCPUs") && problem.contains("8 vCPUs"), "{problem}");
}

#[test]
fn attack_tcb_rollback() {
    let (phase, problem) = told(&snp_claims(1, 114));
    assert_eq!(phase, Phase::Other);
    assert_eq!(problem, "snp: the TCB's microcode is 114, at least 115 is asked for");
}

#[test]
fn a_td_shows_its_phase_in_rtmr3() {
    assert_eq!(told(&tdx_claims(3, &hex48(0))).0, Phase::Boot);
    let handed_off = rtmr::extend(&Bytes([0; 48]), &td_handoff_digest());
    assert_eq!(told(&tdx_claims(3, &handed_off.to_string())).0, Phase::AfterHandoff);
    let opened = rtmr::extend(&handed_off, &td_jobs_digest());
    assert_eq!(told(&tdx_claims(3, &opened.to_string())).0, Phase::JobsOpened);
    let (phase, problem) = told(&tdx_claims(3, &hex48(5)));
    assert_eq!(phase, Phase::Other);
    assert!(problem.contains("RTMR3"), "{problem}");
    let (phase, problem) = told(&tdx_claims(6, &hex48(0)));
    assert_eq!(phase, Phase::Other);
    assert!(problem.contains("RTMR1 is 0606"), "{problem}");
}

#[test]
fn azures_vtpm_shows_its_phase_in_pcr_11() {
    let boot = Bytes([11; 32]);
    assert_eq!(told(&azure_claims(9, &boot)).0, Phase::Boot);
    assert_eq!(told(&azure_claims(9, &extend(&boot, &handoff_digest()))).0, Phase::AfterHandoff);
    assert!(told(&azure_claims(9, &Bytes([0; 32]))).1.contains("PCR 11"));
    assert!(told(&azure_claims(8, &boot)).1.contains("paravisor"));
    let as_td = json!({ "az-tdx-vtpm": azure_claims(9, &boot)["az-snp-vtpm"] });
    assert_eq!(told(&as_td).0, Phase::Other, "another TEE's reference values");
}

#[test]
fn azures_vtpm_shows_in_pcr_15_that_p5_is_open() {
    let mut claims = azure_claims(9, &extend(&Bytes([11; 32]), &handoff_digest()));
    claims["az-snp-vtpm"]["tpm"]["pcr15"] = json!(extend(&UNTOUCHED, &crate::jobs_digest()));
    assert_eq!(told(&claims).0, Phase::JobsOpened);
    // Whoever leaves the register out of the quote has something to hide.
    claims["az-snp-vtpm"]["tpm"].as_object_mut().unwrap().remove("pcr15");
    let (phase, problem) = told(&claims);
    assert_eq!(phase, Phase::Other);
    assert!(problem.contains("PCR 15"), "{problem}");
}

#[test]
fn claims_that_lack_what_is_compared_are_of_no_image() {
    for kind in ["snp", "tdx", "az-snp-vtpm", "az-tdx-vtpm"] {
        assert_eq!(told(&json!({ kind: {} })).0, Phase::Other, "{kind}");
    }
    assert_eq!(phase(&json!({ "tpm": {} }), &reference()), None);
}

#[test]
fn reference_values_state_the_version_that_they_need() {
    let good = reference();
    assert_eq!((good.version, Reference::parse(&good.to_bytes()).unwrap()), (2, good.clone()));
    let without = Reference::new(good.image_id, good.manifest_sha256, good.tpm.clone(), Platforms::default());
    assert_eq!((without.version, Reference::parse(&without.to_bytes()).unwrap()), (1, without.clone()));
    assert!(!String::from_utf8(without.to_bytes()).unwrap().contains("snp"));
    for (reference, problem) in [
        (Reference { version: 1, ..good.clone() }, "which version 1 does not have"),
        (Reference { version: 2, ..without.clone() }, "without values of any TEE"),
        (Reference { version: 3, ..good.clone() }, "version 3, this program reads 1 and 2"),
        (Reference { snp: vec![good.snp[0].clone(); 33], ..good.clone() }, "at most 32"),
        (Reference { azure: vec![AzureReference { pcrs: [].into(), ..good.azure[0].clone() }], ..good }, "PCR 11"),
    ] {
        let error = Reference::parse(&reference.to_bytes()).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}
