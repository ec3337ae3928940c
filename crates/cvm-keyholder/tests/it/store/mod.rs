//! A hand on the store's file: no row of it opens anything, and none that is missing opens anything
//! again.

mod log;
mod rows;
mod withdrawals;

use std::sync::Mutex;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cvm_base::time;
use cvm_collateral::tee::Vendors;
use cvm_custody::Unlock;
use cvm_keyholder::{
    KeyHolderError,
    documents::{Documents, Identity},
    evidence::Verifier,
    policy::RegoPolicy,
    service::{Config, Limits, Service},
    store::{FILE, SqliteStore},
};
use cvm_layout::manifest::{ImageId, Manifest, Stage};
use cvm_release::{
    client::{Attested, Challenged, Client, Outgoing},
    messages::Tee,
};
use cvm_release_server::{
    Decision, Fault, Outcome, Reason, ReleaseServer, SessionKeys, Step, Verdict,
};
use cvm_verify::Roots;
use rusqlite::Connection;
use serde_json::json;

use crate::{
    common::asked::{PartyHalves, reply, send},
    common::{Ceremony, LOG, log, rego},
};

/// Alice's key holder, which takes sample evidence, two enrolled images, and a hand on its file.
struct Scene {
    ceremony: Ceremony,
    server: ReleaseServer,
    hand: Connection,
    images: Vec<(Documents, Manifest)>,
}

fn scene() -> Scene {
    let ceremony = Ceremony::hold(&rego(None));
    let images: Vec<_> = (1..=2).map(|image| ceremony.build(image, &log(LOG))).collect();
    let store = ceremony.store("alice");
    images.iter().for_each(|(documents, _)| drop(store.enrol(documents).unwrap()));
    let server = ReleaseServer {
        party: "alice".parse().unwrap(),
        keys: SessionKeys::derive(&[7; 32]).unwrap(),
        evidence: Box::new(Verifier {
            roots: Roots::default(),
            vendors: Vendors::genuine().unwrap(),
            allow_sample: true,
        }),
        store: Box::new(store),
        policy: Box::new(RegoPolicy::new(rego(None).into()).unwrap()),
        halves: Box::new(PartyHalves(Mutex::new(ceremony.party("alice")))),
        random: Box::new(|bytes| getrandom::fill(bytes).map_err(|e| Fault::new("randomness", e))),
    };
    let hand = Connection::open(ceremony.party_folder("alice").join(FILE)).unwrap();
    Scene { ceremony, server, hand, images }
}

impl Scene {
    fn image(&self) -> ImageId {
        self.images[0].1.image_id
    }

    fn send(&self, outgoing: &Outgoing) -> Outcome {
        send(&self.server, outgoing, time::now())
    }

    fn answer(&self, svn: &str) -> (Client<Challenged>, Outgoing) {
        let start = Client::new(Tee::Sample).unwrap();
        let outcome = self.send(&start.auth_request("").unwrap());
        let challenged = start.challenged(&reply(&outcome)).unwrap();
        let report_data = STANDARD.encode(challenged.binding("").0);
        let answer = challenged
            .attest_request(json!({ "svn": svn, "report_data": report_data }), "")
            .unwrap();
        (challenged, answer)
    }

    /// The policy accepts svn 1.
    fn attested(&self, svn: &str) -> Client<Attested> {
        let (challenged, answer) = self.answer(svn);
        challenged.attested(&reply(&self.send(&answer))).unwrap()
    }

    fn release(&self, client: &Client<Attested>) -> (Option<Reason>, String) {
        let decision = self.send(&client.half_request(&self.image(), Stage::Boot)).decision;
        (decision.reason, decision.detail)
    }

    /// A session that was given the first image's half.
    fn given(&self) -> Client<Attested> {
        let client = self.attested("1");
        assert_eq!(self.release(&client), (None, String::new()));
        client
    }

    fn sql(&self, text: &str) {
        self.hand.execute_batch(text).unwrap();
    }

    fn open(&self) -> Result<SqliteStore, KeyHolderError> {
        let party = self.ceremony.party("alice");
        let folder = self.ceremony.party_folder("alice");
        SqliteStore::open(&folder, Identity::from(party.card()), Some(party.identity().clone()))
    }

    fn serve(&self) -> Result<Service, KeyHolderError> {
        let folder = self.ceremony.party_folder("alice");
        let config = Config {
            folder: folder.clone(),
            state: folder.clone(),
            listen: "127.0.0.1:0".into(),
            policy: folder.clone(),
            enrol_presented: None,
            limits: Limits::default(),
        };
        Service::open(&config, &Unlock::beside(&folder), |_| {})
    }
}

fn done(step: Step, image: ImageId) -> Decision {
    let (time, peer, site) = (time::now(), "192.0.2.1".into(), Some("server1".into()));
    let (verdict, image) = (Verdict::Done, Some(image));
    Decision {
        time,
        peer,
        step,
        verdict,
        reason: None,
        detail: String::new(),
        image,
        site,
        session: None,
        effect: None,
    }
}
