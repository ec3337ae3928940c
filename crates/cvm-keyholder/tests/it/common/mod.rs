//! Two parties after their ceremony, a key holder that serves, a TPM.

#![allow(dead_code)] // Each test file uses its part.

pub mod asked;
pub mod swtpm;
pub mod trusting;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use cvm_base::{Bytes, Bytes32, sha256, time};
use cvm_ceremony::{
    Agreement, Date, Draft, PartyRole, Site, Terms, Transcript, build_split_key, fresh_nonce,
    split_key::Half,
};
use cvm_custody::{BuilderSecrets, Lock, NewParty, Party, Unlock, open_contribution};
use cvm_evidence::{
    Reference,
    eventlog::{EventLog, PredictedEvent},
    reference::{Platforms, TpmReference},
};
use cvm_keyholder::{
    documents::{Documents, Identity},
    policy,
    service::{Config, Limits, Service},
    store::SqliteStore,
};
use cvm_layout::{
    manifest::{GpuMechanism, ImageId, Manifest, Stage},
    names::{Name, Role},
    signed::{self, Kind},
};
use cvm_release_https::{Endpoint, Holder, SystemResolver};
use cvm_release_server::{Decision, Reason, Verdict};
use serde_json::json;
use tokio::sync::oneshot;

/// The boot that the reference describes.
pub const LOG: &str = "boot-debian12/eventlog.bin";
/// The same machine with a CD-ROM drive: other measurements in PCR 4.
pub const OTHER_LOG: &str = "boot-debian12/eventlog-with-cdrom.bin";
const TODAY: u64 = 1_780_000_000;

pub fn log(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(name)).unwrap()
}

/// What `reference.json` says for a boot that measured `log`.
pub fn reference(
    image_id: ImageId,
    manifest: &[u8],
    log: &[u8],
    platforms: Platforms,
) -> Reference {
    let log = EventLog::parse(log).unwrap();
    let events = log.events().iter().filter(|event| [4, 7, 9, 11, 12].contains(&event.pcr));
    let explain = events
        .map(|e| PredictedEvent { pcr: e.pcr, event: e.describe(), digest: e.digest })
        .collect();
    let tpm = TpmReference::from_events(explain, &[13]);
    Reference::new(image_id, sha256(manifest), tpm, platforms)
}

/// The policy of these tests: the reference's registers, and a named root. `sample` passes too, but
/// only where the folder's marker lets it come this far.
pub fn rego(root: Option<Bytes32>) -> String {
    let root = root.map_or("none".into(), |root| root.to_string());
    format!(
        r#"package policy
default allow := false
evidence := input.submods.cpu0["ear.veraison.annotated-evidence"]
accepted_not_checked := {{"acpi"}}
allow if {{
    evidence.tpm.ek_root_sha256 == "{root}"
    evidence.tpm.handed_off == false
    every pcr, value in data.reference.tpm.pcrs {{ evidence.tpm.pcrs[pcr] == value }}
}}
allow if evidence.sample.svn == "1"
"#
    )
}

/// Model owner `alice`, data owner `bob`, and their builder; others where a test has more.
pub struct Ceremony {
    pub folder: tempfile::TempDir,
    pub agreement: Agreement,
    builder: BuilderSecrets,
    parties: Vec<&'static str>,
    /// Until when the parties permit what is built.
    pub last_day: Date,
}

/// A site whose image these parties open; nobody named: all.
pub fn site(name: &str, role: Role, parties: &[&str]) -> Site {
    let parties = parties.iter().map(|party| party.parse().unwrap()).collect();
    Site { name: name.parse().unwrap(), role, parties }
}

impl Ceremony {
    pub fn hold(policy: &str) -> Self {
        let parties = [("alice", PartyRole::ModelOwner), ("bob", PartyRole::DataOwner)];
        Self::hold_with(policy, &parties, vec![site("server1", Role::Server, &[])])
    }

    pub fn hold_with(
        policy: &str,
        parties: &[(&'static str, PartyRole)],
        sites: Vec<Site>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, role) in parties {
            NewParty {
                name: name.parse().unwrap(),
                role: *role,
                keyholder: "https://127.0.0.1:8443".parse().unwrap(),
                policy: Some(policy.into()),
                today: Date::from_unix(TODAY),
            }
            .create(&at(name), &Lock::KeyFile)
            .unwrap();
        }
        BuilderSecrets::create(&at("builder"), "builder".parse().unwrap(), &Lock::KeyFile).unwrap();
        let builder =
            BuilderSecrets::load(&at("builder"), &Unlock::beside(&at("builder"))).unwrap();
        let parties: Vec<_> = parties.iter().map(|(name, _)| *name).collect();
        let agreement = agree(folder.path(), &parties, &builder, sites);
        let last_day = Date::from_unix(time::now() + 7 * 86_400);
        Self { agreement, folder, builder, parties, last_day }
    }

    /// The same parties and builder agree once more.
    pub fn again(&self) -> Agreement {
        agree(
            self.folder.path(),
            &self.parties,
            &self.builder,
            self.agreement.transcript().terms.sites.clone(),
        )
    }

    pub fn party_folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn party(&self, name: &str) -> Party {
        Party::load(&self.party_folder(name), &Unlock::beside(&self.party_folder(name))).unwrap()
    }

    /// Builds an image for server1: its documents, and its manifest.
    pub fn build(&self, image: u8, measured: &[u8]) -> (Documents, Manifest) {
        self.build_for("server1", Role::Server, image, measured)
    }

    /// Builds an image for a site.
    pub fn build_for(
        &self,
        name: &str,
        role: Role,
        image: u8,
        measured: &[u8],
    ) -> (Documents, Manifest) {
        let (documents, manifest, _) = self.build_with_marks(name, role, image, measured);
        (documents, manifest)
    }

    /// The same, and what lets it enrol itself: `enrolment.txt`.
    pub fn build_with_marks(
        &self,
        name: &str,
        role: Role,
        image: u8,
        measured: &[u8],
    ) -> (Documents, Manifest, Vec<u8>) {
        self.build_as(name, role, image, measured, Platforms::default(), None)
    }

    /// What whoever stole the builder's key can sign: other reference values for an image that
    /// exists.
    pub fn sign_other_reference(
        &self,
        documents: &Documents,
        manifest: &Manifest,
        measured: &[u8],
    ) -> Documents {
        let other =
            reference(manifest.image_id, &documents.manifest, measured, Platforms::default())
                .to_bytes();
        let reference_signature =
            signed::sign(self.builder.signing_key(), Kind::Reference, &other).to_vec();
        Documents { reference: other, reference_signature, ..documents.clone() }
    }

    /// Builds an image for server1 that may require GPUs, with what TEEs measure of it.
    pub fn build_requiring(
        &self,
        gpu: Option<GpuMechanism>,
        measured: &[u8],
        platforms: Platforms,
    ) -> (Documents, Manifest) {
        let (documents, manifest, _) =
            self.build_as("server1", Role::Server, 1, measured, platforms, gpu);
        (documents, manifest)
    }

    fn build_as(
        &self,
        name: &str,
        role: Role,
        image: u8,
        measured: &[u8],
        platforms: Platforms,
        gpu: Option<GpuMechanism>,
    ) -> (Documents, Manifest, Vec<u8>) {
        let image_id: ImageId = Bytes([image; 16]);
        let build: Name = "build-1".parse().unwrap();
        let site = self.agreement.site(&name.parse().unwrap(), role).unwrap();
        let opened: Vec<_> = self
            .parties
            .iter()
            .filter(|party| site.names(&party.parse().unwrap()))
            .map(|party| {
                let last_day = self.last_day.clone();
                let sealed =
                    self.party(party).contribute(&self.agreement, role, build.clone(), last_day);
                let text = sealed.unwrap();
                open_contribution(
                    text.text().as_bytes(),
                    &self.agreement,
                    role,
                    &build,
                    &self.builder,
                )
                .unwrap()
            })
            .collect();
        let (split_key, _, marks) =
            build_split_key(&self.agreement, &opened, site, &image_id).unwrap();
        let zeros = "00".repeat(32);
        let verity =
            json!({"data_bytes": 4096, "total_bytes": 12288, "salt": zeros, "root_hash": zeros});
        let volume = json!({"offset": 0, "verity": verity});
        let mut manifest: Manifest = serde_json::from_value(json!({
            "version": cvm_layout::manifest::VERSION,
            "image_id": image_id, "project": "p", "site": name, "role": role, "partitions": [],
            "config": verity,
            "root": {"sealed_bytes": 0, "system": volume, "site": volume, "state_offset": 0},
            "split_key": split_key,
            "init_code_sha256": zeros,
            "build": build,
        }))
        .unwrap();
        manifest.gpu = gpu;
        let text = serde_json::to_vec(&manifest).unwrap();
        let reference = reference(image_id, &text, measured, platforms).to_bytes();
        let sign =
            |kind, bytes: &[u8]| signed::sign(self.builder.signing_key(), kind, bytes).to_vec();
        let documents = Documents {
            agreement: self.agreement.text().into_bytes(),
            manifest_signature: sign(Kind::Manifest, &text),
            reference_signature: sign(Kind::Reference, &reference),
            manifest: text,
            reference,
        };
        let enrolment = marks.enrolment(&documents.reference).into_bytes();
        (documents, manifest, enrolment)
    }

    /// The store of a party, for writing.
    pub fn store(&self, name: &str) -> SqliteStore {
        let party = self.party(name);
        let identity = Identity::from(party.card());
        SqliteStore::open(&self.party_folder(name), identity, Some(party.identity().clone()))
            .unwrap()
    }

    /// What the party's half of the image's key must be.
    pub fn half(&self, name: &str, manifest: &Manifest) -> Half {
        self.half_for(name, manifest, Stage::Boot)
    }

    /// As above, of either stage.
    pub fn half_for(&self, name: &str, manifest: &Manifest, stage: Stage) -> Half {
        self.party(name)
            .half(&manifest.split_key, manifest.role, &manifest.image_id, stage)
            .unwrap()
    }

    /// A policy folder for a party: its own policy, these PEM roots, sample evidence or not.
    pub fn policy_folder(&self, name: &str, roots: &[u8], allow_sample: bool) -> PathBuf {
        let folder = self.party_folder(name);
        fs::create_dir_all(folder.join(policy::EK_ROOTS)).unwrap();
        fs::write(folder.join(policy::EK_ROOTS).join("root.pem"), roots).unwrap();
        if allow_sample {
            fs::write(folder.join(policy::ALLOW_SAMPLE), "").unwrap();
        }
        folder
    }
}

/// invite → joins → all sign.
fn agree(folder: &Path, parties: &[&str], builder: &BuilderSecrets, sites: Vec<Site>) -> Agreement {
    let load =
        |name: &&str| Party::load(&folder.join(name), &Unlock::beside(&folder.join(name))).unwrap();
    let parties: Vec<_> = parties.iter().map(load).collect();
    let terms = Terms {
        project: "p".parse().unwrap(),
        date: Date::from_unix(TODAY),
        epoch: 0,
        previous: None,
        nonce: fresh_nonce().unwrap(),
        legal: None,
        system: vec![PartyRole::ModelOwner],
        builder: builder.statement().statement().clone(),
        sites,
    };
    let invite = parties[0].invite(terms).unwrap();
    let joins: Vec<_> = parties[1..].iter().map(|party| party.join(&invite).unwrap()).collect();
    let mut draft = Draft::new(Transcript::from_statements(&invite, &joins).unwrap()).unwrap();
    parties.iter().for_each(|party| party.sign(&mut draft).unwrap());
    draft.complete().unwrap()
}

/// `alice`'s key holder, in a thread.
pub struct Serving {
    pub url: String,
    pub certificate_sha256: Bytes32,
    pub decisions: Arc<Mutex<Vec<Decision>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    pub fn start(ceremony: &Ceremony, policy: &Path, limits: Limits) -> Self {
        let folder = ceremony.party_folder("alice");
        Self::start_with(Config {
            folder: folder.clone(),
            state: folder,
            listen: "127.0.0.1:0".into(),
            policy: policy.to_owned(),
            enrol_presented: None,
            limits,
        })
    }

    pub fn start_with(config: Config) -> Self {
        let decisions = Arc::new(Mutex::new(Vec::new()));
        let seen = decisions.clone();
        let service = Service::open(&config, &Unlock::beside(&config.folder), move |d| {
            seen.lock().unwrap().push(d.clone())
        })
        .unwrap();
        let (url, certificate_sha256) =
            (format!("https://{}", service.address()), service.certificate_sha256());
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            service
                .run(async {
                    let _ = stopped.await;
                })
                .unwrap();
        });
        Self { url, certificate_sha256, decisions, stop: Some(stop), thread: Some(thread) }
    }

    pub fn holder(&self) -> Holder {
        self.holder_with(self.certificate_sha256)
    }

    pub fn holder_with(&self, certificate_sha256: Bytes32) -> Holder {
        let endpoint = Endpoint {
            party: "alice".into(),
            url: self.url.clone(),
            certificate_sha256,
            proxy: None,
        };
        Holder::new(&endpoint, client_limits(), SystemResolver).unwrap()
    }

    /// The reason of the last decision, which must be a refusal.
    pub fn last_refusal(&self) -> (Reason, String) {
        let decisions = self.decisions.lock().unwrap();
        let last = decisions.last().expect("something was decided");
        assert_eq!(last.verdict, Verdict::Refused, "{last:?}");
        (last.reason.unwrap(), last.detail.clone())
    }
}

pub fn client_limits() -> cvm_release_https::Limits {
    let seconds = Duration::from_secs;
    cvm_release_https::Limits {
        resolve: seconds(20),
        connect: seconds(50),
        request: seconds(200),
        total: seconds(3),
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
