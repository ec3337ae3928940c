//! GPUs beside the CPU: minted ones, with NVIDIA's manifests for them, on minted chips with SEV-SNP
//! and on software TPMs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use cvm_agent::{
    agent::Agent,
    attester::{Attester as _, GpuAttester, OpenDevice, TeeAttester},
    serve,
};
use cvm_base::{Explain as _, sha256};
use cvm_collateral::tee::Vendors;
use cvm_collect::CollectError;
use cvm_layout::{manifest::GpuMechanism, names::Role, p1::MAX_COLLATERAL_BYTES};
use cvm_peer::token::{Statement, Token};
use ed25519_dalek::SigningKey;
use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::{
    chip::{Chip, MEASUREMENT, Maker, device, platforms},
    common::{Federation, Site, ask, challenge, code, peer, python, token, verify},
    gpus::{Gpus, collector, golden},
    synthetic::{Device, World},
};

/// A server without GPUs and a client whose image requires them.
struct Scene {
    federation: Federation,
    maker: Maker,
    world: Arc<World>,
    server: Site,
    client: Site,
    chip: Arc<Chip>,
}

fn scene() -> Scene {
    let (federation, maker) = (Federation::hold(), Maker::new());
    let server = federation.tee_site("server1", Role::Server, platforms(MEASUREMENT));
    let client = federation.gpu_site("site-1", Role::Client, platforms(MEASUREMENT));
    let chip = maker.chip();
    Scene { federation, maker, world: Arc::new(World::new()), server, client, chip }
}

/// The n-th of several, with encrypted links between them.
fn one_of_several(n: u8) -> Device {
    let mut gpu = Device {
        pdi: [0xb1, 0, 0, 0, 0, 0, 0, n],
        serial: 0x1000 + u64::from(n),
        ..Device::blackwell()
    };
    gpu.set(36, vec![1, 0]);
    gpu
}

impl Scene {
    /// All makers of the scene, with what NVIDIA published or without.
    fn vendors(&self, manifests: bool) -> Vendors {
        let vendors = self.maker.vendors().with_gpus(self.world.roots());
        let cache = || golden(&self.world, &self.federation.folder.path().join("collateral"));
        if manifests { vendors.with_collateral(cache()) } else { vendors }
    }

    fn gpus(&self, devices: Vec<Device>) -> Gpus {
        Gpus { world: self.world.clone(), devices, replayed: false }
    }

    fn agent(&self, site: &Site, manifests: bool) -> Agent {
        let mut own = site.own_image();
        own.trust = own.trust.with_vendors(self.vendors(manifests));
        site.agent_with(own, Box::new(TeeAttester::new(device(&self.chip), b"").unwrap()))
    }

    fn server(&self, manifests: bool) -> Agent {
        let agent = self.agent(&self.server, manifests);
        agent.verify_self(&[]).unwrap();
        agent
    }

    fn client(&self, manifests: bool, gpus: Gpus) -> Agent {
        self.agent(&self.client, manifests).with_gpus(attester(gpus))
    }

    /// A token as the client's root would make it: with what `additional` gives for the statement.
    fn made_by_root(&self, additional: impl FnOnce(&Statement) -> Option<String>) -> Token {
        let own = self.client.own_image();
        let mut statement = self.client.statement(&own);
        let additional_evidence = additional(&statement);
        statement.additional_evidence_sha256 =
            additional_evidence.as_ref().map(|text| sha256(text.as_bytes()));
        let cpu = TeeAttester::new(device(&self.chip), b"").unwrap();
        let evidence = cpu.evidence(&statement.digest()).unwrap();
        Token {
            statement,
            evidence,
            additional_evidence,
            documents: own.documents.clone(),
            ak_certificates: vec![],
        }
    }
}

fn attester(gpus: Gpus) -> GpuAttester {
    let open: OpenDevice = Box::new(move || Ok(Box::new(gpus.clone())));
    GpuAttester::new(open)
}

fn site_1() -> Value {
    let mut peer = peer("site-1", "client");
    peer["tls_cert_sha256"] = json!(null);
    peer
}

/// The code and the reason of a refusal.
#[track_caller]
fn refusal(verifier: &Agent, token: &Token) -> (String, String) {
    let answer = verify(verifier, &token.text().unwrap(), &site_1(), None);
    (code(&answer).to_owned(), answer["reason"].to_string())
}

#[test]
fn a_site_shows_its_gpus_and_its_peer_sees_nvidias_golden_values() {
    let scene = scene();
    let (server, client) =
        (scene.server(true), scene.client(true, scene.gpus((1..=8).map(one_of_several).collect())));
    client.verify_self(&[]).unwrap();
    assert_eq!(ask(&client, json!({"op": "status"}))["kinds"], json!(["snp", "nvidia"]));

    let asked = challenge(&server, "site-1");
    let shown = token(&client, Some(&asked));
    let accepted = verify(&server, &shown, &peer("site-1", "client"), Some(&asked));
    assert_eq!(accepted["verified"], true, "{accepted}");
    let submods = accepted["claims"]["submods"].as_object().unwrap();
    assert_eq!(submods.len(), 9, "the CPU and eight GPUs");
    let gpu = &submods["gpu7"]["ear.veraison.annotated-evidence"]["nvidia"];
    assert_eq!(
        (&gpu["measres"], &gpu["x-nvidia-gpu-driver-version"]),
        (&json!("success"), &json!("575.32"))
    );
    // Said, and accepted by name: nobody asked NVIDIA whether it revoked anything.
    assert_eq!(
        accepted["not_checked"],
        json!(["acpi", "certificate-revocation", "host-data", "ocsp"])
    );
    // A server without GPUs need not show any.
    let asked = challenge(&client, "server1");
    let accepted =
        verify(&client, &token(&server, Some(&asked)), &peer("server1", "server"), Some(&asked));
    assert_eq!(accepted["claims"]["submods"].as_object().unwrap().len(), 1, "{accepted}");
}

/// From agent to agent, through both sockets and the Python between them.
#[test]
fn a_token_of_eight_gpus_and_as_much_collateral_as_p1_takes() {
    const SCRIPT: &str = r#"
from flare_cvm.agent_client import AgentClient, Peer
server, client = AgentClient(sys.argv[2]), AgentClient(sys.argv[3])
tls = "ab" * 32
challenge = server.challenge("site-1").challenge
token = client.generate(challenge, tls).token
claims = server.verify(token, Peer("site-1", "client", tls), challenge).claims
cpu = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["snp"]
print(len(token) > 700_000, len(claims["submods"]), cpu["collateral"]["collector"])
"#;
    let scene = scene();
    let cache = golden(&scene.world, &scene.federation.folder.path().join("collateral")).pack();
    let mut packed: Value = serde_json::from_slice(&cache).unwrap();
    // What its index does not name helps nobody, and is carried all the same.
    let most = usize::try_from(MAX_COLLATERAL_BYTES).unwrap();
    packed["files"]["more"] = json!("A".repeat(most - cache.len() - 100));
    let packed = packed.to_string();
    assert!((most - 200..=most).contains(&packed.len()));
    let agent = |site: &Site, collateral: &str| {
        let mut own = site.own_image();
        let vendors = scene.vendors(true).with_collectors(vec![collector().verifying_key()]);
        own.trust = own.trust.with_vendors(vendors);
        site.agent_with(
            own,
            Box::new(TeeAttester::new(device(&scene.chip), collateral.as_bytes()).unwrap()),
        )
    };
    let eight = scene.gpus((1..=8).map(one_of_several).collect());
    let client = agent(&scene.client, &packed).with_gpus(attester(eight));
    for (agent, site) in [(agent(&scene.server, ""), &scene.server), (client, &scene.client)] {
        agent.verify_self(&[]).unwrap();
        let listener = serve::bind(&site.at("agent.sock")).unwrap();
        thread::spawn(move || serve::local(&Arc::new(agent), &listener, &[geteuid().as_raw()]));
    }
    let mut python = python(SCRIPT);
    let output = python
        .args([&scene.server, &scene.client].map(|site| site.at("agent.sock")))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let expected = format!("True 9 {}\n", hex::encode(collector().verifying_key().to_bytes()));
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{errors}");
}

#[test]
fn without_nvidias_manifests_a_machine_goes_on_and_a_peer_refuses_it() {
    let scene = scene();
    // Before the token: an agent does not believe one without a challenge that is older than
    // itself.
    let (without, with) = (scene.server(false), scene.server(true));
    let client = scene.client(false, scene.gpus(vec![Device::blackwell()]));
    client.verify_self(&[]).unwrap();
    let shown = token(&client, None);
    let answer = verify(&without, &shown, &peer("site-1", "client"), None);
    assert_eq!(code(&answer), "AGT-033");
    assert!(answer["reason"].as_str().unwrap().contains("rim was not checked"), "{answer}");
    // It is the verifier's cache that counts.
    assert_eq!(verify(&with, &shown, &peer("site-1", "client"), None)["verified"], true);
}

#[test]
fn attack_gpus_that_are_another_sessions_or_nobodys() {
    let scene = scene();
    let server = scene.server(true);
    let answer = |gpus: &Gpus, digest: &[u8; 48]| {
        attester(gpus.clone()).additional_evidence(digest).unwrap()
    };
    let genuine = scene.gpus(vec![Device::blackwell()]);
    let good = scene.made_by_root(|statement| Some(answer(&genuine, &statement.device_digest())));
    let (expected, other_text) = (Some(good.clone()), answer(&genuine, &[3; 48]));

    // Recorded for another statement, and passed on by a machine that has no GPU at all.
    let relayed = scene.made_by_root(|_| Some(other_text.clone()));
    let (found, reason) = refusal(&server, &relayed);
    assert_eq!(found, "AGT-031", "{reason}");
    assert!(reason.contains("nonce"), "{reason}");
    // Left out, where the image requires them.
    let (found, reason) = refusal(&server, &scene.made_by_root(|_| None));
    assert_eq!(found, "AGT-031", "{reason}");
    assert!(reason.contains("requires GPUs"), "{reason}");
    // Taken away or exchanged on the way: the CPU answered for another text, or for another
    // statement.
    let exchanged = Token { additional_evidence: Some(other_text), ..good.clone() };
    assert_eq!(refusal(&server, &exchanged).0, "AGT-020");
    let taken = Token { additional_evidence: None, ..good.clone() };
    assert_eq!(refusal(&server, &taken).0, "AGT-020");
    let mut both = taken;
    both.statement.additional_evidence_sha256 = None;
    assert_eq!(refusal(&server, &both).0, "AGT-031");
    // A maker of GPUs that is not NVIDIA, one GPU that is shown twice, and words that are no
    // evidence.
    let foreign = Gpus { world: Arc::new(World::new()), ..genuine.clone() };
    let foreign =
        scene.made_by_root(|statement| Some(answer(&foreign, &statement.device_digest())));
    assert_eq!(refusal(&server, &foreign).0, "AGT-031");
    let twice = scene.gpus(vec![one_of_several(1), one_of_several(1)]);
    let twice = scene.made_by_root(|statement| Some(answer(&twice, &statement.device_digest())));
    assert_eq!(refusal(&server, &twice).0, "AGT-031");
    for text in ["", "{}", "[]", r#"{"nvidia":null}"#, r#"{"other":{}}"#] {
        let nonsense = scene.made_by_root(|_| Some(text.into()));
        assert_eq!(refusal(&server, &nonsense).0, "AGT-031", "{text:?}");
    }
    // Unchanged it is accepted.
    let good = expected.unwrap().text().unwrap();
    assert_eq!(verify(&server, &good, &site_1(), None)["verified"], true);
}

#[test]
fn attack_a_gpu_with_other_firmware_or_clear_links() {
    let scene = scene();
    let server = scene.server(true);
    let shown = |device: Device| {
        let gpus = scene.gpus(vec![device]);
        let answer = |statement: &Statement| {
            attester(gpus).additional_evidence(&statement.device_digest()).unwrap()
        };
        scene.made_by_root(|statement| Some(answer(statement)))
    };
    let mut other = Device::blackwell();
    other.measurements[3] = [0xee; 48];
    let (found, reason) = refusal(&server, &shown(other.clone()));
    assert_eq!(found, "AGT-031", "{reason}");
    // Its own agent sees the same, and powers its machine off.
    assert_eq!(
        scene.client(true, scene.gpus(vec![other])).verify_self(&[]).unwrap_err().code(),
        "AGT-031"
    );
    // A mode that no switch vouches for.
    let mut clear = Device::blackwell();
    clear.set(36, vec![2, 0]);
    assert_eq!(refusal(&server, &shown(clear)).0, "AGT-031");
    // Firmware that states no mode proves nothing about its links.
    let mut unstated = Device::blackwell();
    unstated.opaque.retain(|(field, _)| *field != 36);
    let (found, reason) = refusal(&server, &shown(unstated));
    assert_eq!(found, "AGT-033", "{reason}");
    assert!(reason.contains("gpu0 of the peer"), "{reason}");
}

#[test]
fn a_gpu_that_answers_no_more_ends_its_machine() {
    let scene = scene();
    let (gone, gpus) = (Arc::new(AtomicBool::new(false)), scene.gpus(vec![Device::blackwell()]));
    let is_gone = gone.clone();
    let open: OpenDevice = Box::new(move || match is_gone.load(Ordering::Relaxed) {
        true => Err(CollectError::Absent {
            device: "NVIDIA GPU".into(),
            problem: "it fell off the bus".into(),
        }),
        false => Ok(Box::new(gpus.clone())),
    });
    let client = scene.agent(&scene.client, true).with_gpus(GpuAttester::new(open));
    client.verify_self(&[]).unwrap();
    gone.store(true, Ordering::Relaxed);
    let refused = client.verify_self(&[]).unwrap_err();
    assert_eq!(refused.code(), "AGT-005");
    assert!(refused.to_string().contains("fell off the bus"), "{refused}");
    assert_eq!(ask(&client, json!({"op": "status"}))["state"], "failing");
    // An image that requires them, and an agent that was given none.
    assert_eq!(scene.agent(&scene.client, true).verify_self(&[]).unwrap_err().code(), "AGT-031");
}

/// p1 is the host's: its collateral counts where the measured p4 names its collector, and stops
/// nothing.
#[test]
fn what_p1_brings_counts_where_p4_names_its_collector() {
    let (federation, world) = (Federation::hold(), Arc::new(World::new()));
    let server = federation.site("server1", Role::Server);
    let client = federation.tpm_site("site-1", Role::Client, Some(GpuMechanism::NvidiaCc));
    let cache = golden(&world, &federation.folder.path().join("collateral")).pack();
    let agent = |site: &Site| {
        let mut own = site.own_image();
        let vendors = own.trust.vendors().unwrap().clone().with_gpus(world.roots());
        own.trust = own.trust.with_vendors(vendors);
        let unused = own.collateral_unused.clone();
        let tpm = cvm_agent::attester::TpmAttester::new(&site.tcti(), &site.log);
        (site.agent_with(own, Box::new(tpm)), unused)
    };
    let gpus = Gpus { world: world.clone(), devices: vec![Device::blackwell()], replayed: false };
    let client = agent(&client).0.with_gpus(attester(gpus));
    client.verify_self(&[]).unwrap();
    let judged = || {
        let (server, unused) = agent(&server);
        server.verify_self(&[]).unwrap();
        let asked = challenge(&server, "site-1");
        let answer =
            verify(&server, &token(&client, Some(&asked)), &peer("site-1", "client"), Some(&asked));
        (answer, unused)
    };
    let refused = |word: &str| {
        let (answer, unused) = judged();
        assert_eq!(code(&answer), "AGT-033", "{answer}");
        assert!(unused.unwrap_or_default().contains(word), "{word}");
    };
    refused("");
    server.write("image/collateral.json", &cache);
    refused("names no collector");
    let names = |collector: &SigningKey| {
        let key = hex::encode(collector.verifying_key().as_bytes());
        server.write("config/collateral.pub", format!("{key}\n").as_bytes());
    };
    names(&SigningKey::from_bytes(&[1; 32]));
    refused("not among those trusted to collect");
    names(&collector());
    let (answer, unused) = judged();
    assert_eq!((&answer["verified"], unused), (&json!(true), None), "{answer}");
    server.write("image/collateral.json", b"{}");
    refused("index cannot be read");
}
