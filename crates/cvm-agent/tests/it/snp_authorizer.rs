//! NVFLARE's own SNP authorizer, its class as it is installed, over our `snpguest` and two agents
//! on minted chips.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
};

use crate::chip::{Chip, MEASUREMENT, Maker, device, platforms};
use crate::common::{Federation, Site, ask, code};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cvm_agent::{
    agent::Agent,
    attester::TeeAttester,
    serve,
    snpguest::{display::Text, run as snpguest, run::Encoding},
};
use cvm_base::Explain as _;
use cvm_layout::names::Role;
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cvm-snpguest");

fn machine(federation: &Federation, name: &str, role: Role, snp_reports: Option<&str>) -> Site {
    let site = federation.tee_site(name, role, platforms(MEASUREMENT));
    if let Some(form) = snp_reports {
        site.write("config/agent.yaml", format!("version: 1\nsnp_reports: {form}\n").as_bytes());
    }
    site
}

fn agent(site: &Site, maker: &Maker, chip: &Arc<Chip>) -> Agent {
    let mut own = site.own_image();
    own.trust = own.trust.with_vendors(maker.vendors());
    let agent = site
        .agent_with(own, Box::new(TeeAttester::new(device(chip), b"").unwrap()))
        .with_device(device(chip));
    agent.verify_self(&[]).unwrap();
    agent
}

/// Its socket, served by a thread.
fn serving(site: &Site, agent: Agent) -> PathBuf {
    let socket = site.at("agent.sock");
    let listener = serve::bind(&socket).unwrap();
    let agent = Arc::new(agent);
    thread::spawn(move || serve::local(&agent, &listener, &[nix::unistd::geteuid().as_raw()]));
    socket
}

/// A `snpguest` that asks this agent: NVFLARE runs it with arguments of its own.
fn program(site: &Site, socket: &Path) -> PathBuf {
    let path = site.at("snpguest");
    fs::write(&path, format!("#!/bin/sh\nexec {PROGRAM} --socket {} \"$@\"\n", socket.display()))
        .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

const SCRIPT: &str = r#"
import base64, logging, os, sys
from nvflare.app_opt.confidential_computing.snp_authorizer import SNPAuthorizer

logging.basicConfig(stream=sys.stderr)
client_guest, server_guest, scratch = sys.argv[1:]
os.chdir(scratch)

def authorizer(guest, certs):
    return SNPAuthorizer(amd_certs_dir=certs, snpguest_binary=guest, max_retries=1)

client, server = authorizer(client_guest, "of-client"), authorizer(server_guest, "of-server")
token = client.generate()
report = base64.b64decode(token)
assert len(report) > 1184, "the chip's certificate comes after its report"
assert open("request.bin", "rb").read() == report[0x50:0x90]
assert server.verify(token)
assert {"ark.pem", "ask.pem", "vcek.pem"} < set(os.listdir("of-server")), os.listdir("of-server")
assert not server.verify(token), "a token counts once"
# What was cached for one chip is used for it, and not for another.
assert server.verify(client.generate())
assert client.verify(server.generate())

genuine = base64.b64decode(client.generate())
tampered = {"nonce": 0x50, "launch digest": 0x90, "TCB": 0x180, "chip": 0x1a0, "signature": 0x2a0}
tampered |= {"version": 0, "certificate": len(genuine) - 300}
for what, at in tampered.items():
    changed = bytearray(genuine)
    changed[at] ^= 1
    assert not server.verify(base64.b64encode(changed)), what
for what, changed in {"cut": genuine[:1183], "long": genuine + bytes(20000), "empty": b""}.items():
    assert not server.verify(base64.b64encode(changed)), what
# Another chip's certificate behind the report.
other = base64.b64decode(server.generate())
assert not server.verify(base64.b64encode(genuine[:1184] + other[1184:])), "another chip's"
assert server.verify(base64.b64encode(genuine)), "none of this used up the genuine one"
print("NVFLARE is content")
"#;

#[test]
fn nvflares_own_authorizer_makes_and_verifies_tokens() {
    let python = std::env::var("FLARE_CVM_PYTHON")
        .expect("FLARE_CVM_PYTHON names a Python with NVFLARE: `make test`");
    let (federation, maker) = (Federation::hold(), Maker::new());
    let with = Some("with-certificates");
    let server = machine(&federation, "server1", Role::Server, with);
    let client = machine(&federation, "site-1", Role::Client, with);
    let [at_server, at_client] = [&server, &client]
        .map(|site| program(site, &serving(site, agent(site, &maker, &maker.chip()))));
    let scratch = tempfile::tempdir().unwrap();
    let output = Command::new(python)
        .args(["-c", SCRIPT])
        .args([&at_client, &at_server])
        .arg(scratch.path())
        .output();
    let output = output.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "NVFLARE is content\n", "{errors}");
    assert!(errors.contains("AGT-031: the evidence is refused: ATT-307"), "{errors}");
}

#[test]
fn a_report_alone_is_verified_with_the_certificate_in_the_folder() {
    let (federation, maker) = (Federation::hold(), Maker::new());
    let site = machine(&federation, "site-1", Role::Client, Some("alone"));
    let chip = maker.chip();
    let socket = serving(&site, agent(&site, &maker, &chip));
    let (report, request, certificates) =
        (site.at("report.bin"), site.at("request.bin"), site.at("certs"));
    fs::write(&request, [0xa5; 64]).unwrap();
    let run = |command: snpguest::Command| snpguest::run(&command, &socket);
    run(snpguest::Command::Report { report: report.clone(), request: request.clone() }).unwrap();
    let written = fs::read(&report).unwrap();
    assert_eq!((written.len(), &written[0x50..0x90]), (1184, &[0xa5; 64][..]));
    let verify =
        || run(snpguest::Command::Verify { folder: certificates.clone(), report: report.clone() });
    fs::create_dir(&certificates).unwrap();
    assert_eq!(verify().unwrap_err().code(), "AGT-083", "nobody vouches for the chip");
    let fetch = snpguest::Command::FetchVcek {
        encoding: Encoding::Pem,
        folder: certificates.clone(),
        report: report.clone(),
    };
    assert_eq!(run(fetch).unwrap_err().code(), "AGT-083");
    fs::write(certificates.join("vcek.pem"), crate::snp_mint::pem(&[chip.vcek()])).unwrap();
    verify().unwrap();
    fs::write(certificates.join("vcek.pem"), crate::snp_mint::pem(&[maker.chip().vcek()])).unwrap();
    assert_eq!(verify().unwrap_err().code(), "AGT-083", "another chip's");
    fs::write(&request, [0xa5; 63]).unwrap();
    let short = snpguest::Command::Report { report: report.clone(), request };
    assert_eq!(run(short).unwrap_err().code(), "AGT-082");
    // AMD's authorities are written for every processor that virtee's program knows.
    for model in ["milan", "genoa", "bergamo", "siena", "turin"] {
        let command = snpguest::Command::FetchCa {
            encoding: Encoding::Pem,
            folder: certificates.clone(),
            model: model.into(),
        };
        run(command).unwrap();
        let read = |name: &str| fs::read(certificates.join(name)).unwrap();
        let [ark, ask] = ["ark.pem", "ask.pem"]
            .map(|name| cvm_verify::x509::Certificate::read_all(&read(name)).unwrap());
        assert!(ark[0].is_self_issued() && ask[0].issuer() == ark[0].subject(), "{model}");
    }
}

/// What the socket signs for NVFLARE is nothing that this system believes.
#[test]
fn attack_a_report_over_a_tokens_digest() {
    let (federation, maker) = (Federation::hold(), Maker::new());
    let chip = maker.chip();
    let closed = agent(&machine(&federation, "site-1", Role::Client, None), &maker, &chip);
    let request = |data: &[u8; 64]| json!({"op": "snp-report", "report_data": hex::encode(data)});
    assert_eq!(code(&ask(&closed, request(&[7; 64]))), "AGT-007");
    let verify = json!({"op": "snp-verify", "report": "", "certificates": []});
    assert_eq!(code(&ask(&closed, verify)), "AGT-007");

    let open = agent(&machine(&federation, "site-1", Role::Client, Some("alone")), &maker, &chip);
    assert_eq!(ask(&open, request(&[7; 64]))["ok"], true);
    // A statement's digest, a release's binding, a paravisor's: each followed by zeros.
    for digest in [[7; 48], [0; 48]] {
        assert_eq!(
            code(&ask(&open, request(&cvm_evidence::trustee::report_data(&digest)))),
            "AGT-008"
        );
    }
    let mut nearly = cvm_evidence::trustee::report_data(&[7; 48]);
    nearly[63] = 1;
    let bare = ask(&open, request(&nearly));
    assert_eq!(bare["ok"], true, "one bit keeps them apart: no verifier of this system's takes it");
    let body = cvm_evidence::trustee::SnpBody::new(&chip.report(&nearly), vec![]).unwrap();
    let mut body = serde_json::to_value(body).unwrap();
    body["cert_chain"] = json!([{"cert_type": "VCEK", "data": chip.vcek()}]);
    let refused =
        maker.vendors().verify("snp", &body, &[7; 48], cvm_peer::clock::now()).unwrap_err();
    assert!(refused.is_wrong_nonce(), "{refused}");
}

/// NVFLARE's authorizer looks at no firmware: the floors of this machine's own image do.
#[test]
fn attack_a_bare_report_of_old_firmware() {
    let (federation, maker) = (Federation::hold(), Maker::new());
    let site = machine(&federation, "site-1", Role::Client, Some("alone"));
    let open = agent(&site, &maker, &maker.chip());
    let verify = |chip: &Chip| {
        let report = STANDARD.encode(chip.report(&[0xa5; 64]));
        let certificates = [STANDARD.encode(chip.vcek())];
        let asked = json!({"op": "snp-verify", "report": report, "certificates": certificates});
        ask(&open, asked)
    };
    assert_eq!(verify(&maker.chip())["verified"], true);
    let old = verify(&maker.chip_that(|report| report[0x1f7] -= 1, true));
    assert_eq!(code(&old), "AGT-031", "{old}");
    let other = verify(&maker.chip_that(|report| report[0x18a] = 2, true));
    assert_eq!(code(&other), "AGT-031", "another stepping: {other}");
}

#[test]
fn the_text_is_that_of_virtees_program() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/snpguest");
    let evidence = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors/evidence/snp/milan-virtee/report.bin");
    for name in ["v2-milan", "v2-turin", "v3-genoa", "v4-siena", "v5-turin", "milan-virtee"] {
        let made_up = vectors.join(format!("{name}.bin"));
        let report = fs::read(if made_up.exists() { &made_up } else { &evidence }).unwrap();
        let text = fs::read_to_string(vectors.join(format!("{name}.txt"))).unwrap();
        assert_eq!(format!("{}\n", Text(&report.try_into().unwrap())), text, "{name}");
    }
}
