//! A key holder that is asked without a network: what it decides is the subject.

use std::sync::Mutex;

use cvm_layout::manifest::{Manifest, Stage};
use cvm_release::{
    client::{Method, Outgoing, Reply},
    server::{Fault, Halves, Outcome, Request, Server},
};
use serde_json::Value;
use zeroize::Zeroizing;

/// A party's halves, out of its folder.
pub struct PartyHalves(pub Mutex<cvm_custody::Party>);

impl Halves for PartyHalves {
    fn half(&self, m: &Manifest, stage: Stage) -> Result<Zeroizing<[u8; 32]>, Fault> {
        let half = self.0.lock().unwrap().half(&m.split_key, m.role, &m.image_id, stage);
        Ok(Zeroizing::new(*half.map_err(|e| Fault::new("a half", e))?.as_bytes()))
    }

    fn certify(&self, _: &Manifest, _: &Value, _: u64) -> Result<Option<Value>, Fault> {
        Ok(None)
    }
}

/// The server's answer to a client's request.
pub fn send(server: &Server, outgoing: &Outgoing, now: u64) -> Outcome {
    let request = Request {
        method: if outgoing.method == Method::Get { "GET" } else { "POST" },
        path: &outgoing.path,
        cookie: outgoing.cookie.as_deref(),
        authorization: None,
        peer: "192.0.2.1",
        body: &outgoing.body,
    };
    server.handle(&request, now)
}

/// As the client reads it.
pub fn reply(outcome: &Outcome) -> Reply {
    let Outcome { reply, .. } = outcome;
    Reply {
        status: reply.status,
        set_cookie: reply.set_cookie.iter().cloned().collect(),
        body: reply.body.clone(),
    }
}
