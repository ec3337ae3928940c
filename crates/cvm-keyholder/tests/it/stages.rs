//! Every kind of evidence that a key holder accepts, in every phase of a guest's life, at every
//! stage of its release: what is released is had once, because the evidence shows the phase or the
//! guest has a name.

use std::collections::BTreeMap;

use crate::common::{Ceremony, LOG, log};
use cvm_base::{Bytes, Bytes32};
use cvm_collateral::tee::Vendors;
use cvm_evidence::{
    JOBS_PCR, Reference,
    eventlog::extend,
    handoff_digest, jobs_digest,
    platform::{AzureReference, AzureTee, SnpReference, TdxReference},
    reference::Platforms,
    rtmr,
    tcb::TcbFloor,
    td_handoff_digest, td_jobs_digest,
    tpm::ClockInfo,
};
use cvm_keyholder::evidence::Verifier;
use cvm_layout::manifest::{GpuMechanism, Stage};
use cvm_release_server::{EnrolledImage, EvidenceVerifier, Reason};
use cvm_verify::{Claims, Roots, TpmClaims};
use serde_json::{Value, json};

/// Where a guest is: as `cvm-init` and `cvm-jobs` measure it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Boot,
    AfterHandoff,
    JobsOpened,
}

const KINDS: [&str; 6] = ["tpm", "snp", "tdx", "az-snp-vtpm", "az-tdx-vtpm", "sample"];
const PHASES: [At; 3] = [At::Boot, At::AfterHandoff, At::JobsOpened];
const STAGES: [Stage; 2] = [Stage::Boot, Stage::Running];
const ZEROS: Bytes32 = Bytes([0; 32]);

fn platforms() -> Platforms {
    let floor = || "milan=9.9.9.9".parse::<TcbFloor>().unwrap();
    let snp = SnpReference {
        platform: "p".into(),
        measurement: Bytes([1; 48]),
        tcb_floor: floor(),
        variants: vec![],
    };
    let tdx = TdxReference {
        platform: "p".into(),
        mrtd: Bytes([1; 48]),
        rtmr0: Bytes([2; 48]),
        rtmr1: Bytes([3; 48]),
        rtmr2: Bytes([4; 48]),
        rtmr3: Bytes([0; 48]),
        events: vec![],
    };
    let pcrs = || BTreeMap::from([(4, Bytes([4; 32])), (11, Bytes([11; 32]))]);
    let azure = [AzureTee::Snp, AzureTee::Tdx];
    let azure = azure.map(|tee| AzureReference {
        platform: "p".into(),
        tee,
        measurement: Bytes([1; 48]),
        tcb_floor: floor(),
        pcrs: pcrs(),
    });
    Platforms { snp: vec![snp], tdx: vec![tdx], azure: azure.into() }
}

/// A patched Milan's claims, and others.
fn snp(mut claims: Value) -> Value {
    claims["measurement"] = json!(Bytes([1; 48]));
    claims["product"] = json!("Milan");
    let tcb = json!({ "bootloader": 9, "tee": 9, "snp": 9, "microcode": 9 });
    for (part, version) in tcb.as_object().unwrap() {
        claims[format!("reported_tcb_{part}")] = version.clone();
    }
    claims["launch_tcb"] = tcb;
    claims
}

/// PCRs 11 and 15.
fn registers(boot: Bytes32, at: At) -> (Bytes32, Bytes32) {
    match at {
        At::Boot => (boot, ZEROS),
        At::AfterHandoff => (extend(&boot, &handoff_digest()), ZEROS),
        At::JobsOpened => (extend(&boot, &handoff_digest()), extend(&ZEROS, &jobs_digest())),
    }
}

/// The token's claims of genuine evidence.
fn claims(kind: &str, at: At, reference: &Reference) -> Value {
    let rtmr3 = Bytes([0; 48]);
    let rtmr3 = match at {
        At::Boot => rtmr3,
        At::AfterHandoff => rtmr::extend(&rtmr3, &td_handoff_digest()),
        At::JobsOpened => {
            rtmr::extend(&rtmr::extend(&rtmr3, &td_handoff_digest()), &td_jobs_digest())
        }
    };
    let body = |rtmr3: &Bytes<48>| {
        let byte = |byte: u8| Bytes([byte; 48]);
        json!({ "body": {
            "mr_td": byte(1), "rtmr_0": byte(2), "rtmr_1": byte(3), "rtmr_2": byte(4),
            "rtmr_3": rtmr3,
        } })
    };
    let (pcr11, pcr15) = registers(Bytes([11; 32]), at);
    let vtpm = json!({ "pcr04": Bytes([4; 32]), "pcr11": pcr11, "pcr15": pcr15 });
    let annotated = match kind {
        "tpm" => tpm(at, reference),
        "snp" => json!({ "snp": snp(json!({ "report_id": Bytes([7; 32]) })) }),
        "tdx" => json!({ "tdx": { "quote": body(&rtmr3) } }),
        "az-snp-vtpm" => json!({ "az-snp-vtpm": snp(json!({ "tpm": vtpm })) }),
        "az-tdx-vtpm" => json!({ "az-tdx-vtpm": { "quote": body(&Bytes([0; 48])), "tpm": vtpm } }),
        _ => json!({ "sample": { "svn": "1" } }),
    };
    json!({ "submods": { "cpu0": { "ear.veraison.annotated-evidence": annotated } } })
}

fn tpm(at: At, reference: &Reference) -> Value {
    let mut pcrs: [Bytes32; 16] =
        std::array::from_fn(|pcr| reference.tpm.pcrs.get(&(pcr as u8)).copied().unwrap_or(ZEROS));
    (pcrs[11], pcrs[usize::from(JOBS_PCR)]) = registers(pcrs[11], at);
    let claims = TpmClaims {
        pcrs,
        handed_off: at != At::Boot,
        ek_root_sha256: ZEROS,
        ek_certificate_sha256: ZEROS,
        ak_name: vec![0; 34],
        firmware_version: 1,
        clock: ClockInfo { clock: 1, reset_count: 1, restart_count: 0, safe: true },
        nonce: ZEROS,
        event_log: vec![],
        event_log_sha256: ZEROS,
    };
    Claims::Tpm(Box::new(claims)).to_json()
}

fn scene() -> (Verifier, EnrolledImage, Reference) {
    let ceremony = Ceremony::hold("package policy\ndefault allow := false\n");
    let gpu = Some(GpuMechanism::NvidiaCc);
    let (documents, manifest) = ceremony.build_requiring(gpu, &log(LOG), platforms());
    let reference = Reference::parse(&documents.reference).unwrap();
    let enrolled = EnrolledImage { manifest, reference: serde_json::to_value(&reference).unwrap() };
    let verifier = Verifier {
        roots: Roots::default(),
        vendors: Vendors::genuine().unwrap(),
        allow_sample: true,
    };
    (verifier, enrolled, reference)
}

#[test]
fn each_half_is_had_once_by_every_kind() {
    let (verifier, enrolled, reference) = scene();
    for kind in KINDS {
        for stage in STAGES {
            for at in PHASES {
                let claims = claims(kind, at, &reference);
                // No GPU attests here: it is asked for only once the CPU is accepted.
                let found = match verifier
                    .compare(&claims, &enrolled, stage)
                    .map_err(|refusal| refusal.reason)
                {
                    Err(Reason::NoGpu) => Ok(()),
                    found => found,
                };
                let expected = match (kind, stage, at) {
                    // It names its launch, and either half goes to a launch once.
                    ("snp", ..) => Ok(()),
                    // Anybody can make it, where a test's folder accepts it.
                    ("sample", Stage::Boot, _) => Ok(()),
                    ("sample", Stage::Running, _) => Err(Reason::Unsupported),
                    (_, Stage::Boot, At::Boot) | (_, Stage::Running, At::AfterHandoff) => Ok(()),
                    (_, Stage::Boot, _) => Err(Reason::AfterHandoff),
                    (_, Stage::Running, At::Boot) => Err(Reason::BeforeHandoff),
                    (_, Stage::Running, At::JobsOpened) => Err(Reason::AfterJobs),
                };
                assert_eq!(found, expected, "{kind} {stage:?} {at:?}");
                // Root in the running guest: refused, or remembered.
                if at == At::JobsOpened && kind != "sample" {
                    assert!(
                        found.is_err() || verifier.guest(&claims, stage).is_some(),
                        "{kind} {stage:?}"
                    );
                }
                assert_eq!(verifier.shows(&claims, &enrolled), kind != "sample", "{kind} {at:?}");
            }
        }
    }
}

#[test]
fn attack_evidence_that_leaves_out_what_makes_it_once() {
    let (verifier, enrolled, reference) = scene();
    let evidence = "/submods/cpu0/ear.veraison.annotated-evidence";
    for (kind, at) in
        [("az-snp-vtpm", "/tpm/pcr15"), ("az-tdx-vtpm", "/tpm/pcr15"), ("snp", "/report_id")]
    {
        let mut claims = claims(kind, At::AfterHandoff, &reference);
        let (parent, name) = at.rsplit_once('/').unwrap();
        let parent = claims.pointer_mut(&format!("{evidence}/{kind}{parent}")).unwrap();
        parent.as_object_mut().unwrap().remove(name).unwrap();
        let refusal = verifier.compare(&claims, &enrolled, Stage::Running).unwrap_err();
        assert_eq!(refusal.reason, Reason::WrongMeasurement, "{kind}: {}", refusal.detail);
    }
}
