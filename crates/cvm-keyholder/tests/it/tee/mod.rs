//! Releases to SEV-SNP guests, whose reports are minted under an authority of the test's own, and
//! what the genuine vendors' recorded evidence is refused for. The server is asked without a
//! network: what it decides is the subject.

mod attacks;
mod genuine;
mod tcb;

use std::sync::Mutex;

use aws_lc_rs::signature::EcdsaKeyPair;
use cvm_base::Bytes;
use cvm_collateral::{Cache, Item, Writer, content, tee::Vendors};
use cvm_evidence::{
    platform::SnpReference,
    reference::Platforms,
    tcb::TcbFloor,
    trustee::{CertificateEntry, SnpBody, report_data},
};
use cvm_keyholder::{evidence::Verifier, policy::RegoPolicy};
use cvm_layout::manifest::{GpuMechanism, Manifest, Stage};
use cvm_release::{
    client::{Attested, Challenged, Client, Failure, Outgoing},
    messages::Tee,
};
use cvm_release_server::{Fault, Outcome, Reason, ReleaseServer, SessionKeys, Verdict};
use cvm_verify::{Roots, tdx::intel_roots};
use ed25519_dalek::SigningKey;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{
    common::asked::{PartyHalves, reply, send},
    common::{Ceremony, LOG, log},
    gpus::Gpus,
};

/// 2025-10-09.
const NOW: u64 = 1_760_000_000;

const MILAN: [u8; 3] = [0x19, 0x01, 0x01];

const MEASUREMENT: [u8; 48] = [0x3e; 48];

const POLICY: &str = include_str!("../../../../../keys/policies/tee.rego");

/// Alice's key holder, and a machine's chip.
struct Scene {
    ceremony: Ceremony,
    manifest: Manifest,
    server: ReleaseServer,
    vcek: (Vec<u8>, EcdsaKeyPair),
}

fn scene() -> Scene {
    let line = crate::mint::line("Milan");
    let vendors = Vendors::new(line.roots(), intel_roots().unwrap());
    let vcek = crate::mint::endorse(&line.ask.1, &crate::mint::vcek("Milan-B0"));
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
        let mut report = crate::mint::report(3, MILAN, &crate::mint::vcek("Milan-B0"));
        report[0x50..0x90].copy_from_slice(&report_data(binding));
        report[0x140..0x160].fill(0x1d);
        change(&mut report);
        let chain = vec![CertificateEntry::new("VCEK", self.vcek.0.clone())];
        serde_json::to_value(SnpBody::new(&crate::mint::sign(report, &self.vcek.1), chain).unwrap())
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
        let answer = cvm_collect::gpus::attest(&mut gpus, &challenged.device_binding().0)
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
