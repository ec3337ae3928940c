use serde_json::json;

use super::*;
use cvm_evidence::{
    eventlog::PredictedEvent,
    reference::{Platforms, TpmReference},
};

fn hex48(byte: u8) -> String {
    Bytes([byte; 48]).to_string()
}

fn reference() -> Reference {
    let events = [4, 7, 11].map(|pcr| PredictedEvent {
        pcr,
        event: "event".into(),
        digest: Bytes([pcr; 32]),
    });
    let tpm = TpmReference::from_events(events.to_vec(), &[]);
    let floor = |text: &str| text.parse::<TcbFloor>().unwrap();
    let snp = |platform: &str, byte, tcb_floor| SnpReference {
        platform: platform.into(),
        measurement: Bytes([byte; 48]),
        tcb_floor,
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
    let azure = AzureReference {
        platform: "DC".into(),
        tee: AzureTee::Snp,
        measurement: Bytes([9; 48]),
        tcb_floor: floor("milan=3.0.8.115"),
        pcrs,
    };
    let platforms = Platforms {
        snp: vec![
            snp("4 vCPUs", 1, floor("milan-b1=3.0.8.115")),
            snp("8 vCPUs", 2, TcbFloor::default()),
        ],
        tdx: vec![tdx],
        azure: vec![azure],
    };
    Reference::new(Bytes([7; 16]), Bytes([8; 32]), tpm, platforms)
}

fn told(annotated: &Value) -> (Phase, String) {
    phase(annotated, &reference()).unwrap()
}

fn tcb(chip: [&str; 2], microcode: u8) -> Value {
    let [product, stepping] = chip;
    json!({ "product": product, "stepping": stepping, "reported_tcb_bootloader": 4,
        "reported_tcb_tee": 0,
        "reported_tcb_snp": 8, "reported_tcb_microcode": microcode,
        "launch_tcb": { "bootloader": 4, "tee": 0, "snp": 8, "microcode": 115 } })
}

fn snp_claims(measurement: u8, microcode: u8) -> Value {
    let mut claims = tcb(["Milan", "B1"], microcode);
    claims["measurement"] = json!(hex48(measurement));
    json!({ "snp": claims })
}

fn tdx_claims(rtmr_1: u8, rtmr_3: &str) -> Value {
    json!({ "tdx": { "quote": { "body": { "mr_td": hex48(1), "rtmr_0": hex48(2),
        "rtmr_1": hex48(rtmr_1),
        "rtmr_2": hex48(4), "rtmr_3": rtmr_3 } } } })
}

fn azure_claims(measurement: u8, pcr11: &Bytes32) -> Value {
    let pcr04 = Bytes([4_u8; 32]).to_string();
    let mut claims = tcb(["Milan", "B1"], 115);
    claims["measurement"] = json!(hex48(measurement));
    claims["tpm"] = json!({ "pcr04": pcr04, "pcr11": pcr11, "pcr15": UNTOUCHED });
    json!({ "az-snp-vtpm": claims })
}

#[test]
fn snp_shows_the_image_and_never_a_handoff() {
    assert_eq!(told(&snp_claims(1, 115)).0, Phase::Boot);
    let (phase, problem) = told(&snp_claims(3, 115));
    assert_eq!(phase, Phase::Other);
    assert!(problem.contains("4 vCPUs") && problem.contains("8 vCPUs"), "{problem}");
}

#[test]
fn attack_tcb_rollback() {
    let (phase, problem) = told(&snp_claims(1, 114));
    assert_eq!(phase, Phase::Other);
    assert_eq!(
        problem,
        "snp: the reported TCB's microcode is 114, at least 115 is asked for of Milan-B1"
    );
    // Firmware that was updated after it launched, and measured, the guest.
    let mut launched = snp_claims(1, 115);
    launched["snp"]["launch_tcb"]["snp"] = json!(7);
    let (phase, problem) = told(&launched);
    assert_eq!(phase, Phase::Other);
    assert_eq!(problem, "snp: the launch TCB's snp is 7, at least 8 is asked for of Milan-B1");
    let mut azure = azure_claims(9, &Bytes([11; 32]));
    azure["az-snp-vtpm"]["reported_tcb_microcode"] = json!(114);
    let (phase, problem) = told(&azure);
    assert_eq!(phase, Phase::Other);
    assert!(problem.contains("the reported TCB's microcode is 114"), "{problem}");
}

#[test]
fn attack_a_product_that_no_floor_names() {
    for chip in [["Genoa", "B1"], ["Milan", "B2"], ["Siena", "A2"]] {
        let mut claims = snp_claims(1, 255);
        for (name, value) in tcb(chip, 255).as_object().unwrap() {
            claims["snp"][name] = value.clone();
        }
        let (phase, problem) = told(&claims);
        assert_eq!(phase, Phase::Other, "{chip:?}");
        let expected = format!("no TCB floor is stated for {}", chip.join("-"));
        assert!(
            problem.contains(&expected) && problem.contains("provision it with a tcb_floor"),
            "{problem}"
        );
    }
}

/// What a builder signed before floors named products.
#[test]
fn attack_reference_values_without_a_floor() {
    assert_eq!(told(&snp_claims(2, 255)).0, Phase::Other);
    let mut text: Value = serde_json::from_slice(&reference().to_bytes()).unwrap();
    text["snp"][0].as_object_mut().unwrap().remove("tcb_floor");
    text["snp"][0]["min_tcb"] = json!({ "bootloader": 0, "tee": 0, "snp": 0, "microcode": 0 });
    text["azure"][0].as_object_mut().unwrap().remove("tcb_floor");
    let earlier = Reference::parse(text.to_string().as_bytes()).unwrap();
    for claims in [snp_claims(1, 255), azure_claims(9, &Bytes([11; 32]))] {
        let (phase, problem) = phase(&claims, &earlier).unwrap();
        assert_eq!(phase, Phase::Other);
        assert!(problem.contains("no TCB floor is stated for Milan-B1"), "{problem}");
    }
    // What has no floor still shows an image on a TPM and on TDX.
    assert_eq!(phase(&tdx_claims(3, &hex48(0)), &earlier).unwrap().0, Phase::Boot);
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
    claims["az-snp-vtpm"]["tpm"]["pcr15"] = json!(extend(&UNTOUCHED, &cvm_evidence::jobs_digest()));
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
    let without =
        Reference::new(good.image_id, good.manifest_sha256, good.tpm.clone(), Platforms::default());
    assert_eq!(
        (without.version, Reference::parse(&without.to_bytes()).unwrap()),
        (1, without.clone())
    );
    assert!(!String::from_utf8(without.to_bytes()).unwrap().contains("snp"));
    for (reference, problem) in [
        (Reference { version: 1, ..good.clone() }, "which version 1 does not have"),
        (Reference { version: 2, ..without.clone() }, "without values of any TEE"),
        (Reference { version: 3, ..good.clone() }, "version 3, this program reads 1 and 2"),
        (Reference { snp: vec![good.snp[0].clone(); 33], ..good.clone() }, "at most 32"),
        (
            Reference {
                azure: vec![AzureReference { pcrs: [].into(), ..good.azure[0].clone() }],
                ..good
            },
            "PCR 11",
        ),
    ] {
        let error = Reference::parse(&reference.to_bytes()).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}
