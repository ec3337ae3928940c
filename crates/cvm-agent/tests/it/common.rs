//! A federation: its ceremony, its builder, and sites whose software TPMs have booted and handed
//! off.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use cvm_agent::{
    agent::Agent,
    attester::{Attester, TpmAttester},
    image::{Folders, OwnImage},
    journal::Journal,
    request,
};
use cvm_base::{Bytes, sha256};
use cvm_ceremony::{
    Agreement, Date, Draft, PartyRole, Site as AgreedSite, Terms, Transcript, fresh_nonce,
};
use cvm_collect::tpm::Tpm;
use cvm_custody::{BuilderSecrets, Lock, NewParty, Party, Unlock};
use cvm_evidence::{
    Reference,
    eventlog::{EventLog, PredictedEvent},
    handoff_digest,
    reference::{Platforms, TpmReference},
    tpm::Public,
};
use cvm_layout::{
    manifest::GpuMechanism,
    names::Role,
    signed::{self, Kind},
};
use cvm_peer::{
    clock,
    token::{Statement, Use},
};
use cvm_testkit::swtpm::{Swtpm, roots};
use cvm_verify::ak_certificate::{AkCertificate, AkStatement, VERSION};
use serde_json::{Value, json};

const TODAY: u64 = 1_780_000_000;
pub const TLS: &str = "abababababababababababababababababababababababababababababababab";

/// What Python scripts begin with: the package without its `__init__`, which needs NVFLARE.
const PYTHON: &str = r#"
import sys, types
package = types.ModuleType("flare_cvm")
package.__path__ = [sys.argv[1]]
sys.modules["flare_cvm"] = package
"#;

/// A Python script with the package at hand; its own arguments begin at `sys.argv[2]`.
pub fn python(script: &str) -> Command {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/flare_cvm");
    let mut python = Command::new("timeout");
    python.args(["900", "python3", "-c", &format!("{PYTHON}{script}")]).arg(package);
    python
}

/// What the machines' firmware and loader measure.
pub fn log() -> Vec<u8> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors");
    fs::read(vectors.join("boot-debian12/eventlog.bin")).unwrap()
}

/// Model owner `alice`, data owner `bob`, sites `server1` and `site-1`.
pub struct Federation {
    pub folder: tempfile::TempDir,
    pub agreement: Agreement,
    builder: BuilderSecrets,
}

impl Federation {
    pub fn hold() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, role) in [("alice", PartyRole::ModelOwner), ("bob", PartyRole::DataOwner)] {
            NewParty {
                name: name.parse().unwrap(),
                role,
                keyholder: "https://127.0.0.1:8443".parse().unwrap(),
                policy: Some("package policy\ndefault allow := false".into()),
                today: Date::from_unix(TODAY),
            }
            .create(&at(name), &Lock::KeyFile)
            .unwrap();
        }
        BuilderSecrets::create(&at("builder"), "builder".parse().unwrap(), &Lock::KeyFile).unwrap();
        let builder =
            BuilderSecrets::load(&at("builder"), &Unlock::beside(&at("builder"))).unwrap();
        let load = |name: &str| Party::load(&at(name), &Unlock::beside(&at(name))).unwrap();
        let (alice, bob) = (load("alice"), load("bob"));
        let terms = Terms {
            project: "p".parse().unwrap(),
            date: Date::from_unix(TODAY),
            epoch: 0,
            previous: None,
            nonce: fresh_nonce().unwrap(),
            legal: None,
            system: vec![PartyRole::ModelOwner],
            builder: builder.statement().statement().clone(),
            sites: vec![
                AgreedSite {
                    name: "server1".parse().unwrap(),
                    role: Role::Server,
                    parties: vec![],
                },
                AgreedSite { name: "site-1".parse().unwrap(), role: Role::Client, parties: vec![] },
                AgreedSite { name: "site-2".parse().unwrap(), role: Role::Client, parties: vec![] },
            ],
        };
        let invite = alice.invite(terms).unwrap();
        let join = bob.join(&invite).unwrap();
        let mut draft = Draft::new(Transcript::from_statements(&invite, &[join]).unwrap()).unwrap();
        alice.sign(&mut draft).unwrap();
        bob.sign(&mut draft).unwrap();
        Self { agreement: draft.complete().unwrap(), folder, builder }
    }

    pub fn party(&self, name: &str) -> Party {
        let folder = self.folder.path().join(name);
        Party::load(&folder, &Unlock::beside(&folder)).unwrap()
    }

    /// A machine that has booted the site's image and handed off, with its agent's files.
    pub fn site(&self, name: &str, role: Role) -> Site {
        self.tpm_site(name, role, None)
    }

    /// The same, of an image that may require GPUs.
    pub fn tpm_site(&self, name: &str, role: Role, gpu: Option<GpuMechanism>) -> Site {
        let swtpm = Swtpm::of(&self.folder.path().join("ca"), true);
        let log = log();
        let ak_name = boot(&swtpm, &log);
        let site = self.machine(name, role, gpu, Some(swtpm), ak_name, Platforms::default());
        site.write("image/event_log", &site.log);
        site.certify(&[self.certificate("alice", image_id(name), site.ak_name)]);
        site
    }

    /// A machine without a TPM, whose image was made for these TEEs.
    pub fn tee_site(&self, name: &str, role: Role, platforms: Platforms) -> Site {
        self.machine(name, role, None, None, Bytes([0; 34]), platforms)
    }

    /// The same, of an image that requires GPUs.
    pub fn gpu_site(&self, name: &str, role: Role, platforms: Platforms) -> Site {
        self.machine(name, role, Some(GpuMechanism::NvidiaCc), None, Bytes([0; 34]), platforms)
    }

    fn machine(
        &self,
        name: &str,
        role: Role,
        gpu: Option<GpuMechanism>,
        swtpm: Option<Swtpm>,
        ak_name: Bytes<34>,
        platforms: Platforms,
    ) -> Site {
        let site = Site {
            swtpm,
            folder: tempfile::tempdir().unwrap(),
            log: log(),
            ak_name,
            offset: Arc::default(),
        };
        for name in ["image", "config"] {
            fs::create_dir(site.folder.path().join(name)).unwrap();
        }
        let image_id = image_id(name);
        let zeros = "00".repeat(32);
        let verity =
            json!({"data_bytes": 4096, "total_bytes": 12288, "salt": zeros, "root_hash": zeros});
        let volume = json!({"offset": 0, "verity": verity});
        let mut manifest = json!({
            "version": cvm_layout::manifest::VERSION,
            "image_id": image_id, "project": "p", "site": name, "role": role, "partitions": [],
            "config": verity,
            "root": {"sealed_bytes": 0, "system": volume, "site": volume, "state_offset": 0},
            "split_key": {
                "ephemeral": "09".repeat(32), "transcript": self.agreement.digest(), "parties": [],
            },
            "init_code_sha256": zeros,
        });
        if let Some(gpu) = gpu {
            manifest["gpu"] = json!(gpu);
        }
        let manifest = manifest.to_string();
        let parsed = EventLog::parse(&site.log).unwrap();
        let events = parsed.events().iter().filter(|event| [4, 7, 9, 11, 12].contains(&event.pcr));
        let explain = events
            .map(|e| PredictedEvent { pcr: e.pcr, event: e.describe(), digest: e.digest })
            .collect();
        let tpm = TpmReference::from_events(explain, &[13]);
        let manifest_sha256 = sha256(manifest.as_bytes());
        let reference = Reference::new(image_id, manifest_sha256, tpm, platforms).to_bytes();
        let sign = |kind, bytes: &[u8]| signed::sign(self.builder.signing_key(), kind, bytes);
        site.write("image/manifest.sig", &sign(Kind::Manifest, manifest.as_bytes()));
        site.write("image/reference.sig", &sign(Kind::Reference, &reference));
        site.write("image/manifest.json", manifest.as_bytes());
        site.write("image/reference.json", &reference);
        site.write("image/builder.pub", self.builder.signing_key().verifying_key().as_bytes());
        site.write("config/agreement.txt", self.agreement.text().as_bytes());
        site
    }

    /// What the party's key holder states of a key.
    pub fn certificate(
        &self,
        party: &str,
        image_id: Bytes<16>,
        ak_name: Bytes<34>,
    ) -> AkCertificate {
        let ca = self.folder.path().join("ca");
        // A federation without machines yet has no TPM maker.
        let root = ca
            .exists()
            .then(|| cvm_verify::Roots::from_pem(&roots(&ca)).unwrap().ek_roots().next().unwrap());
        let statement = AkStatement {
            version: VERSION,
            party: party.parse().unwrap(),
            transcript: self.agreement.digest(),
            image_id,
            ak_name,
            ek_root_sha256: root,
            trust: "untrusted-host".into(),
            issued_at: TODAY,
        };
        AkCertificate::sign(&statement, self.party(party).identity())
    }
}

fn image_id(site: &str) -> Bytes<16> {
    sha256(site.as_bytes()).0[..16].try_into().map(Bytes).unwrap()
}

/// Measures the boot and the handoff; the attestation key's Name.
fn boot(swtpm: &Swtpm, log: &[u8]) -> Bytes<34> {
    let mut tpm = Tpm::open(&swtpm.tcti()).unwrap();
    for event in EventLog::parse(log).unwrap().events() {
        tpm.extend_pcr(event.pcr, &event.digest).unwrap();
    }
    tpm.extend_pcr(11, &handoff_digest()).unwrap();
    // The key that key holders certify during boot is the one that the agent quotes with.
    let name_at_boot =
        Public::parse(&tpm.create_ak().unwrap().handshake_params().ak_public.0).unwrap().name();
    let name = Public::parse(&tpm.create_quoting_key().unwrap().public().0).unwrap().name();
    assert_eq!(name, name_at_boot);
    Bytes(name.try_into().unwrap())
}

/// One machine.
pub struct Site {
    /// None where a TEE attests.
    pub swtpm: Option<Swtpm>,
    pub folder: tempfile::TempDir,
    pub log: Vec<u8>,
    pub ak_name: Bytes<34>,
    /// Of this machine's clock.
    pub offset: Arc<AtomicI64>,
}

impl Site {
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), bytes).unwrap();
    }

    pub fn certify(&self, certificates: &[AkCertificate]) {
        self.write("image/ak_certificates.json", &serde_json::to_vec(certificates).unwrap());
    }

    pub fn own_image(&self) -> OwnImage {
        OwnImage::read(&Folders { image: self.at("image"), config: self.at("config") }).unwrap()
    }

    pub fn tcti(&self) -> String {
        self.swtpm.as_ref().expect("this machine has a TPM").tcti()
    }

    /// A token's statement as this machine's root would write it, for whatever evidence.
    pub fn statement(&self, own: &OwnImage) -> Statement {
        let manifest = &own.image.manifest;
        let issued_at = clock::now();
        let mut id = [0; 16];
        getrandom::fill(&mut id).unwrap();
        Statement {
            additional_evidence_sha256: None,
            challenge: None,
            expires_at: issued_at + 60,
            id: Bytes(id),
            image_id: manifest.image_id,
            issued_at,
            report_sha256: None,
            role: manifest.role,
            site: manifest.site.clone(),
            tls_cert_sha256: None,
            transcript: own.trust.transcript(),
            use_: Use::Peer,
        }
    }

    /// An agent, not yet verified.
    pub fn new_agent(&self) -> Agent {
        self.agent_with(self.own_image(), Box::new(TpmAttester::new(&self.tcti(), &self.log)))
    }

    /// An agent of what `own` says, with that evidence; not yet verified.
    pub fn agent_with(&self, own: OwnImage, attester: Box<dyn Attester>) -> Agent {
        let offset = self.offset.clone();
        let clock = move || clock::now().saturating_add_signed(offset.load(Ordering::Relaxed));
        Agent::new(own, attester, Journal::open(&self.at("attestation.jsonl")), Box::new(clock))
    }

    /// An agent that has verified itself.
    pub fn agent(&self) -> Agent {
        let agent = self.new_agent();
        agent.verify_self(&[]).unwrap();
        agent
    }

    pub fn extend(&self, pcr: u8, what: &[u8]) {
        Tpm::open(&self.tcti()).unwrap().extend_pcr(pcr, &sha256(what)).unwrap();
    }
}

/// One request, through the protocol's own bytes.
pub fn ask(agent: &Agent, request: Value) -> Value {
    let mut request = request;
    request["v"] = json!(1);
    let outcome =
        request::parse(request.to_string().as_bytes()).and_then(|request| agent.handle(request));
    serde_json::from_slice(&request::answer(outcome)).unwrap()
}

pub fn token(agent: &Agent, challenge: Option<&str>) -> String {
    let answer =
        ask(agent, json!({"op": "generate", "challenge": challenge, "tls_cert_sha256": TLS}));
    answer["token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

pub fn challenge(agent: &Agent, peer: &str) -> String {
    ask(agent, json!({"op": "challenge", "peer": peer}))["challenge"].as_str().unwrap().to_owned()
}

pub fn peer(name: &str, role: &str) -> Value {
    json!({"name": name, "role": role, "tls_cert_sha256": TLS})
}

pub fn verify(agent: &Agent, token: &str, peer: &Value, challenge: Option<&str>) -> Value {
    ask(agent, json!({"op": "verify", "token": token, "peer": peer, "challenge": challenge}))
}

/// The code of an answer that must be a refusal.
#[track_caller]
pub fn code(answer: &Value) -> &str {
    assert_eq!(answer["ok"], false, "{answer}");
    answer["code"].as_str().unwrap()
}
