//! `--explain`: one deliberately changed input of each kind, and what is said of it.

use cvm_base::{Bytes, sha256};
use cvm_evidence::{
    Reference, ReferenceSet,
    platform::{AzureReference, AzureTee, SnpReference, SnpVariant, TdxReference},
    reference::TpmReference,
    rtmr::{replay, sha384},
    tcb::TcbFloor,
};
use cvm_predict::snp::{LaunchInputs, VcpuType, Vmm, launch, variants};
use cvm_verify::{
    appraise::{Appraisal, EvidenceSet, Explanation, Terms, explain},
    tdx::TdxClaims,
};

use super::{NOW, appraise, claims, machine, read, set, terms};

fn session(name: &str) -> Vec<u8> {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/session-swtpm");
    std::fs::read(folder.join(name)).unwrap()
}

fn one(found: Vec<Explanation>) -> Explanation {
    let [explanation] = &found[..] else { panic!("{found:?}") };
    explanation.clone()
}

#[test]
fn a_tpms_register_by_its_first_different_measurement() {
    let files = set(&[session("evidence.json")]);
    let verdict = files.verify(&terms(None, NOW));
    let reference = Reference::parse(&session("reference.json")).unwrap();
    let of = |reference: TpmReference| {
        let set = ReferenceSet { tpm: Some(reference), ..ReferenceSet::new(Bytes([0; 16])) };
        explain(&verdict, &files, &set)
    };
    assert_eq!(of(reference.tpm.clone()), [], "{:?}", verdict.refusals);

    // The image was predicted with another command line, and names its measurements.
    let mut events = reference.tpm.explain.clone();
    let at = events.iter().position(|event| event.pcr == 12).unwrap();
    events[at].event = "command line from the loader".into();
    events[at].digest = sha256(b"quiet");
    let found = one(of(TpmReference::from_events(events, &[13])));
    assert_eq!((found.of.as_str(), found.register.as_str()), ("tpm0", "PCR 12"));
    assert_eq!(found.event.as_deref(), Some("command line from the loader"));
    assert!(found.expected.unwrap().contains(&sha256(b"quiet").to_string()));
    assert!(found.got.unwrap().contains(&reference.tpm.explain[at].digest.to_string()));
    assert_eq!(found.likely, "the command line changed");

    // One application more than was started.
    let mut events = reference.tpm.explain.clone();
    let mut more = events.iter().rfind(|event| event.pcr == 4).unwrap().clone();
    more.digest = sha256(b"a second UKI");
    events.push(more);
    let found = one(of(TpmReference::from_events(events, &[13])));
    assert_eq!((found.register.as_str(), found.got), ("PCR 4", None));
    assert_eq!(found.likely, "another loader or kernel");
}

fn platform(claims: &TdxClaims) -> TdxReference {
    let [rtmr0, rtmr1, rtmr2, rtmr3] = claims.rtmrs();
    let events = claims.measurements();
    TdxReference {
        platform: "here".into(),
        mrtd: claims.quote.body.mr_td,
        rtmr0,
        rtmr1,
        rtmr2,
        rtmr3,
        events,
    }
}

#[test]
fn a_tds_register_by_its_log() {
    let files = set(&[read("forms/cos-113.quote.dat"), read("forms/cos-113.ccel")]);
    let verdict = files.verify(&terms(None, NOW));
    let tdx: TdxClaims = serde_json::from_value(claims(&verdict, "tdx")).unwrap();
    let of = |platforms: Vec<TdxReference>| {
        explain(
            &verdict,
            &files,
            &ReferenceSet { tdx: platforms, ..ReferenceSet::new(Bytes([0; 16])) },
        )
    };
    let here = platform(&tdx);
    assert_eq!(of(vec![here.clone()]), []);

    let mut changed = here.clone();
    let event = changed.events.iter_mut().find(|event| event.rtmr == 2).unwrap();
    (event.event, event.digest) = ("kernel command line".into(), sha384(b"quiet"));
    changed.rtmr2 = replay(changed.events.iter().map(|event| (event.rtmr, &event.digest)))[2];
    let found = one(of(vec![changed.clone()]));
    assert_eq!((found.of.as_str(), found.register.as_str()), ("cpu0", "RTMR2"));
    assert_eq!(found.event.as_deref(), Some("kernel command line"));
    assert_eq!(found.likely, "the command line changed");
    assert!(found.to_string().contains(&sha384(b"quiet").to_string()), "{found}");

    // Another firmware; the nearest of several platforms is compared with.
    let firmware = TdxReference { mrtd: sha384(b"older firmware"), ..here };
    let found =
        one(of(vec![changed, TdxReference { rtmr0: sha384(b"x"), ..firmware.clone() }, firmware])
            .into_iter()
            .take(1)
            .collect());
    assert!(["RTMR2", "MRTD"].contains(&found.register.as_str()));
    let firmware =
        one(of(vec![TdxReference { mrtd: sha384(b"older firmware"), ..platform(&tdx) }]));
    assert_eq!(firmware.register, "MRTD");
    assert!(firmware.likely.starts_with("firmware newer or older"));
}

/// A report of a genuine-looking chip whose host launched 8 vCPUs instead of 4.
#[test]
fn a_launch_digest_by_the_input_that_leads_to_it() {
    let firmware = read("measurement/ovmf_AmdSev_suffix.bin");
    let predicted = LaunchInputs {
        firmware: &firmware,
        kernel: None,
        vcpus: 4,
        vcpu_type: VcpuType::from_model("EPYC-v4").unwrap(),
        guest_features: 1,
        vmm: Vmm::Qemu,
    };
    let measurement = launch(&predicted).unwrap().measurement;
    let variants = variants(&predicted).unwrap().into_iter();
    let variants = variants
        .map(|(change, measurement)| SnpVariant { change: change.to_string(), measurement });
    let tcb_floor: TcbFloor = "milan=3.1.20.213".parse().unwrap();
    let reference = SnpReference {
        platform: "qemu".into(),
        measurement,
        tcb_floor,
        variants: variants.collect(),
    };
    let explained = |launched: Bytes<48>, reference: SnpReference| {
        let (files, verdict) = minted(launched);
        let set = ReferenceSet { snp: vec![reference], ..ReferenceSet::new(Bytes([0; 16])) };
        explain(&verdict, &files, &set)
    };
    assert_eq!(explained(measurement, reference.clone()), []);

    let launched = launch(&LaunchInputs { vcpus: 8, ..predicted }).unwrap().measurement;
    let found = one(explained(launched, reference.clone()));
    assert_eq!(found.register, "launch digest");
    assert_eq!(found.likely, "the host gave 8 vCPUs, predicted are 4");
    let other = launch(&LaunchInputs {
        vcpu_type: VcpuType::from_model("EPYC-Rome").unwrap(),
        ..predicted
    })
    .unwrap();
    assert!(
        one(explained(other.measurement, reference.clone())).likely.contains("another vCPU type")
    );
    // A file that nobody predicted cannot be told from its digest, and no cause is made up.
    let found = one(explained(sha384(b"another firmware"), reference.clone()));
    assert!(found.likely.starts_with("firmware newer or older"), "{found}");

    let of = |floor: &str| {
        let reference = SnpReference { tcb_floor: floor.parse().unwrap(), ..reference.clone() };
        explained(measurement, reference)
            .iter()
            .map(|e| (e.register.clone(), e.expected.clone()))
            .collect::<Vec<_>>()
    };
    let least = |register: &str| (register.to_owned(), Some("255 or more".to_owned()));
    assert_eq!(of("milan=3.1.255.213"), [least("reported TCB snp"), least("launch TCB snp")]);
    assert_eq!(
        of("genoa=3.1.20.213"),
        [("TCB floor".to_owned(), Some("one for Milan".to_owned()))]
    );
    let none =
        one(explained(measurement, SnpReference { tcb_floor: TcbFloor::default(), ..reference }));
    assert_eq!((none.register.as_str(), none.got.as_deref()), ("TCB floor", Some("none")));
}

fn minted(measurement: Bytes<48>) -> (EvidenceSet, Appraisal) {
    let (report, vcek, roots) =
        machine(|report| report[0x90..0xc0].copy_from_slice(&measurement.0));
    let files = set(&[report, vcek]);
    let verdict = files.verify(&Terms { roots: Some(roots), ..terms(None, NOW) });
    assert!(verdict.claims().count() == 1, "{:?}", verdict.refusals);
    (files, verdict)
}

#[test]
fn azures_paravisor_and_registers() {
    let names = ["hcl.bin", "pcrs.bin", "quote.msg", "quote.sig", "vcek.der"];
    let names = names.map(|file| format!("azure/snp-trustee-evidence-v0/{file}"));
    let files = set(&names.each_ref().map(|name| read(name)));
    let verdict = appraise(&names.each_ref().map(String::as_str), Some("challenge"), NOW);
    let found = claims(&verdict, "az-snp-vtpm");
    let reference = AzureReference {
        platform: "here".into(),
        tee: AzureTee::Snp,
        measurement: found["measurement"].as_str().unwrap().parse().unwrap(),
        tcb_floor: "milan=2.0.5.67".parse().unwrap(),
        pcrs: [(4, found["tpm"]["pcrs"]["4"].as_str().unwrap().parse().unwrap())].into(),
    };
    let of = |reference: AzureReference| {
        explain(
            &verdict,
            &files,
            &ReferenceSet { azure: vec![reference], ..ReferenceSet::new(Bytes([0; 16])) },
        )
    };
    assert_eq!(of(reference.clone()), []);
    let older = one(of(AzureReference { measurement: sha384(b"older"), ..reference.clone() }));
    assert!(older.likely.contains("paravisor is newer or older"), "{older}");
    let floor =
        of(AzureReference { tcb_floor: "milan=255.0.0.0".parse().unwrap(), ..reference.clone() });
    let registers = ["reported TCB bootloader", "launch TCB bootloader"];
    assert_eq!(floor.iter().map(|e| e.register.as_str()).collect::<Vec<_>>(), registers);
    let loader = one(of(AzureReference { pcrs: [(4, sha256(b"x"))].into(), ..reference }));
    assert!(loader.register == "PCR 4" && loader.likely.contains("boot loader"), "{loader}");
}

/// Each golden value that a device misses is in the refusal itself.
#[test]
fn a_gpus_measurement_by_its_index() {
    let files = ["report.bin", "chain.pem", "driver-rim.xml", "vbios-rim.mismatch-1-2-3-9.xml"];
    let files = files.map(|file| format!("gpu/h100-545.00-e2e/{file}"));
    let nonce = String::from_utf8(read("gpu/h100-545.00-e2e/nonce.hex")).unwrap();
    let refused = appraise(&files.each_ref().map(String::as_str), Some(&nonce), 1_700_000_000);
    let reason = &refused.refusals[0].reason;
    assert!(reason.starts_with("4 of the measurements differ"), "{reason}");
}
