//! A server and a client, each with a software TPM, and what strangers and broken clocks can do
//! between them.

mod attacks;
mod bench;
mod node;

use std::sync::atomic::Ordering;

use crate::common::{Federation, ask, challenge, code, peer, token, verify};
use cvm_layout::names::Role;
use serde_json::json;

#[test]
fn two_sites_verify_each_other() {
    let federation = Federation::hold();
    let (server, client) =
        (federation.site("server1", Role::Server), federation.site("site-1", Role::Client));
    let (at_server, at_client) = (server.agent(), client.agent());
    let status = ask(&at_client, json!({"op": "status"}));
    assert_eq!(
        (&status["site"], &status["role"], &status["state"]),
        (&json!("site-1"), &json!("client"), &json!("healthy"))
    );
    assert_eq!(status["kinds"], json!(["tpm"]));

    // The client's first token answers no challenge; later ones do.
    let first = token(&at_client, None);
    let accepted = verify(&at_server, &first, &peer("site-1", "client"), None);
    assert_eq!(accepted["verified"], true, "{accepted}");
    let asked = challenge(&at_server, "site-1");
    let accepted = verify(
        &at_server,
        &token(&at_client, Some(&asked)),
        &peer("site-1", "client"),
        Some(&asked),
    );
    assert_eq!(accepted["verified"], true, "{accepted}");
    let tpm = &accepted["claims"]["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["tpm"];
    assert_eq!((&tpm["phase"], &tpm["trust"]), (&json!("after-handoff"), &json!("untrusted-host")));
    assert_eq!(tpm["endorsements"][0]["party"], "alice");
    // Said, and accepted by name: nothing covers the ACPI tables of the peer's host.
    assert_eq!(accepted["not_checked"], json!(["acpi"]));

    let asked = challenge(&at_client, "server1");
    let accepted = verify(
        &at_client,
        &token(&at_server, Some(&asked)),
        &peer("server1", "server"),
        Some(&asked),
    );
    assert_eq!(accepted["verified"], true, "{accepted}");

    // NVFLARE's own manager names nobody: said so.
    let accepted = verify(&at_server, &token(&at_client, None), &json!(null), None);
    assert_eq!(
        (&accepted["verified"], &accepted["not_checked"]),
        (&json!(true), &json!(["acpi", "peer", "tls-certificate"]))
    );

    let period =
        json!({"op": "report", "since": "2000-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"});
    let entries = ask(&at_server, period)["entries"].clone();
    let of = |direction: &str| {
        entries.as_array().unwrap().iter().filter(|e| e["direction"] == direction).count()
    };
    assert_eq!((of("self"), of("verified"), of("generated")), (1, 3, 1), "{entries}");
    assert_eq!(entries[1]["peer"], "site-1");
    assert_eq!(entries[1]["result"], "accepted");
}

#[test]
fn a_clock_behind_waits_and_one_far_off_refuses() {
    let federation = Federation::hold();
    let (server, client) =
        (federation.site("server1", Role::Server), federation.site("site-1", Role::Client));
    let (at_server, at_client) = (server.agent(), client.agent());
    let asked = challenge(&at_server, "site-1");
    let answer = token(&at_client, Some(&asked));
    let at = |offset: i64| {
        server.offset.store(offset, Ordering::Relaxed);
        verify(&at_server, &answer, &peer("site-1", "client"), Some(&asked))
    };
    // Behind by more than the leeway (30 s) and less than 120 s beyond it: asked to wait, and the
    // challenge stays open.
    let refused = at(-100);
    assert_eq!((code(&refused), &refused["retry"]), ("AGT-010", &json!(true)));
    assert!((65..=70).contains(&refused["wait_s"].as_u64().unwrap()), "{refused}");
    assert_eq!(at(-20)["verified"], true, "within the leeway, with the same challenge");
    let far = |offset: i64| {
        let asked = challenge(&at_server, "site-1");
        let answer = token(&at_client, Some(&asked));
        server.offset.store(offset, Ordering::Relaxed);
        verify(&at_server, &answer, &peer("site-1", "client"), Some(&asked))
    };
    let refused = far(-1000);
    assert_eq!((code(&refused), &refused["retry"]), ("AGT-010", &json!(false)));
    assert_eq!(code(&far(1000)), "AGT-011");
}

#[test]
fn policies_on_p4_replace_the_built_in_ones() {
    let federation = Federation::hold();
    let (server, client) =
        (federation.site("server1", Role::Server), federation.site("site-1", Role::Client));
    let text = "package policy\ndefault allow := false\ndeny contains \"not this root\" if \
                input.submods.cpu0[\"ear.veraison.annotated-evidence\"].tpm.ek_root_sha256 \
                != \"00\"\nallow if input.submods";
    server.write("config/policies/cross.rego", text.as_bytes());
    let refused =
        verify(&server.agent(), &token(&client.agent(), None), &peer("site-1", "client"), None);
    assert_eq!(code(&refused), "AGT-033");
    assert!(refused["reason"].as_str().unwrap().contains("not this root"), "{refused}");
    server.write(
        "config/policies/self.rego",
        b"package policy\ndefault allow := false\nallow if input.never",
    );
    let agent = server.new_agent();
    assert!(agent.verify_self(&[]).is_err());
    assert_eq!(ask(&agent, json!({"op": "status"}))["state"], "failing");
}
