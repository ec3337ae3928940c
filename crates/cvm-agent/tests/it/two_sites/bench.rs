//! Tokens and verifications per second.

use std::time::{Duration, Instant};

use cvm_agent::attester::{Attester, TpmAttester};
use cvm_layout::names::Role;
use cvm_peer::{
    clock,
    token::{Token, Use},
    trust::Trust,
    verify::{Clocks, ExpectedToken, cross_policy, verify},
};

use crate::common::{Federation, token};

fn per_second(what: &str, mut work: impl FnMut()) {
    let (began, mut done) = (Instant::now(), 0_u32);
    while began.elapsed() < Duration::from_secs(3) {
        work();
        done += 1;
    }
    println!("{what}: {:.0}/s", f64::from(done) / began.elapsed().as_secs_f64());
}

/// Run with `cargo test --release -p cvm-agent --test it bench -- --ignored --nocapture`.
#[test]
#[ignore = "a bench"]
fn bench_tokens() {
    let federation = Federation::hold();
    let client = federation.site("site-1", Role::Client);
    let agent = client.agent();
    let tpm = TpmAttester::new(&client.tcti(), &client.log);
    per_second("a quote of swtpm alone (another process, over TCP)", || {
        drop(tpm.evidence(&[0; 48]).unwrap())
    });
    per_second("a token, swtpm's quote included", || drop(token(&agent, None)));

    let text = token(&agent, None);
    let policy = cross_policy(None).unwrap();
    let clocks = Clocks { leeway_s: 600, max_wait_s: 0 };
    let expected =
        ExpectedToken { use_: Use::Peer, peer: None, challenge: None, report_sha256: None };
    let agreement = federation.agreement.text();
    let once = |trust: &Trust| {
        let token = Token::parse(&text).unwrap();
        verify(&token, &expected, trust, &policy, clocks, clock::now()).unwrap();
    };
    let trust = Trust::new(agreement.as_bytes()).unwrap();
    per_second("a verification of a known peer's token", || once(&trust));
    per_second("a verification of a token whose documents were never seen", || {
        once(&Trust::new(agreement.as_bytes()).unwrap());
    });
    per_second("of which the Rego policy", || {
        let _ = policy.decide(&serde_json::json!({}), &serde_json::json!({})).unwrap();
    });
}
