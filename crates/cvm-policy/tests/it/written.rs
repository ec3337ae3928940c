//! The three policies that are written from reference values.

use std::collections::BTreeMap;

use cvm_base::{Bytes, Bytes16, Bytes32};
use cvm_evidence::{
    ReferenceSet,
    eventlog::PredictedEvent,
    platform::{AzureReference, AzureTee, SnpReference, TdxReference, after_handoff},
    reference::TpmReference,
    reference_set::NvidiaReference,
    tcb::TcbFloor,
};
use cvm_policy::{Decision, Policy, PolicyError, new_policies};
use serde_json::{Value, json};

pub const IMAGE: Bytes16 = Bytes([7; 16]);

pub fn reference() -> ReferenceSet {
    let event =
        |pcr, digest| PredictedEvent { pcr, event: "e".into(), digest: Bytes([digest; 32]) };
    let floor = |text: &str| text.parse::<TcbFloor>().unwrap();
    let snp = |platform: &str, byte| SnpReference {
        platform: platform.into(),
        measurement: Bytes([byte; 48]),
        tcb_floor: floor("milan-b1=3.0.8.115"),
        variants: vec![],
    };
    let tdx = |platform: &str, rtmr0, rtmr1| TdxReference {
        platform: platform.into(),
        mrtd: Bytes([0x33; 48]),
        rtmr0: Bytes([rtmr0; 48]),
        rtmr1: Bytes([rtmr1; 48]),
        rtmr2: Bytes([0x36; 48]),
        rtmr3: Bytes([0; 48]),
        events: vec![],
    };
    let azure = |tee, byte| AzureReference {
        // Names that people chose are data, not rules.
        platform: "Azure\"\nallow := true #".into(),
        tee,
        measurement: Bytes([byte; 48]),
        pcrs: BTreeMap::from([(4, Bytes([4; 32])), (11, Bytes([11; 32]))]),
        tcb_floor: if tee == AzureTee::Snp {
            floor("milan=3.0.8.115")
        } else {
            TcbFloor::default()
        },
    };
    ReferenceSet {
        tpm: Some(TpmReference::from_events(vec![event(4, 1), event(7, 2), event(11, 3)], &[12])),
        ek_roots: vec![Bytes([0xee; 32])],
        snp: vec![
            snp("4 vCPUs", 0x11),
            SnpReference { tcb_floor: floor("turin-c1=1.3.0.8.115"), ..snp("8 vCPUs", 0x12) },
        ],
        tdx: vec![tdx("a", 0x34, 0x35), tdx("b", 0x44, 0x45)],
        azure: vec![azure(AzureTee::Snp, 0x51), azure(AzureTee::Tdx, 0x52)],
        nvidia: Some(NvidiaReference {
            gpus: Some(1),
            models: vec!["GH100 A01 GSP BROM".into()],
            driver_versions: vec!["550.90.07".into()],
            vbios_versions: Vec::new(),
        }),
        ..ReferenceSet::new(IMAGE)
    }
}

fn registers(pcrs: &BTreeMap<u8, Bytes32>, booting: bool) -> Value {
    let pcrs = if booting { pcrs.clone() } else { after_handoff(pcrs) };
    pcrs.iter().map(|(pcr, value)| (format!("pcr{pcr:02}"), json!(value))).collect()
}

fn snp(byte: u8) -> Value {
    json!({
        "product": "Milan", "stepping": "B1",
        "launch_tcb": {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115},
        "measurement": Bytes([byte; 48]), "vmpl": 0,
        "policy_debug_allowed": false, "policy_migrate_ma": false,
        "reported_tcb_bootloader": 3, "reported_tcb_tee": 0,
        "reported_tcb_snp": 8, "reported_tcb_microcode": 200,
        "not_checked": [],
    })
}

fn tdx(rtmr0: u8, rtmr1: u8) -> Value {
    let [mr_td, rtmr_0, rtmr_1, rtmr_2, rtmr_3] =
        [0x33, rtmr0, rtmr1, 0x36, 0].map(|byte| Bytes([byte; 48]));
    json!({
        "quote": {"body": {
            "mr_td": mr_td, "rtmr_0": rtmr_0, "rtmr_1": rtmr_1, "rtmr_2": rtmr_2, "rtmr_3": rtmr_3,
        }},
        "td_attributes": {"debug": false}, "tcb_status": "UpToDate", "advisory_ids": [],
        "not_checked": [],
    })
}

/// Claims made from the reference: one machine of each kind.
pub fn machines(booting: bool) -> Vec<(&'static str, Value)> {
    let reference = reference();
    let mut tpm = registers(&reference.tpm.unwrap().pcrs, booting);
    tpm["ek_root_sha256"] = json!(reference.ek_roots[0]);
    tpm["trust"] = json!("untrusted-host");
    let mut az_snp = snp(0x51);
    az_snp["tpm"] = registers(&reference.azure[0].pcrs, booting);
    let mut az_tdx = tdx(0x34, 0x35);
    az_tdx["quote"]["body"]["mr_td"] = json!(Bytes([0x52; 48]));
    az_tdx["tpm"] = registers(&reference.azure[0].pcrs, booting);
    vec![
        ("tpm", tpm),
        ("snp", snp(0x11)),
        ("tdx", tdx(0x34, 0x35)),
        ("az-snp-vtpm", az_snp),
        ("az-tdx-vtpm", az_tdx),
    ]
}

pub fn gpu() -> Value {
    json!({
        "measres": "success", "secboot": true, "dbgstat": "disabled", "hwmodel": "GH100 A01 GSP \
            BROM",
        "x-nvidia-gpu-driver-version": "550.90.07",
        "x-nvidia-gpu-attestation-report-nonce-match": true,
        "x-nvidia-device-type": "gpu", "not_checked": [],
    })
}

pub fn input(kind: &str, cpu: &Value, gpu: Option<Value>) -> Value {
    let mut input =
        json!({"submods": {"cpu0": {"ear.veraison.annotated-evidence": { kind: cpu }}}});
    if let Some(gpu) = gpu {
        input["submods"]["gpu0"] = json!({"ear.veraison.annotated-evidence": {"nvidia": gpu}});
    }
    input
}

fn policies() -> [(&'static str, Policy); 3] {
    new_policies(&reference())
        .unwrap()
        .map(|(name, text)| (name, Policy::compile(name, text.as_bytes()).unwrap()))
}

fn decide(policy: &Policy, input: &Value) -> Decision {
    let data = json!({"plugin": "resource", "resource-path": ["flare-cvm", "half", IMAGE]});
    policy.decide(input, &data).unwrap_or_else(|e| panic!("{e} {input}"))
}

#[test]
fn each_accepts_what_was_predicted() {
    for (name, policy) in policies() {
        for (kind, cpu) in machines(name == "boot.rego") {
            let decision = decide(&policy, &input(kind, &cpu, Some(gpu())));
            assert!(decision.allowed, "{name} {kind}: {:?}", decision.reasons);
            // A GPU's evidence comes after boot.
            let without = decide(&policy, &input(kind, &cpu, None));
            assert_eq!(
                without.allowed,
                name == "boot.rego",
                "{name} {kind}: {:?}",
                without.reasons
            );
        }
        // The other phase's registers are another phase's.
        for (kind, cpu) in machines(name != "boot.rego") {
            let allowed = decide(&policy, &input(kind, &cpu, Some(gpu()))).allowed;
            assert_eq!(allowed, matches!(kind, "snp" | "tdx"), "{name} {kind}");
        }
    }
}

#[test]
fn the_boot_policy_gives_the_job_store_to_a_running_system_with_its_gpus() {
    let (name, policy) = policies().into_iter().next().unwrap();
    assert_eq!(name, "boot.rego");
    let data = json!({"plugin": "resource", "resource-path": ["flare-cvm", "running-half", IMAGE]});
    let allowed = |kind: &str, cpu: &Value, gpu| {
        policy.decide(&input(kind, cpu, gpu), &data).unwrap().allowed
    };
    for (kind, mut cpu) in machines(false) {
        if kind == "tdx" {
            let handoff = cvm_evidence::td_handoff_digest();
            cpu["quote"]["body"]["rtmr_3"] =
                json!(cvm_evidence::rtmr::extend(&Bytes([0; 48]), &handoff));
        }
        assert!(allowed(kind, &cpu, Some(gpu())), "{kind}");
        assert!(!allowed(kind, &cpu, None), "{kind} without GPUs");
        let mut unmeasured = gpu();
        unmeasured["measres"] = json!("not-run");
        assert!(!allowed(kind, &cpu, Some(unmeasured)), "{kind} with a GPU that was not measured");
    }
    // Nothing shows the phase of SEV-SNP.
    for (kind, cpu) in machines(true).into_iter().filter(|(kind, _)| *kind != "snp") {
        assert!(!allowed(kind, &cpu, Some(gpu())), "{kind} that still boots");
    }
}

/// Every leaf of these claims, changed and absent.
fn spoiled(claims: &Value) -> Vec<(String, Value)> {
    fn walk(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => members
                .iter()
                .for_each(|(name, member)| walk(member, &format!("{path}/{name}"), found)),
            _ => found.push(path.to_owned()),
        }
    }
    let mut leaves = Vec::new();
    walk(claims, "", &mut leaves);
    let mut all = Vec::new();
    for leaf in leaves {
        let mut changed = claims.clone();
        let value = changed.pointer_mut(&leaf).unwrap();
        *value = match &*value {
            Value::Bool(value) => json!(!value),
            Value::Number(value) => json!(value.as_i64().unwrap() + 1),
            Value::Array(_) => json!([{"check": "INTEL-SA-1", "reason": "r"}]),
            _ => json!("another"),
        };
        all.push((leaf.clone(), changed));
        let mut absent = claims.clone();
        let (parent, name) = leaf.rsplit_once('/').unwrap();
        absent.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
        all.push((format!("{leaf} absent"), absent));
    }
    all
}

#[test]
fn each_single_changed_value_is_denied_and_named() {
    // A newer TCB is as good; a list of checks left out may be missing.
    let newer = |what: &str| what.starts_with("/reported_tcb_") || what.starts_with("/launch_tcb/");
    let harmless =
        |what: &str| what == "/not_checked absent" || newer(what) && !what.ends_with("absent");
    for (name, policy) in policies() {
        for (kind, cpu) in machines(name == "boot.rego") {
            for (what, cpu) in spoiled(&cpu) {
                let decision = decide(&policy, &input(kind, &cpu, Some(gpu())));
                // RTMRs of Azure's machines are the paravisor's; their floor is of every stepping
                // of a product.
                let azure = kind.starts_with("az-")
                    && (what.contains("rtmr") || what.starts_with("/stepping"));
                assert_eq!(
                    decision.allowed,
                    azure || harmless(&what),
                    "{name} {kind} {what}: {:?}",
                    decision.reasons
                );
                assert!(decision.allowed || !decision.reasons.is_empty(), "{name} {kind} {what}");
            }
        }
        let (kind, cpu) = &machines(name == "boot.rego")[1];
        for (what, gpu) in spoiled(&gpu()) {
            let decision = decide(&policy, &input(kind, cpu, Some(gpu)));
            let same =
                matches!(what.as_str(), "/not_checked absent" | "/x-nvidia-device-type absent");
            assert_eq!(decision.allowed, same, "{name} {what}: {:?}", decision.reasons);
        }
    }
}

#[test]
fn each_reason_says_expected_and_found() {
    let [(_, boot), ..] = policies();
    let why = |kind: &str, cpu: &Value| decide(&boot, &input(kind, cpu, None)).reasons.join("\n");
    let mut low = snp(0x11);
    low["reported_tcb_snp"] = json!(7);
    assert!(
        why("snp", &low).contains("snp: the reported TCB's snp is 7, below 8"),
        "{}",
        why("snp", &low)
    );
    let mut launched = snp(0x11);
    launched["launch_tcb"]["microcode"] = json!(114);
    assert!(why("snp", &launched).contains("snp: the launch TCB's microcode is 114, below 115"));
    // The second platform is of another product's hosts.
    let mut turin = snp(0x12);
    assert!(
        why("snp", &turin).contains("snp: no TCB floor is stated for Milan-B1"),
        "{}",
        why("snp", &turin)
    );
    turin["product"] = json!("Turin");
    turin["stepping"] = json!("C1");
    assert!(
        why("snp", &turin).contains("the reported TCB's fmc is -1, below 1"),
        "{}",
        why("snp", &turin)
    );
    turin["reported_tcb_fmc"] = json!(1);
    turin["launch_tcb"]["fmc"] = json!(1);
    assert_eq!(why("snp", &turin), "");
    let other = why("snp", &snp(0x13));
    assert!(other.contains(&"13".repeat(48)) && other.contains(&"11".repeat(48)), "{other}");
    // Every register is some platform's, and all of them are none's.
    assert!(why("tdx", &tdx(0x34, 0x45)).contains("not this image's on any platform"));
    assert_eq!(why("tdx", &tdx(0x44, 0x45)), "");
    let (_, mut tpm) = machines(true).remove(0);
    tpm["ek_root_sha256"] = json!(Bytes([1; 32]));
    assert!(why("tpm", &tpm).contains("tpm_ek_roots does not name"));
    assert!(why("sample", &json!({"svn": "1"})).contains("sample: its measurements"));
    assert!(why("new-kind", &json!({"svn": "1"})).contains("no evidence"));
    assert!(!decide(&boot, &json!({})).allowed);
    // Good evidence beside bad is bad.
    let mut both = input("snp", &snp(0x11), None);
    both["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["tdx"] = json!({});
    assert!(!decide(&boot, &both).allowed);
}

#[test]
fn attack_another_images_half() {
    let [(_, boot), (_, own), _] = policies();
    let good = input("snp", &snp(0x11), Some(gpu()));
    for data in [
        json!({"plugin": "resource", "resource-path": ["flare-cvm", "half", Bytes([8; 16])]}),
        json!({"plugin": "resource"}),
        json!({"plugin": "external", "resource-path": [IMAGE]}),
    ] {
        assert!(!boot.decide(&good, &data).unwrap().allowed, "{data}");
        assert!(own.decide(&good, &data).unwrap().allowed, "nothing is released by it");
    }
    assert!(
        boot.decide(&good, &json!({})).unwrap().allowed,
        "`flare-cvm attest` asks for no resource"
    );
}

#[test]
fn accepted_checks_are_a_line_in_the_policy() {
    let [(name, text), ..] = new_policies(&reference()).unwrap();
    let mut cpu = snp(0x11);
    cpu["not_checked"] = json!([{"check": "certificate-revocation", "reason": "no list"}]);
    let refused =
        decide(&Policy::compile(name, text.as_bytes()).unwrap(), &input("snp", &cpu, None));
    let words = "certificate-revocation was not checked, and accepted_not_checked does not list it";
    assert_eq!((refused.allowed, refused.reasons), (false, vec![words.to_owned()]));
    let changed = text.replace(
        "accepted_not_checked := set()",
        r#"accepted_not_checked := {"certificate-revocation"}"#,
    );
    assert!(
        decide(&Policy::compile(name, changed.as_bytes()).unwrap(), &input("snp", &cpu, None))
            .allowed
    );
}

#[test]
fn sets_of_reference_values() {
    let set = reference();
    assert_eq!(ReferenceSet::parse(&set.to_bytes()).unwrap(), set);
    let json: Value = serde_json::from_slice(&set.to_bytes()).unwrap();
    for (member, value) in [
        ("version", json!(2)),
        ("more", json!(1)),
        ("image_id", json!("07")),
        ("snp", json!([{"platform": "p", "measurement": "00"}])),
        ("snp", json!([{"platform": "p"}])),
        (
            "snp",
            json!([{"platform": "p", "measurement": "00".repeat(48), "tcb_floor": {"Rome": {}}}]),
        ),
        (
            "snp",
            json!([{
                "platform": "p", "measurement": "00".repeat(48),
                "tcb_floor": {"bootloader": 3},
            }]),
        ),
        (
            "snp",
            json!([{
                "platform": "p", "measurement": "00".repeat(48),
                "min_tcb": {"bootloader": 3},
            }]),
        ),
        ("tdx", json!([{"platform": "p", "mrtd": "00"}])),
        ("ek_roots", json!(vec!["00".repeat(32); 65])),
        (
            "azure",
            json!([{"platform": "p", "tee": "sev", "measurement": "00".repeat(48), "pcrs": {}}]),
        ),
        (
            "azure",
            json!([{
                "platform": "p", "tee": "snp", "measurement": "00".repeat(48),
                "pcrs": {"24": "00".repeat(32)},
            }]),
        ),
    ] {
        let mut bad = json.clone();
        bad[member] = value;
        assert!(ReferenceSet::parse(bad.to_string().as_bytes()).is_err(), "{member}");
    }
    assert!(ReferenceSet::parse(&vec![b' '; 2 << 20]).is_err());
    let nothing = new_policies(&ReferenceSet::new(IMAGE)).unwrap_err();
    assert!(matches!(nothing, PolicyError::Reference { .. }));
    for without in [
        ReferenceSet {
            snp: vec![SnpReference { tcb_floor: TcbFloor::default(), ..set.snp[0].clone() }],
            ..set.clone()
        },
        ReferenceSet {
            azure: vec![AzureReference { tcb_floor: TcbFloor::default(), ..set.azure[0].clone() }],
            ..ReferenceSet::new(IMAGE)
        },
    ] {
        let refused = new_policies(&without).unwrap_err().to_string();
        assert!(refused.contains("no tcb_floor of"), "{refused}");
    }
    let tdx_alone = ReferenceSet { azure: vec![set.azure[1].clone()], ..ReferenceSet::new(IMAGE) };
    for (name, text) in new_policies(&tdx_alone).unwrap() {
        Policy::compile(name, text.as_bytes()).unwrap();
    }
    // Kinds without values are not written, and are refused.
    let only = ReferenceSet { snp: set.snp.clone(), ..ReferenceSet::new(IMAGE) };
    let [(name, text), ..] = new_policies(&only).unwrap();
    assert!(!text.contains("tdx_platforms") && !text.contains("nvidia"));
    let policy = Policy::compile(name, text.as_bytes()).unwrap();
    assert!(decide(&policy, &input("snp", &snp(0x11), None)).allowed);
    assert!(!decide(&policy, &input("tdx", &tdx(0x34, 0x35), None)).allowed);
}

/// A quote of a real boot under swtpm, verified, against the policy that its own image's reference
/// values make.
#[test]
fn a_recorded_boot_and_the_policy_of_its_image() {
    use cvm_evidence::{Evidence, Reference};
    use cvm_verify::{Binding, Claims, Roots, verify};
    let read = |name: &str| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/vectors/session-swtpm");
        std::fs::read(folder.join(name)).unwrap()
    };
    let state = serde_json::from_slice(&read("state.json")).unwrap();
    let binding = Binding { digest: &[0x5a; 48], credential: Some(&state) };
    let evidence = Evidence::Tpm(Box::new(serde_json::from_slice(&read("evidence.json")).unwrap()));
    let roots = Roots::from_pem(&read("roots.pem")).unwrap();
    let now = serde_json::from_slice(&read("now")).unwrap();
    let claims = verify(&evidence, &binding, &roots, now).unwrap();
    let Claims::Tpm(tpm) = &claims else { panic!("a TPM") };

    let mut set = ReferenceSet::from(&Reference::parse(&read("reference.json")).unwrap());
    let ask = |set: &ReferenceSet| {
        let [(name, text), ..] = new_policies(set).unwrap();
        // Its firmware measured no ACPI tables.
        let text =
            text.replace("accepted_not_checked := set()", r#"accepted_not_checked := {"acpi"}"#);
        let input =
            json!({"submods": {"cpu0": {"ear.veraison.annotated-evidence": claims.to_json()}}});
        let policy = Policy::compile(name, text.as_bytes()).unwrap();
        let path = json!(["flare-cvm", "half", set.image_id]);
        policy.decide(&input, &json!({"plugin": "resource", "resource-path": path})).unwrap()
    };
    let unnamed = ask(&set);
    assert!(
        !unnamed.allowed && unnamed.reasons[0].contains("tpm_ek_roots"),
        "{:?}",
        unnamed.reasons
    );
    set.ek_roots = vec![tpm.ek_root_sha256];
    let decision = ask(&set);
    assert!(decision.allowed, "{:?}", decision.reasons);
    for pcr in set.tpm.clone().unwrap().pcrs.keys() {
        let mut other = set.clone();
        other.tpm.as_mut().unwrap().pcrs.get_mut(pcr).unwrap().0[0] ^= 1;
        let refused = ask(&other);
        assert!(
            !refused.allowed && refused.reasons.iter().any(|r| r.contains(&format!("pcr{pcr:02}"))),
            "{pcr}"
        );
    }
}
