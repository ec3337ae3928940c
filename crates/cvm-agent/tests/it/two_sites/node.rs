//! A node's port, asked from outside.

use std::{net::TcpListener, sync::Arc, thread, time::Duration};

use cvm_agent::{agent::Agent, serve};
use cvm_layout::names::Role;
use cvm_peer::{
    audit::{Audit, AuditError, ask_node},
    clock,
    limits::MAX_QUESTION,
    token::Token,
    trust::Trust,
    verify::{Clocks, cross_policy},
};
use serde_json::json;

use crate::common::{Federation, Site, code, peer, verify};

const PATIENCE: Duration = Duration::from_secs(200);
const CLOCKS: Clocks = Clocks { leeway_s: 30, max_wait_s: 0 };

fn serving(site: &Site) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let agent: Arc<Agent> = Arc::new(site.agent());
    thread::spawn(move || serve::audits(&agent, &listener));
    address
}

#[test]
fn an_auditor_challenges_a_node_and_reads_its_report() {
    let federation = Federation::hold();
    let machine = federation.site("site-1", Role::Client);
    let node = serving(&machine);
    let trust = Trust::new(federation.agreement.text().as_bytes()).unwrap();
    let policy = cross_policy(None).unwrap();
    let audit = Audit { trust: &trust, policy: &policy, clocks: CLOCKS, now: clock::now() };
    let (verdict, report) = audit.node(&node, None, PATIENCE).unwrap();
    assert_eq!((verdict.site.as_str(), report), ("site-1", None));
    let period = ("2020-01-01T00:00:00Z", "2120-01-01T00:00:00Z");
    let (_, report) = audit.node(&node, Some(period), PATIENCE).unwrap();
    let entries = report.unwrap()["entries"].clone();
    assert_eq!(
        (&entries[0]["direction"], &entries[1]["direction"]),
        (&json!("self"), &json!("audit"))
    );

    // A question is short: the port reads no more, and keeps nothing of it.
    let long = json!({"v": 1, "op": "evidence", "nonce": "0".repeat(MAX_QUESTION)});
    let refused = ask_node(&node, &long, PATIENCE).unwrap_err();
    assert!(matches!(&refused, AuditError::Refused { code, .. } if code == "AGT-001"), "{refused}");

    // Another federation's auditor does not believe it.
    let other = Trust::new(Federation::hold().agreement.text().as_bytes()).unwrap();
    let audit = Audit { trust: &other, ..audit };
    assert!(matches!(audit.node(&node, None, PATIENCE), Err(AuditError::Verdict(_))));
}

#[test]
fn attack_an_auditors_token_between_sites_and_a_changed_report() {
    let federation = Federation::hold();
    let (server, machine) =
        (federation.site("server1", Role::Server), federation.site("site-1", Role::Client));
    let (server, node) = (server.agent(), serving(&machine));
    let asked = crate::common::challenge(&server, "site-1");
    // Anybody may have the node answer the server's challenge; for the server it is not an answer.
    let answer =
        ask_node(&node, &json!({"v": 1, "op": "evidence", "nonce": asked}), PATIENCE).unwrap();
    let token = answer["token"].as_str().unwrap();
    let mut site_1 = peer("site-1", "client");
    site_1["tls_cert_sha256"] = json!(null);
    assert_eq!(code(&verify(&server, token, &site_1, Some(&asked))), "AGT-022");

    let period = json!({
        "v": 1, "op": "report", "nonce": asked,
        "since": "2020-01-01T00:00:00Z", "until": "2120-01-01T00:00:00Z",
    });
    let answer = ask_node(&node, &period, PATIENCE).unwrap();
    let bound = Token::parse(answer["token"].as_str().unwrap()).unwrap().statement.report_sha256;
    assert_eq!(bound, Some(cvm_base::sha256(answer["report"].as_str().unwrap().as_bytes())));

    // The port answers nothing of the socket.
    for op in ["status", "generate", "verify"] {
        let refused = ask_node(&node, &json!({"v": 1, "op": op}), PATIENCE).unwrap_err();
        assert!(
            matches!(&refused, AuditError::Refused { code, .. } if code == "AGT-001"),
            "{refused}"
        );
    }
}
