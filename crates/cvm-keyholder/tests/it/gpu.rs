//! Two-stage release: what an image that requires GPUs is given, and when. The CPU's evidence is a
//! software TPM's; the GPUs, their manifests and NVIDIA are the test's own. The server is asked
//! without a network.

use std::sync::{Arc, Mutex};

use crate::common::{
    Ceremony, LOG,
    asked::{PartyHalves, reply, send},
    log,
    swtpm::{TpmAttester, boot, root_sha256},
};
use crate::gpus::Gpus;
use crate::synthetic::{Device, World};
use cvm_base::{sha256, time};
use cvm_collateral::tee::Vendors;
use cvm_collect::tpm::Tpm;
use cvm_evidence::{JOBS_PCR, handoff_digest, jobs_digest, reference::Platforms};
use cvm_jobs::Composite;
use cvm_keyholder::{evidence::Verifier, policy::RegoPolicy};
use cvm_layout::manifest::{GpuMechanism, Manifest, Stage};
use cvm_release::{
    binding::Binding,
    client::{Attested, Challenged, Client, Outgoing},
    paths,
};
use cvm_release_https::Attester;
use cvm_release_server::{Fault, Outcome, Reason, ReleaseServer, SessionKeys, Verdict};
use cvm_testkit::swtpm::Swtpm;
use cvm_verify::Roots;
use serde_json::json;
use zeroize::Zeroizing;

const POLICY: &str = include_str!("../../../../keys/policies/tpm.rego");

/// A party's key holder, an image that requires GPUs or not, and a machine that boots it.
struct Scene {
    ceremony: Ceremony,
    manifest: Manifest,
    server: ReleaseServer,
    world: Arc<World>,
    swtpm: Swtpm,
}

fn scene() -> Scene {
    scene_of("alice", Some(GpuMechanism::NvidiaCc), true)
}

/// `manifests`: whether the key holder has NVIDIA's golden values.
fn scene_of(party: &str, gpu: Option<GpuMechanism>, manifests: bool) -> Scene {
    let (swtpm, world) = (Swtpm::new(), Arc::new(World::new()));
    let policy = POLICY.replace("@EK_ROOT_SHA256@", &root_sha256(&swtpm).to_string());
    let ceremony = Ceremony::hold(&policy);
    let (documents, manifest) = ceremony.build_requiring(gpu, &log(LOG), Platforms::default());
    let store = ceremony.store(party);
    store.enrol(&documents).unwrap();
    let mut vendors = Vendors::genuine().unwrap().with_gpus(world.roots());
    if manifests {
        vendors = vendors.with_collateral(crate::gpus::golden(
            &world,
            &ceremony.folder.path().join("collateral"),
        ));
    }
    let server = ReleaseServer {
        party: party.parse().unwrap(),
        keys: SessionKeys::derive(&[7; 32]).unwrap(),
        evidence: Box::new(Verifier {
            roots: Roots::from_pem(&swtpm.roots()).unwrap(),
            vendors,
            allow_sample: false,
        }),
        store: Box::new(store),
        policy: Box::new(RegoPolicy::new(policy.into()).unwrap()),
        halves: Box::new(PartyHalves(Mutex::new(ceremony.party(party)))),
        random: Box::new(|bytes| getrandom::fill(bytes).map_err(|e| Fault::new("randomness", e))),
    };
    Scene { ceremony, manifest, server, world, swtpm }
}

impl Scene {
    /// The machine after its boot measured everything.
    fn boot(&self) -> Tpm {
        boot(&self.swtpm, &log(LOG))
    }

    /// And after `cvm-init` handed off.
    fn running(&self) -> Tpm {
        let mut tpm = self.boot();
        tpm.extend_pcr(11, &handoff_digest()).unwrap();
        tpm
    }

    fn gpus(&self, devices: Vec<Device>) -> Gpus {
        Gpus { world: self.world.clone(), devices, replayed: false }
    }

    fn send(&self, outgoing: &Outgoing) -> Outcome {
        // The software TPM's certificates are of today.
        send(&self.server, outgoing, time::now())
    }

    fn challenged(&self, attester: &dyn Attester) -> Client<Challenged> {
        let start = Client::new(attester.tee()).unwrap();
        let outcome = self.send(&start.auth_request(&attester.auth_params().unwrap()).unwrap());
        start.challenged(&reply(&outcome)).unwrap()
    }

    /// As the client does it, with `additional` in the place of what the attester would say.
    fn shown(
        &self,
        challenged: Client<Challenged>,
        attester: &dyn Attester,
        bound: &str,
        sent: &str,
    ) -> Result<Client<Attested>, (Reason, String)> {
        let evidence =
            attester.evidence(challenged.extra_params(), &challenged.binding(bound)).unwrap();
        let outcome = self.send(&challenged.attest_request(evidence, sent).unwrap());
        match outcome.decision.reason {
            Some(reason) => Err((reason, outcome.decision.detail)),
            None => Ok(challenged.attested(&reply(&outcome)).unwrap()),
        }
    }

    fn attest(&self, attester: &dyn Attester) -> Result<Client<Attested>, (Reason, String)> {
        let challenged = self.challenged(attester);
        let additional = attester.additional(&challenged.device_binding()).unwrap();
        self.shown(challenged, attester, &additional, &additional)
    }

    /// With these GPUs beside the CPU, in the phase that the TPM shows.
    fn attest_with(
        &self,
        tpm: &mut Tpm,
        mut gpus: Gpus,
    ) -> Result<Client<Attested>, (Reason, String)> {
        let cpu = TpmAttester::new(tpm, log(LOG));
        let composite = Composite::new(&cpu, &mut gpus).unwrap();
        self.attest(&composite)
    }

    fn release(
        &self,
        client: &Client<Attested>,
        stage: Stage,
    ) -> Result<Zeroizing<[u8; 32]>, (Reason, String)> {
        let outcome = self.send(&client.half_request(&self.manifest.image_id, stage));
        match outcome.decision.reason {
            Some(reason) => {
                assert!(client.half(&reply(&outcome)).is_err());
                Err((reason, outcome.decision.detail))
            }
            None => {
                assert_eq!(outcome.decision.verdict, Verdict::Released);
                Ok(client.half(&reply(&outcome)).unwrap())
            }
        }
    }

    fn half(&self, party: &str, stage: Stage) -> [u8; 32] {
        *self.ceremony.half_for(party, &self.manifest, stage).as_bytes()
    }
}

fn refused<T>(result: Result<T, (Reason, String)>, expected: Reason, word: &str) {
    let (reason, detail) = result.err().expect("a refusal");
    assert_eq!(reason, expected, "{detail}");
    assert!(detail.contains(word), "{detail}");
}

#[test]
fn the_boot_gets_p3s_half_and_the_running_system_with_its_gpus_p5s() {
    let scene = scene();
    let mut tpm = scene.boot();
    let client = scene.attest(&TpmAttester::new(&mut tpm, log(LOG))).unwrap();
    assert_eq!(*scene.release(&client, Stage::Boot).unwrap(), scene.half("alice", Stage::Boot));
    tpm.extend_pcr(11, &handoff_digest()).unwrap();

    let client = scene.attest_with(&mut tpm, scene.gpus(vec![Device::blackwell()])).unwrap();
    let half = scene.release(&client, Stage::Running).unwrap();
    assert_eq!(*half, scene.half("alice", Stage::Running));
    assert_ne!(*half, scene.half("alice", Stage::Boot));
    // p5's header is this session's to register.
    let register =
        client.register_seal_request(&scene.manifest.image_id, sha256(b"header"), None).unwrap();
    client.seal_registered(&reply(&scene.send(&register))).unwrap();
    let seal = scene.send(&client.seal_request(&scene.manifest.image_id));
    let seal = client.seal_state(&reply(&seal)).unwrap().unwrap();
    assert_eq!((seal.header_sha256, seal.allowed.bind), (Some(sha256(b"header")), false));
}

#[test]
fn attack_p5_without_gpu_evidence() {
    let scene = scene();
    let mut tpm = scene.running();
    let client = scene.attest(&TpmAttester::new(&mut tpm, log(LOG))).unwrap();
    refused(scene.release(&client, Stage::Running), Reason::NoGpu, "no GPU");
}

#[test]
fn attack_p5_for_a_boot() {
    let scene = scene();
    let mut tpm = scene.boot();
    let client = scene.attest(&TpmAttester::new(&mut tpm, log(LOG))).unwrap();
    refused(scene.release(&client, Stage::Running), Reason::BeforeHandoff, "still boots");
    // Not even with genuine GPUs.
    let client = scene.attest_with(&mut tpm, scene.gpus(vec![Device::blackwell()])).unwrap();
    refused(scene.release(&client, Stage::Running), Reason::BeforeHandoff, "still boots");
}

#[test]
fn attack_the_boots_half_for_a_running_system_with_gpus() {
    let scene = scene();
    let client =
        scene.attest_with(&mut scene.running(), scene.gpus(vec![Device::blackwell()])).unwrap();
    refused(scene.release(&client, Stage::Boot), Reason::AfterHandoff, "handed off");
}

#[test]
fn attack_a_replayed_gpu_report() {
    let scene = scene();
    let gpus = Gpus { replayed: true, ..scene.gpus(vec![Device::blackwell()]) };
    refused(scene.attest_with(&mut scene.running(), gpus), Reason::WrongNonce, "bound to nonce");
}

#[test]
fn attack_gpus_of_another_session() {
    let scene = scene();
    let mut tpm = scene.running();
    let cpu = TpmAttester::new(&mut tpm, log(LOG));
    let mut gpus = scene.gpus(vec![Device::blackwell()]);
    let composite = Composite::new(&cpu, &mut gpus).unwrap();
    let others = scene.challenged(&composite);
    let stolen = composite.additional(&others.device_binding()).unwrap();
    // The CPU vouches for their text, but they answered somebody else.
    let mine = scene.challenged(&composite);
    refused(scene.shown(mine, &cpu, &stolen, &stolen), Reason::WrongNonce, "bound to nonce");
    // Or they answered this session, and the CPU knows nothing of them.
    let mine = scene.challenged(&composite);
    let own = composite.additional(&mine.device_binding()).unwrap();
    refused(scene.shown(mine, &cpu, "", &own), Reason::WrongNonce, "");
    // Or they are taken away.
    let mine = scene.challenged(&composite);
    let own = composite.additional(&mine.device_binding()).unwrap();
    refused(scene.shown(mine, &cpu, &own, ""), Reason::WrongNonce, "");
}

#[test]
fn attack_a_gpu_whose_measurements_differ() {
    let scene = scene();
    let mut gpu = Device::blackwell();
    gpu.measurements[9] = [0xee; 48];
    refused(
        scene.attest_with(&mut scene.running(), scene.gpus(vec![gpu])),
        Reason::EvidenceInvalid,
        "differ",
    );
}

#[test]
fn attack_a_gpu_of_which_nobody_knows_the_golden_values() {
    let scene = scene_of("alice", Some(GpuMechanism::NvidiaCc), false);
    let client =
        scene.attest_with(&mut scene.running(), scene.gpus(vec![Device::blackwell()])).unwrap();
    refused(scene.release(&client, Stage::Running), Reason::GpuNotAccepted, "golden values");
    // One that runs another driver than the cache's manifests are of is not measured either.
    let scene = self::scene();
    let mut gpu = Device::blackwell();
    gpu.set(3, b"535.104\0".to_vec());
    let client = scene.attest_with(&mut scene.running(), scene.gpus(vec![gpu])).unwrap();
    refused(scene.release(&client, Stage::Running), Reason::GpuNotAccepted, "golden values");
}

#[test]
fn attack_a_gpu_that_nvidia_does_not_vouch_for() {
    let (scene, other) = (scene(), Arc::new(World::new()));
    let gpus = Gpus { world: other, devices: vec![Device::blackwell()], replayed: false };
    refused(scene.attest_with(&mut scene.running(), gpus), Reason::EvidenceInvalid, "chain");
}

#[test]
fn attack_a_gpu_in_no_confidential_mode() {
    let scene = scene();
    // Its driver has then no manifest as a CC driver; the firmware states no mode.
    let mut unstated = Device::blackwell();
    unstated.opaque.retain(|(field, _)| *field != 36);
    let mut tpm = scene.running();
    let client = scene.attest_with(&mut tpm, scene.gpus(vec![unstated])).unwrap();
    refused(scene.release(&client, Stage::Running), Reason::Policy, "");
    // Links in clear, and no switch that vouches for them.
    let mut ppcie = Device::blackwell();
    ppcie.set(36, vec![2, 0]);
    refused(scene.attest_with(&mut tpm, scene.gpus(vec![ppcie])), Reason::EvidenceInvalid, "GPUs");
}

#[test]
fn attack_one_gpu_shown_twice() {
    let scene = scene();
    let gpus = scene.gpus(vec![Device::blackwell(), Device::blackwell()]);
    refused(scene.attest_with(&mut scene.running(), gpus), Reason::EvidenceInvalid, "twice");
}

#[test]
fn attack_p5s_half_again_once_p5_is_open() {
    let scene = scene();
    let mut tpm = scene.running();
    let client = scene.attest_with(&mut tpm, scene.gpus(vec![Device::blackwell()])).unwrap();
    scene.release(&client, Stage::Running).unwrap();
    refused(scene.release(&client, Stage::Running), Reason::ReleasedBefore, "session");
    tpm.extend_pcr(JOBS_PCR, &jobs_digest()).unwrap();
    // Root in the running guest asks with fresh evidence of the same genuine GPU.
    let client = scene.attest_with(&mut tpm, scene.gpus(vec![Device::blackwell()])).unwrap();
    refused(scene.release(&client, Stage::Running), Reason::AfterJobs, "PCR 15");
}

#[test]
fn attack_a_header_that_the_boot_registers() {
    let scene = scene();
    let mut tpm = scene.boot();
    let client = scene.attest(&TpmAttester::new(&mut tpm, log(LOG))).unwrap();
    scene.release(&client, Stage::Boot).unwrap();
    let register =
        client.register_seal_request(&scene.manifest.image_id, sha256(b"header"), None).unwrap();
    assert_eq!(scene.send(&register).decision.reason, Some(Reason::BeforeHandoff));
}

#[test]
fn attack_a_data_owner_who_is_asked_by_the_boot() {
    // Its half opens p5 alone, so the boot of this image has no use for it.
    let scene = scene_of("bob", Some(GpuMechanism::NvidiaCc), true);
    let mut tpm = scene.boot();
    let client = scene.attest(&TpmAttester::new(&mut tpm, log(LOG))).unwrap();
    refused(scene.release(&client, Stage::Boot), Reason::NoSuchResource, "no half");
    tpm.extend_pcr(11, &handoff_digest()).unwrap();
    let client = scene.attest_with(&mut tpm, scene.gpus(vec![Device::blackwell()])).unwrap();
    assert_eq!(*scene.release(&client, Stage::Running).unwrap(), scene.half("bob", Stage::Running));
}

#[test]
fn a_site_without_gpus_is_released_to_in_one_stage() {
    let scene = scene_of("bob", None, true);
    let mut tpm = scene.boot();
    let client = scene.attest(&TpmAttester::new(&mut tpm, log(LOG))).unwrap();
    assert_eq!(*scene.release(&client, Stage::Boot).unwrap(), scene.half("bob", Stage::Boot));
    // GPUs that are there all the same are in the claims, and open nothing that they should not.
    let client = scene.attest_with(&mut tpm, scene.gpus(vec![Device::blackwell()])).unwrap();
    refused(scene.release(&client, Stage::Running), Reason::NoSuchResource, "no half");
    scene.release(&client, Stage::Boot).unwrap();
    tpm.extend_pcr(11, &handoff_digest()).unwrap();
    let client = scene.attest_with(&mut tpm, scene.gpus(vec![Device::blackwell()])).unwrap();
    refused(scene.release(&client, Stage::Running), Reason::NoSuchResource, "no half");
    refused(scene.release(&client, Stage::Boot), Reason::AfterHandoff, "handed off");
}

#[test]
fn what_is_no_evidence_of_devices() {
    let scene = scene();
    let mut tpm = scene.running();
    let cpu = TpmAttester::new(&mut tpm, log(LOG));
    for (text, reason) in [
        ("[]".to_owned(), Reason::Malformed),
        ("{}".into(), Reason::Malformed),
        (json!({"nvidia": {"device_evidence_list": []}}).to_string(), Reason::Malformed),
        (json!({"nvidia": null}).to_string(), Reason::Malformed),
        (json!({"sampledevice": {}}).to_string(), Reason::Unsupported),
        (" ".repeat(cvm_collateral::tee::MAX_ADDITIONAL_BYTES / 2), Reason::Malformed),
    ] {
        let found = scene.shown(scene.challenged(&cpu), &cpu, &text, &text);
        assert_eq!(found.err().unwrap().0, reason, "{text:.60}");
    }
}

/// The client reads the answer to its evidence whole, and a stock one shows the token in a header.
#[test]
fn eight_gpus_stand_in_a_token_that_a_client_reads() {
    let scene = scene();
    let eight = (1..=8).map(|n| {
        let mut gpu = Device {
            pdi: [0xb1, 0, 0, 0, 0, 0, 0, n],
            serial: 0x1000 + u64::from(n),
            ..Device::blackwell()
        };
        gpu.set(36, vec![1, 0]);
        gpu
    });
    let mut tpm = scene.running();
    let cpu = TpmAttester::new(&mut tpm, log(LOG));
    let mut gpus = scene.gpus(eight.collect());
    let composite = Composite::new(&cpu, &mut gpus).unwrap();
    let challenged = scene.challenged(&composite);
    let additional = composite.additional(&challenged.device_binding()).unwrap();
    let binding: Binding = challenged.binding(&additional);
    let evidence = composite.evidence(challenged.extra_params(), &binding).unwrap();
    let request = challenged.attest_request(evidence, &additional).unwrap();
    assert!(request.body.len() < paths::MAX_ATTEST_BYTES / 2, "{}", request.body.len());
    let outcome = scene.send(&request);
    assert!(
        outcome.decision.detail.ends_with("with gpu6 with gpu7"),
        "{}",
        outcome.decision.detail
    );
    let size = outcome.reply.body.len();
    assert!(size < paths::MAX_REPLY_BYTES, "{size}");
    let client = challenged.attested(&reply(&outcome)).unwrap();
    assert_eq!(
        *scene.release(&client, Stage::Running).unwrap(),
        scene.half("alice", Stage::Running)
    );
}
