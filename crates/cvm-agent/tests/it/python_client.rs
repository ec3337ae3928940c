//! The program itself, asked by the Python package's client; and how it ends.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use crate::common::{Federation, Site, python};
use cvm_layout::names::Role;
use cvm_peer::{limits::MAX_MESSAGE, token::MAX_BYTES};
use cvm_testkit::bounded::Bounded;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cvm-agent");

fn command(site: &Site, name: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg(name).arg("--image").arg(site.at("image")).arg("--config").arg(site.at("config"));
    command.arg("--socket").arg(site.at("agent.sock"));
    command
}

/// Up to the line that says it listens.
fn serve(site: &Site) -> (Bounded, BufReader<std::process::ChildStderr>) {
    let mut command = command(site, "serve");
    command
        .args(["--user", "root", "--tcti", &site.tcti()])
        .arg("--journal")
        .arg(site.at("journal.jsonl"));
    let running = Bounded::spawn(command.stderr(Stdio::piped())).unwrap();
    let mut lines = BufReader::new(running.stderr());
    let mut said = String::new();
    while lines.read_line(&mut said).unwrap() > 0 {
        if said.contains("listening on") {
            return (running, lines);
        }
    }
    panic!("it ended: {said}");
}

const SCRIPT: &str = r#"
import time
from flare_cvm.agent_client import MAX_MESSAGE, MAX_TOKEN, AgentClient, AgentRefused, Peer
limits = [MAX_MESSAGE, MAX_TOKEN]
assert limits == [int(number) for number in sys.argv[4:]], limits
server, client = AgentClient(sys.argv[2]), AgentClient(sys.argv[3])
tls = "ab" * 32
for agent in (server, client):
    deadline = time.monotonic() + 300
    while agent.status().state != "healthy" and time.monotonic() < deadline:
        time.sleep(0.1)
status = client.status()
said = (status.site, status.role, status.kinds, status.state)
assert said == ("site-1", "client", ["tpm"], "healthy"), status
challenge = server.challenge("site-1")
token = client.generate(challenge.challenge, tls)
peer = Peer("site-1", "client", tls)
verdict = server.verify(token.token, peer, challenge.challenge)
assert verdict.claims["site"] == "site-1" and verdict.not_checked == ["acpi"], verdict
try:
    server.verify(token.token, peer, challenge.challenge)
    raise SystemExit("a replay was accepted")
except AgentRefused as refused:
    assert refused.code == "AGT-015" and not refused.retry and refused.help, refused
first = client.generate(None, tls)
assert server.verify(first.token, None, None).not_checked == ["acpi", "peer", "tls-certificate"]
entries = server.report("2000-01-01T00:00:00+00:00", "2100-01-01T00:00:00Z")
results = [e["result"] for e in entries if e["direction"] == "verified"]
assert results == ["accepted", "refused", "accepted"], entries
print("python is content")
"#;

#[test]
fn the_python_client_speaks_with_the_program() {
    let federation = Federation::hold();
    let (server, client) =
        (federation.site("server1", Role::Server), federation.site("site-1", Role::Client));
    let (_server, _client) = (serve(&server), serve(&client));
    let mut python = python(SCRIPT);
    python.args([server.at("agent.sock"), client.at("agent.sock")]);
    // Two programs, one limit.
    python.args([MAX_MESSAGE, MAX_BYTES].map(|limit| limit.to_string()));
    let output = python.output().expect("python3 is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "python is content\n", "{errors}");
    // The gate opens for a healthy agent.
    let gate = command(&client, "gate").args(["--deadline", "30"]).output().unwrap();
    assert!(gate.status.success(), "{}", String::from_utf8_lossy(&gate.stderr));
}

#[test]
fn attack_a_machine_that_changes_under_its_agent() {
    let federation = Federation::hold();
    let client = federation.site("site-1", Role::Client);
    client.write("config/agent.yaml", b"version: 1\ncheck_frequency_s: 1\n");
    let (running, mut lines) = serve(&client);
    let gate = command(&client, "gate").args(["--deadline", "30"]).status().unwrap();
    assert!(gate.success());
    client.extend(11, b"something");
    let mut said = String::new();
    lines.read_to_string(&mut said).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(70), "{said}");
    assert!(
        said.contains("SELF-VERIFICATION FAILED: AGT-032") && said.contains("PCR 11 is"),
        "{said}"
    );
    let gate = command(&client, "gate").args(["--deadline", "0"]).output().unwrap();
    assert!(!gate.status.success());
    assert!(String::from_utf8_lossy(&gate.stderr).contains("AGT-062"), "{gate:?}");
}
