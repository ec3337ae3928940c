//! The program that a server's CVM runs: it serves what lies read-only, and ends when it is told
//! to.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::common::{Ceremony, LOG, client_limits, log, rego};
use cvm_keyholder::store::FILE;
use cvm_layout::{keyholder_conf::KeyHolderConf, manifest::Stage};
use cvm_release::client::Failure;
use cvm_release_https::{Endpoint, Holder, SystemResolver};

fn start(dir: &Path, state: &Path, config: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cvm-keyholder"));
    command.arg("--dir").arg(dir).arg("--state").arg(state).arg("--config").arg(config);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn it_serves_from_a_folder_that_it_only_reads_until_sigterm() {
    let ceremony = Ceremony::hold(&rego(None));
    let (folder, config) = (ceremony.party_folder("alice"), ceremony.folder.path().join("p4"));
    let state = ceremony.folder.path().join("jobs/keyholder");
    fs::create_dir(&config).unwrap();
    fs::write(config.join("agreement.txt"), ceremony.agreement.text()).unwrap();
    let port = free_port();
    let conf = format!("version: 1\nlisten: 127.0.0.1:{port}\n");
    KeyHolderConf::parse(conf.as_bytes()).unwrap();
    fs::write(config.join("keyholder.yaml"), conf).unwrap();

    let mut child = start(&folder, &state, &config);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut warned = false;
    let ready = lines
        .find(|line| {
            warned |= line.starts_with("warning: memory is not locked");
            !line.starts_with("warning: ")
        })
        .unwrap();
    let certificate_sha256 = ceremony.party("alice").card().certificate_sha256;
    assert_eq!(ready, format!("ready https://127.0.0.1:{port} certificate={certificate_sha256}"));
    assert!(state.join(FILE).exists() && !folder.join(FILE).exists());

    // What it holds reaches no core file and no swap.
    let proc = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap();
    let limits = proc("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"], "{core}");
    let status = proc("status");
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix("VmLck:")?.trim().strip_suffix(" kB"));
    let locked = kilobytes.unwrap().parse::<u64>().unwrap() > 0;
    assert_ne!(locked, warned, "either its memory is locked, or it says why not: {status}");

    // It speaks the protocol: evidence that nobody vouches for is refused, with the reason on
    // stdout alone.
    struct Nothing;
    impl cvm_release_https::Attester for Nothing {
        fn tee(&self) -> cvm_release::messages::Tee {
            cvm_release::messages::Tee::Sample
        }
        fn auth_params(&self) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
            Ok(String::new())
        }
        fn evidence(
            &self,
            _: &str,
            _: &cvm_release::binding::Binding,
        ) -> Result<serde_json::Value, Box<dyn std::error::Error + Send + Sync>> {
            Ok(serde_json::Value::Null)
        }
    }
    let (_, manifest) = ceremony.build(1, &log(LOG));
    let url = format!("https://127.0.0.1:{port}");
    let endpoint = Endpoint { party: "alice".into(), url, certificate_sha256, proxy: None };
    let holder = Holder::new(&endpoint, client_limits(), SystemResolver).unwrap();
    let failure = holder.release(&manifest.image_id, Stage::Boot, &Nothing).err().unwrap().failure;
    assert!(matches!(failure, Failure::Refused { status: 401, .. }), "{failure}");
    let decision = lines.next().unwrap();
    assert!(decision.contains("refused") && decision.contains("reason=unsupported"), "{decision}");

    let status = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(status.success());
    assert_eq!(lines.last().as_deref(), Some("stopped"));
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_is_wrong_with_its_folders_is_said_with_a_code() {
    let ceremony = Ceremony::hold(&rego(None));
    let (folder, config) = (ceremony.party_folder("alice"), ceremony.folder.path().join("p4"));
    fs::create_dir(&config).unwrap();
    let failure = || {
        let mut child = start(&folder, &ceremony.folder.path().join("state"), &config);
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1));
        text
    };
    assert!(failure().contains("keyholder.yaml"));
    fs::write(config.join("keyholder.yaml"), "version: 2\nlisten: 127.0.0.1:1\n").unwrap();
    let text = failure();
    assert!(text.contains("expected 1, found 2") && text.contains("next: "), "{text}");
    fs::write(config.join("keyholder.yaml"), "version: 1\nlisten: 127.0.0.1:8443\n").unwrap();
    fs::write(config.join("agreement.txt"), Ceremony::hold(&rego(None)).agreement.text()).unwrap();
    let text = failure();
    assert!(text.starts_with("error[KEY-010]"), "{text}");
}
