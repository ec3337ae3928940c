//! An independent client (tests/kbs_client.py, written from the protocol's description) is served.
//!
//! `FLARE_CVM_PYTHON` names a Python with the `cryptography` package; the default is `python3`.

use std::{path::Path, process::Command};

use crate::common::{
    Ceremony, LOG, Serving, log, rego,
    swtpm::{boot, root_sha256},
};
use cvm_layout::manifest::Stage;
use cvm_release_server::Reason;
use cvm_testkit::swtpm::Swtpm;
use serde_json::Value;

fn client(serving: &Serving, resource: &str, more: &[&str]) -> (bool, Value) {
    let python = std::env::var("FLARE_CVM_PYTHON").unwrap_or("python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/kbs_client.py");
    let output = Command::new(python)
        .arg(script)
        .args([
            "--url",
            &serving.url,
            "--certificate",
            &serving.certificate_sha256.to_string(),
            "--resource",
            resource,
        ])
        .args(more)
        .output()
        .unwrap();
    let answer = serde_json::from_slice(&output.stdout);
    (
        output.status.success(),
        answer.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))),
    )
}

#[test]
fn a_stock_client_with_sample_evidence_is_served_where_a_test_allows_it() {
    let ceremony = Ceremony::hold(&rego(None));
    let (documents, manifest) = ceremony.build(1, &log(LOG));
    ceremony.store("alice").enrol(&documents).unwrap();
    let policy = ceremony.policy_folder("alice", &[], true);
    std::fs::remove_dir_all(policy.join("ek-roots")).unwrap();
    let serving = Serving::start(&ceremony, &policy, Default::default());
    let resource = format!("flare-cvm/half/{}", manifest.image_id);
    let half = ceremony.half("alice", &manifest);
    let half: String = half.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    for more in [&[][..], &["--bearer"]] {
        let (success, answer) = client(&serving, &resource, more);
        assert!(success && answer["resource"] == half, "{answer}");
    }
    // Refusals as the description says: 401, and the stock protocol's words.
    let refused = |resource: &str, more: &[&str]| {
        let (success, answer) = client(&serving, resource, more);
        assert!(!success && answer["status"] == 401, "{answer}");
        (answer["step"].clone(), answer["type"].clone())
    };
    assert_eq!(refused("default/key/1", &[]), ("resource".into(), "PluginInternalError".into()));
    assert_eq!(
        refused(&resource, &["--version", "0.4.1"]),
        ("auth".into(), "AttestationError".into())
    );
}

#[test]
fn sample_evidence_is_refused_in_production() {
    let swtpm = Swtpm::new();
    let ceremony = Ceremony::hold(&rego(None));
    let (documents, manifest) = ceremony.build(1, &log(LOG));
    ceremony.store("alice").enrol(&documents).unwrap();
    let policy = ceremony.policy_folder("alice", &swtpm.roots(), false);
    let serving = Serving::start(&ceremony, &policy, Default::default());
    let (success, answer) = client(&serving, &format!("flare-cvm/half/{}", manifest.image_id), &[]);
    assert!(
        !success && answer["step"] == "attest" && answer["type"] == "AttestationError",
        "{answer}"
    );
    assert_eq!(serving.last_refusal().0, Reason::Unsupported);
}

/// The same TPM through tpm2-tools: a genuine quote is served, one that leaves registers out is
/// not.
#[test]
fn attack_a_quote_over_fewer_registers() {
    let swtpm = Swtpm::new();
    let ceremony = Ceremony::hold(&rego(Some(root_sha256(&swtpm))));
    let (documents, manifest) = ceremony.build(1, &log(LOG));
    ceremony.store("alice").enrol(&documents).unwrap();
    let policy = ceremony.policy_folder("alice", &swtpm.roots(), false);
    let serving = Serving::start(&ceremony, &policy, Default::default());
    drop(boot(&swtpm, &log(LOG)));
    let event_log = swtpm.write("eventlog.bin", &log(LOG));
    let tcti = swtpm.tcti();
    let tpm = ["--tee", "tpm", "--tcti", &tcti, "--event-log", event_log.to_str().unwrap()];
    let resource = format!("flare-cvm/half/{}", manifest.image_id);

    let (success, answer) = client(&serving, &resource, &tpm);
    assert!(success, "{answer}");
    for pcrs in ["4,7,11", "0,1,2,3,5,6,7,8,9,10,11,12,13,14,15"] {
        let (success, answer) =
            client(&serving, &resource, &[&tpm[..], &["--pcrs", pcrs]].concat());
        assert!(!success && answer["step"] == "attest", "{answer}");
        assert_eq!(serving.last_refusal().0, Reason::WrongSelection);
    }
}

/// Latency on loopback, sample evidence, one connection: `cargo test … --test interop -- --ignored
/// --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    use cvm_release::{client::Client, messages::Tee};
    let ceremony = Ceremony::hold(&rego(None));
    let (documents, manifest) = ceremony.build(1, &log(LOG));
    ceremony.store("alice").enrol(&documents).unwrap();
    let policy = ceremony.policy_folder("alice", &[], true);
    std::fs::remove_dir_all(policy.join("ek-roots")).unwrap();
    let rate = cvm_keyholder::limit::Rate { burst: 1e6, per_second: 1e6 };
    let limits = cvm_keyholder::service::Limits { rate, ..Default::default() };
    let serving = Serving::start(&ceremony, &policy, limits);
    let holder = serving.holder();
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..200 {
        let mut timed = |step: usize, request: &cvm_release::client::Outgoing| {
            let began = std::time::Instant::now();
            let reply = holder.send(request).unwrap();
            times[step].push(began.elapsed());
            reply
        };
        let client = Client::new(Tee::Sample).unwrap();
        let reply = timed(0, &client.auth_request("").unwrap());
        let client = client.challenged(&reply).unwrap();
        let digest = client.binding("").0;
        let digest = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, digest);
        let evidence = serde_json::json!({"svn": "1", "report_data": digest});
        let reply = timed(1, &client.attest_request(evidence, "").unwrap());
        let client = client.attested(&reply).unwrap();
        let reply = timed(2, &client.half_request(&manifest.image_id, Stage::Boot));
        client.half(&reply).unwrap();
    }
    for (step, times) in ["auth", "attest", "resource"].iter().zip(&mut times) {
        times.sort();
        println!("{step}: p50 {:?}, p99 {:?}", times[100], times[198]);
    }
}
