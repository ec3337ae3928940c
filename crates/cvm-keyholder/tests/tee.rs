//! Releases to SEV-SNP guests, whose reports are minted under an authority of the test's own, and
//! what the genuine vendors' recorded evidence is refused for. The server is asked without a
//! network: what it decides is the subject.

mod common;
// cvm-attest's own tests use the rest of it.
#[path = "../../cvm-attest/tests/support/gpus.rs"]
mod gpus;
#[allow(dead_code)]
#[path = "../../cvm-attest/tests/snp/mint.rs"]
mod mint;
#[allow(dead_code)]
#[path = "../../cvm-attest/tests/gpu/synthetic.rs"]
mod synthetic;

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use aws_lc_rs::signature::EcdsaKeyPair;
use common::{
    Ceremony, LOG,
    asked::{PartyHalves, reply, send},
    log,
};
use cvm_attest::{
    Roots,
    collateral::{Cache, Item, Writer, content},
    reference::Platforms,
    reference_set::SnpReference,
    tcb::TcbFloor,
    tdx::intel_roots,
    tee::Vendors,
    trustee::{CertificateEntry, NvidiaBody, SnpBody, report_data},
};
use cvm_base::Bytes;
use cvm_keyholder::{evidence::Verifier, policy::RegoPolicy};
use cvm_layout::manifest::{GpuMechanism, Manifest, Stage};
use cvm_release::{
    client::{Attested, Challenged, Client, Failure, Outgoing},
    messages::Tee,
};
use cvm_release_server::{
    Fault, Outcome, PolicyAnswer, Reason, ReleasePolicy, ReleaseServer, SessionKeys, Verdict,
};
use ed25519_dalek::SigningKey;
use gpus::{Gpus, golden};
use serde_json::{Value, json};
use synthetic::{Device, World};
use zeroize::Zeroizing;

/// 2025-10-09.
const NOW: u64 = 1_760_000_000;
const MILAN: [u8; 3] = [0x19, 0x01, 0x01];
const MEASUREMENT: [u8; 48] = [0x3e; 48];

const POLICY: &str = include_str!("../../../keys/policies/tee.rego");

/// Alice's key holder, and a machine's chip.
struct Scene {
    ceremony: Ceremony,
    manifest: Manifest,
    server: ReleaseServer,
    vcek: (Vec<u8>, EcdsaKeyPair),
}

fn scene() -> Scene {
    let line = mint::line("Milan");
    let vendors = Vendors::new(line.roots(), intel_roots().unwrap());
    let vcek = mint::endorse(&line.ask.1, &mint::vcek("Milan-B0"));
    scene_of(vendors, vcek)
}

fn scene_of(vendors: Vendors, vcek: (Vec<u8>, EcdsaKeyPair)) -> Scene {
    scene_requiring(None, vendors, vcek)
}

fn scene_requiring(
    gpu: Option<GpuMechanism>,
    vendors: Vendors,
    vcek: (Vec<u8>, EcdsaKeyPair),
) -> Scene {
    scene_with_floor("milan-b1=3.1.20.213".parse().unwrap(), gpu, vendors, vcek)
}

fn scene_with_floor(
    tcb_floor: TcbFloor,
    gpu: Option<GpuMechanism>,
    vendors: Vendors,
    vcek: (Vec<u8>, EcdsaKeyPair),
) -> Scene {
    scene_under(POLICY, tcb_floor, gpu, vendors, vcek)
}

fn scene_under(
    policy: &str,
    tcb_floor: TcbFloor,
    gpu: Option<GpuMechanism>,
    vendors: Vendors,
    vcek: (Vec<u8>, EcdsaKeyPair),
) -> Scene {
    let ceremony = Ceremony::hold(policy);
    let snp = SnpReference {
        platform: "test".into(),
        measurement: Bytes(MEASUREMENT),
        tcb_floor,
        variants: vec![],
    };
    let platforms = Platforms { snp: vec![snp], ..Platforms::default() };
    let (documents, manifest) = ceremony.build_requiring(gpu, &log(LOG), platforms);
    let store = ceremony.store("alice").with_clock(|| NOW);
    store.enrol(&documents).unwrap();
    let server = ReleaseServer {
        party: "alice".parse().unwrap(),
        keys: SessionKeys::derive(&[7; 32]).unwrap(),
        evidence: Box::new(Verifier { roots: Roots::default(), vendors, allow_sample: false }),
        store: Box::new(store),
        policy: Box::new(RegoPolicy::new(policy.into()).unwrap()),
        halves: Box::new(PartyHalves(Mutex::new(ceremony.party("alice")))),
        random: Box::new(|bytes| getrandom::fill(bytes).map_err(|e| Fault::new("randomness", e))),
    };
    Scene { ceremony, manifest, server, vcek }
}

impl Scene {
    fn send(&self, outgoing: &Outgoing) -> Outcome {
        send(&self.server, outgoing, NOW)
    }

    fn challenged(&self, tee: Tee) -> Client<Challenged> {
        let start = Client::new(tee).unwrap();
        let reply = reply(&self.send(&start.auth_request("").unwrap()));
        start.challenged(&reply).unwrap()
    }

    /// A stock attester's evidence for a session: `change` is applied before the chip signs.
    fn evidence(&self, binding: &[u8; 48], change: impl FnOnce(&mut [u8])) -> Value {
        let mut report = mint::report(3, MILAN, &mint::vcek("Milan-B0"));
        report[0x50..0x90].copy_from_slice(&report_data(binding));
        report[0x140..0x160].fill(0x1d);
        change(&mut report);
        let chain = vec![CertificateEntry::new("VCEK", self.vcek.0.clone())];
        serde_json::to_value(SnpBody::new(&mint::sign(report, &self.vcek.1), chain).unwrap())
            .unwrap()
    }

    fn attest(&self, change: impl FnOnce(&mut [u8])) -> Result<Client<Attested>, (Reason, String)> {
        let challenged = self.challenged(Tee::Snp);
        let evidence = self.evidence(&challenged.binding("").0, change);
        self.shown(challenged, evidence)
    }

    /// With these GPUs beside the chip, as `cvm-jobs` does it.
    fn attest_with(&self, mut gpus: Gpus) -> Client<Attested> {
        let challenged = self.challenged(Tee::Snp);
        let answer = NvidiaBody::collect(&mut gpus, &challenged.device_binding().0)
            .unwrap()
            .additional_evidence();
        let evidence = self.evidence(&challenged.binding(&answer).0, |_| {});
        self.shown_with(challenged, evidence, &answer).unwrap()
    }

    fn shown(
        &self,
        challenged: Client<Challenged>,
        evidence: Value,
    ) -> Result<Client<Attested>, (Reason, String)> {
        self.shown_with(challenged, evidence, "")
    }

    fn shown_with(
        &self,
        challenged: Client<Challenged>,
        evidence: Value,
        additional: &str,
    ) -> Result<Client<Attested>, (Reason, String)> {
        let outcome = self.send(&challenged.attest_request(evidence, additional).unwrap());
        match outcome.decision.reason {
            Some(reason) => Err((reason, outcome.decision.detail)),
            None => Ok(challenged.attested(&reply(&outcome)).unwrap()),
        }
    }

    fn release(&self, client: &Client<Attested>) -> Result<Zeroizing<[u8; 32]>, (Reason, String)> {
        self.release_of(client, Stage::Boot)
    }

    fn release_of(
        &self,
        client: &Client<Attested>,
        stage: Stage,
    ) -> Result<Zeroizing<[u8; 32]>, (Reason, String)> {
        let outcome = self.send(&client.half_request(&self.manifest.image_id, stage));
        match outcome.decision.reason {
            Some(reason) => {
                assert!(matches!(
                    client.half(&reply(&outcome)),
                    Err(Failure::Refused { status: 401, .. })
                ));
                Err((reason, outcome.decision.detail))
            }
            None => {
                assert_eq!(outcome.decision.verdict, Verdict::Released);
                Ok(client.half(&reply(&outcome)).unwrap())
            }
        }
    }
}

/// A collector's cache with this chip's certificate, packed as a site puts it on p1.
fn collected(vcek: &[u8], collector: &SigningKey) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), collector.clone(), &[]).unwrap();
    let (key, bytes) = content::identify(vcek).unwrap();
    writer.put(&Item { key, bytes, source: "test".into(), fetched_at: NOW }).unwrap();
    let cache = Cache::open(folder.path(), &[collector.verifying_key()]).unwrap();
    serde_json::from_slice(&cache.pack()).unwrap()
}

fn put(at: usize, bytes: &'static [u8]) -> impl FnOnce(&mut [u8]) {
    move |report| report[at..at + bytes.len()].copy_from_slice(bytes)
}

#[test]
fn a_genuine_guest_of_the_image_gets_the_half() {
    let scene = scene();
    let client = scene.attest(|_| {}).unwrap();
    let half = scene.release(&client).unwrap();
    assert_eq!(&*half, scene.ceremony.half("alice", &scene.manifest).as_bytes());
}

/// The host gave no certificate with the report; the site's collector did.
#[test]
fn what_vouches_for_a_chip_travels_in_its_evidence() {
    let collector = SigningKey::from_bytes(&[3; 32]);
    let line = mint::line("Milan");
    let vcek = mint::endorse(&line.ask.1, &mint::vcek("Milan-B0"));
    let vendors = Vendors::new(line.roots(), intel_roots().unwrap());
    let scene = scene_of(vendors.with_collectors(vec![collector.verifying_key()]), vcek);
    let shown = |collateral: Value| {
        let challenged = scene.challenged(Tee::Snp);
        let mut evidence = scene.evidence(&challenged.binding("").0, |_| {});
        evidence["cert_chain"] = Value::Null;
        evidence["collateral"] = collateral;
        scene.shown(challenged, evidence)
    };
    let packed = collected(&scene.vcek.0, &collector);
    scene.release(&shown(packed.clone()).unwrap()).unwrap();
    // Without it, of a stranger, and changed on the way: as if it were not there.
    let mut changed = packed.clone();
    let file = changed["files"].as_object_mut().unwrap().values_mut().next().unwrap();
    *file = json!(file.as_str().unwrap().replacen('A', "B", 1));
    let stranger = collected(&scene.vcek.0, &SigningKey::from_bytes(&[4; 32]));
    for unusable in
        [Value::Null, stranger, changed, json!("A"), json!({ "index": "", "files": {} })]
    {
        let (reason, detail) = shown(unusable).err().unwrap();
        assert_eq!(reason, Reason::EvidenceInvalid, "{detail}");
        assert!(detail.contains("VCEK"), "{detail}");
    }
    // Nor does a stranger's take away what the host gave.
    let challenged = scene.challenged(Tee::Snp);
    let mut evidence = scene.evidence(&challenged.binding("").0, |_| {});
    evidence["collateral"] = json!({ "index": "x" });
    scene.shown(challenged, evidence).map(drop).unwrap();
}

/// SEV-SNP measures no phase: the launch's REPORT_ID gets each stage's half once, p5's with
/// measured GPUs beside the chip.
#[test]
fn a_guest_with_gpus_gets_the_boots_half_and_then_p5s() {
    let (line, world, folder) =
        (mint::line("Milan"), Arc::new(World::new()), tempfile::tempdir().unwrap());
    let vcek = mint::endorse(&line.ask.1, &mint::vcek("Milan-B0"));
    let vendors = Vendors::new(line.roots(), intel_roots().unwrap()).with_gpus(world.roots());
    let vendors = vendors.with_collateral(golden(&world, folder.path()));
    let scene = scene_requiring(Some(GpuMechanism::NvidiaCc), vendors, vcek);
    let gpus =
        || Gpus { world: world.clone(), devices: vec![Device::blackwell()], replayed: false };
    let refused = |client: &Client<Attested>, stage, expected: Reason| {
        let (reason, detail) = scene.release_of(client, stage).unwrap_err();
        assert_eq!(reason, expected, "{detail}");
    };

    let boot = scene.attest(|_| {}).unwrap();
    let first = scene.release(&boot).unwrap();
    // The chip alone opens no p5, in no session.
    refused(&scene.attest(|_| {}).unwrap(), Stage::Running, Reason::NoGpu);
    let running = scene.attest_with(gpus());
    let half = scene.release_of(&running, Stage::Running).unwrap();
    assert_ne!(*half, *first);
    assert_eq!(
        *half,
        *scene.ceremony.half_for("alice", &scene.manifest, Stage::Running).as_bytes()
    );
    // The same launch again: for either stage, with GPUs or without.
    let again = scene.attest_with(gpus());
    refused(&again, Stage::Running, Reason::ReleasedBefore);
    refused(&again, Stage::Boot, Reason::ReleasedBefore);
}

#[test]
fn attack_a_guest_after_its_release_in_a_new_session() {
    let scene = scene();
    scene.release(&scene.attest(|_| {}).unwrap()).unwrap();
    // Root in the running guest asks for a fresh report: same launch, same REPORT_ID.
    let (reason, detail) = scene.release(&scene.attest(|_| {}).unwrap()).unwrap_err();
    assert_eq!(reason, Reason::ReleasedBefore, "{detail}");
    // The image's next launch has another one.
    scene.release(&scene.attest(put(0x140, &[0x2e; 32])).unwrap()).unwrap();
}

#[test]
fn attack_a_debug_guest() {
    // Policy bit 19.
    let (reason, detail) = scene().attest(put(8, &[0, 0, 0x0b])).err().unwrap();
    assert_eq!(reason, Reason::ForbiddenGuest, "{detail}");
    assert!(detail.contains("policy_debug_allowed"), "{detail}");
}

#[test]
fn attack_a_migratable_guest() {
    let (reason, detail) = scene().attest(put(8, &[0, 0, 0x07])).err().unwrap();
    assert_eq!(reason, Reason::ForbiddenGuest, "{detail}");
    assert!(detail.contains("policy_migrate_ma"), "{detail}");
}

#[test]
fn attack_a_report_of_another_vmpl() {
    let (reason, detail) = scene().attest(put(0x30, &[1])).err().unwrap();
    assert_eq!(reason, Reason::ForbiddenGuest, "{detail}");
}

#[test]
fn attack_a_report_of_another_session() {
    let scene = scene();
    let first = scene.challenged(Tee::Snp);
    let stolen = scene.evidence(&first.binding("").0, |_| {});
    let (reason, detail) = scene.shown(scene.challenged(Tee::Snp), stolen).err().unwrap();
    assert_eq!(reason, Reason::WrongNonce, "{detail}");
}

#[test]
fn attack_a_report_whose_signature_covers_something_else() {
    let scene = scene();
    let challenged = scene.challenged(Tee::Snp);
    let mut evidence = scene.evidence(&challenged.binding("").0, put(0x90, &[0x66; 48]));
    evidence["attestation_report"]["measurement"] = json!(MEASUREMENT.to_vec());
    let (reason, detail) = scene.shown(challenged, evidence).err().unwrap();
    assert_eq!(reason, Reason::EvidenceInvalid, "{detail}");
}

#[test]
fn attack_another_image_on_a_genuine_chip() {
    let scene = scene();
    let client = scene.attest(put(0x90, &[0x66; 48])).unwrap();
    let (reason, detail) = scene.release(&client).unwrap_err();
    assert_eq!(reason, Reason::WrongMeasurement, "{detail}");
}

/// BadAML: such a guest's report is as genuine as any, because no launch digest covers the host's
/// ACPI tables.
#[test]
fn attack_acpi_code_of_the_host_beside_a_genuine_report() {
    let line = mint::line("Milan");
    let vendors = Vendors::new(line.roots(), intel_roots().unwrap());
    let scene = scene_of(vendors.clone(), mint::endorse(&line.ask.1, &mint::vcek("Milan-B0")));
    let claims =
        vendors.verify("snp", &scene.evidence(&[7; 48], |_| {}), &[7; 48], NOW).unwrap().claims;
    let acpi = claims["not_checked"]
        .as_array()
        .unwrap()
        .iter()
        .find(|skipped| skipped["check"] == "acpi")
        .unwrap();
    assert!(acpi["reason"].as_str().unwrap().starts_with("host, not measured"), "{acpi}");

    let enrolled = scene.server.store.enrolled(&scene.manifest.image_id).unwrap().unwrap();
    let input =
        json!({ "submods": { "cpu0": { "ear.veraison.annotated-evidence": { "snp": claims } } } });
    let ask = |policy: &str| {
        let policy = RegoPolicy::new(policy.into()).unwrap();
        match policy.decide(&input, &json!({ "reference": enrolled.reference })).unwrap() {
            PolicyAnswer::Yes => None,
            PolicyAnswer::No(reasons) => Some(reasons),
        }
    };
    // As shipped it is accepted, by name; whoever takes the word out refuses every such guest.
    assert_eq!(ask(POLICY), None);
    let strict = POLICY.replace("{\"acpi\", ", "{");
    let refused =
        vec!["acpi was not checked, and accepted_not_checked does not list it".to_owned()];
    assert_eq!(ask(&strict), Some(refused));
}

#[test]
fn attack_tcb_rollback() {
    let line = mint::line("Milan");
    let old = mint::Spec { tcb: [9, 3, 1, 19, 0xd5], ..mint::vcek("Milan-B0") };
    let vcek = mint::endorse(&line.ask.1, &old);
    let scene = scene_of(Vendors::new(line.roots(), intel_roots().unwrap()), vcek);
    // The chip is honest about its old firmware …
    let client = scene.attest(put(0x180, &[3, 1, 0, 0, 0, 0, 19, 0xd5])).unwrap();
    let (reason, detail) = scene.release(&client).unwrap_err();
    assert_eq!(reason, Reason::WrongMeasurement, "{detail}");
    assert!(detail.contains("the reported TCB's snp is 19, at least 20"), "{detail}");
    // … and cannot be made to say otherwise: its key belongs to that firmware.
    let (reason, detail) = scene.attest(|_| {}).err().unwrap();
    assert_eq!(reason, Reason::EvidenceInvalid, "{detail}");
}

/// Firmware that was updated under the guest: the old one had launched and measured it.
#[test]
fn attack_a_guest_that_old_firmware_launched() {
    let scene = scene();
    let client = scene.attest(put(0x1f0, &[3, 1, 0, 0, 0, 0, 19, 0xd5])).unwrap();
    let (reason, detail) = scene.release(&client).unwrap_err();
    assert_eq!(reason, Reason::WrongMeasurement, "{detail}");
    assert!(detail.contains("the launch TCB's snp is 19, at least 20"), "{detail}");
}

/// What a builder signed before floors named products, or `predict` wrote without one.
#[test]
fn attack_tcb_0_0_0_0_under_the_shipped_policy() {
    let line = mint::line("Milan");
    let zeros = mint::Spec { tcb: [0; 5], ..mint::vcek("Milan-B0") };
    let vendors = || Vendors::new(line.roots(), intel_roots().unwrap());
    for floor in [
        TcbFloor::default(),
        "milan-b1=3.1.20.213".parse().unwrap(),
        "genoa=7.0.14.84".parse().unwrap(),
    ] {
        let named = floor.clone();
        let scene = scene_with_floor(floor, None, vendors(), mint::endorse(&line.ask.1, &zeros));
        let client = scene.attest(|report| {
            [0x38, 0x180, 0x1e0, 0x1f0].into_iter().for_each(|at| report[at..at + 8].fill(0))
        });
        let (reason, detail) = scene.release(&client.unwrap()).unwrap_err();
        assert_eq!(reason, Reason::WrongMeasurement, "{named:?} {detail}");
        assert!(detail.contains("TCB"), "{detail}");
    }
    let scene = scene_with_floor(
        TcbFloor::default(),
        None,
        vendors(),
        mint::endorse(&line.ask.1, &mint::vcek("Milan-B0")),
    );
    let (_, detail) = scene.release(&scene.attest(|_| {}).unwrap()).unwrap_err();
    assert!(
        detail.contains("no TCB floor is stated for Milan-B1") && detail.contains("tcb_floor"),
        "{detail}"
    );
}

/// A policy that parties signed when floors named no product: the key holder itself asks for
/// today's.
#[test]
fn a_policy_of_an_earlier_ceremony_still_releases() {
    let rule = "\tevery part, least in object.get(platform, \"min_tcb\", {}) \
        {\n\t\tsnp[sprintf(\"reported_tcb_%s\", [part])] >= least\n\t}\n";
    let today = "\tsnp.measurement == platform.measurement\n\ttcb_suffices(snp, platform)\n";
    let earlier =
        POLICY.replace(today, &format!("\tsnp.measurement == platform.measurement\n{rule}"));
    assert_ne!(earlier, POLICY);
    let line = mint::line("Milan");
    let scene = |floor: &str| {
        let vcek = mint::endorse(&line.ask.1, &mint::vcek("Milan-B0"));
        let vendors = Vendors::new(line.roots(), intel_roots().unwrap());
        scene_under(&earlier, floor.parse().unwrap(), None, vendors, vcek)
    };
    let good = scene("milan-b1=3.1.20.213");
    good.release(&good.attest(|_| {}).unwrap()).unwrap();
    let other = scene("siena=3.1.20.25");
    let (reason, detail) = other.release(&other.attest(|_| {}).unwrap()).unwrap_err();
    assert_eq!(reason, Reason::WrongMeasurement, "{detail}");
}

/// Siena's newest microcode has a lower number than Genoa's oldest.
#[test]
fn attack_sienas_floor_met_by_an_unpatched_genoa() {
    let line = mint::line("Genoa");
    let floors = ["siena-a2=3.1.20.25", "genoa-b1=3.1.20.84"].map(|floor| floor.parse().unwrap());
    let released = |floor: TcbFloor, name: &'static str, cpuid: [u8; 3], microcode: u8| {
        let spec = mint::Spec { tcb: [0, 3, 1, 20, microcode], ..mint::vcek(name) };
        let vendors = Vendors::new(line.roots(), intel_roots().unwrap());
        let scene = scene_with_floor(floor, None, vendors, mint::endorse(&line.ask.1, &spec));
        let tcb = [3, 1, 0, 0, 0, 0, 20, microcode];
        let client = scene.attest(|report| {
            [0x38, 0x180, 0x1e0, 0x1f0]
                .into_iter()
                .for_each(|at| report[at..at + 8].copy_from_slice(&tcb));
            report[0x188..0x18b].copy_from_slice(&cpuid);
        });
        scene.release(&client.unwrap()).map(drop).map_err(|(_, detail)| detail)
    };
    let [siena, genoa]: [TcbFloor; 2] = floors;
    let both = TcbFloor::merge([siena.clone(), genoa]).unwrap();
    released(siena.clone(), "Siena-A2", [0x19, 0xa0, 2], 25).unwrap();
    released(both.clone(), "Siena-A2", [0x19, 0xa0, 2], 25).unwrap();
    released(both.clone(), "Genoa-B1", [0x19, 0x11, 1], 84).unwrap();
    let unpatched = |floor| released(floor, "Genoa-B1", [0x19, 0x11, 1], 0x44).unwrap_err();
    assert!(unpatched(siena.clone()).contains("no TCB floor is stated for Genoa-B1"));
    assert!(unpatched(both).contains("microcode is 68, at least 84 is asked for of Genoa-B1"));
    // Genoa's other stepping counts its microcode anew.
    assert!(
        released(siena, "Genoa-B1", [0x19, 0x11, 2], 255).unwrap_err().contains("for Genoa-B2")
    );
}

#[test]
fn attack_a_chip_that_amd_does_not_vouch_for() {
    let other = mint::line("Milan");
    let vcek = mint::endorse(&other.ask.1, &mint::vcek("Milan-B0"));
    let scene = scene_of(Vendors::genuine().unwrap(), vcek);
    let (reason, detail) = scene.attest(|_| {}).err().unwrap();
    assert_eq!(reason, Reason::EvidenceInvalid, "{detail}");
}

/// Real evidence answers a challenge of its own time. That, and nothing before it, is what it is
/// refused for.
#[test]
fn real_evidence_is_genuine_and_of_another_session() {
    let line = mint::line("Milan");
    let scene =
        scene_of(Vendors::genuine().unwrap(), mint::endorse(&line.ask.1, &mint::vcek("Milan-B0")));
    let read = |name: &str| {
        fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)).unwrap()
    };
    let real = read("crates/cvm-attest/tests/vectors/snp-trustee-e2e/evidence.json");
    let mut real: Value = serde_json::from_slice(&real).unwrap();
    let (reason, detail) = scene.shown(scene.challenged(Tee::Snp), real.clone()).err().unwrap();
    assert_eq!(reason, Reason::WrongNonce, "{detail}");
    real["attestation_report"]["report_id"][0] = json!(0);
    let (reason, detail) = scene.shown(scene.challenged(Tee::Snp), real).err().unwrap();
    assert_eq!(reason, Reason::EvidenceInvalid, "{detail}");

    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let quote = read("tests/vectors/evidence/tdx/quotes/phala-tdx_quote.bin");
    let body = json!({ "cc_eventlog": null, "quote": STANDARD.encode(&quote) });
    let (reason, detail) = scene.shown(scene.challenged(Tee::Tdx), body).err().unwrap();
    assert_eq!(reason, Reason::WrongNonce, "{detail}");
    let azure = read("crates/cvm-attest/tests/vectors/azure-trustee-v2/evidence.json");
    let azure = serde_json::from_slice(&azure).unwrap();
    let (reason, detail) = scene.shown(scene.challenged(Tee::AzSnpVtpm), azure).err().unwrap();
    assert_eq!(reason, Reason::WrongNonce, "{detail}");
    let garbage = json!({ "quote": "AAAA", "cc_eventlog": null });
    let (reason, _) = scene.shown(scene.challenged(Tee::Tdx), garbage).err().unwrap();
    assert_eq!(reason, Reason::Malformed);
}
