//! What ten hostile addresses can take from a key holder that serves with its defaults: no more
//! memory, disk and log than its bounds say, and not the half of an honest CVM that boots beside
//! them. A binary of its own: it measures, and other tests beside it would count.

#[path = "it/common/mod.rs"]
mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use common::{
    Ceremony, LOG, log, rego,
    swtpm::{TpmAttester, boot, root_sha256},
};
use cvm_base::Bytes32;
use cvm_keyholder::{
    documents::Identity,
    store::{FILE, SqliteStore},
};
use cvm_layout::manifest::Stage;
use cvm_release::paths;
use cvm_release_https::{Endpoint, Holder, SystemResolver};
use cvm_release_server::{MAX_DETAIL, Step, Verdict};
use cvm_testkit::swtpm::Swtpm;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Hostile addresses.
const ADDRESSES: u8 = 10;
/// The places of a key holder, and then some: of each address.
const TRICKLING: usize = 36;
/// MiB: heads and bodies at their bounds in all places, and what four become when they are parsed.
/// Without these bounds it is above 1000.
const MAX_MEMORY: u64 = 256;
/// MiB.
const MAX_STORE: u64 = 8;
/// Entries of one stranger.
const MAX_ENTRIES: usize = 20;

/// The program, as a server's CVM runs it.
struct Program {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    address: SocketAddr,
    certificate_sha256: Bytes32,
}

impl Program {
    fn start(ceremony: &Ceremony, state: &Path) -> Self {
        let config = ceremony.folder.path().join("p4");
        fs::create_dir(&config).unwrap();
        fs::write(config.join("agreement.txt"), ceremony.agreement.text()).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        fs::write(config.join("keyholder.yaml"), format!("version: 1\nlisten: {address}\n"))
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cvm-keyholder"));
        command
            .arg("--dir")
            .arg(ceremony.party_folder("alice"))
            .arg("--state")
            .arg(state)
            .arg("--config")
            .arg(&config);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("ready ") {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended");
        }
        let certificate_sha256 = ceremony.party("alice").card().certificate_sha256;
        Self { child, lines, address, certificate_sha256 }
    }

    /// The most that it ever had in memory, in MiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Tells it to end; what it said.
    fn stop(mut self) -> Vec<String> {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        let said = self.lines.by_ref().lines().map(Result::unwrap).collect();
        assert!(self.child.wait().unwrap().success());
        said
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything that hostile addresses do, until `over`.
struct Attack {
    server: SocketAddr,
    tls: TlsConnector,
    bodies: [String; 3],
    over: AtomicBool,
    answered: AtomicUsize,
}

impl Attack {
    fn new(server: SocketAddr) -> Arc<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(common::trusting::Trusting(provider)))
            .with_no_client_auth();
        let body_of = |evidence: String| {
            let key = r#"{"kty":"EC","alg":"ECDH-ES+A256KW","crv":"P-256","x":"","y":""}"#;
            let evidence = format!(r#"{{"primary_evidence":{evidence},"additional_evidence":""}}"#);
            let data = format!(r#"{{"nonce":"","tee-pubkey":{key}}}"#);
            format!(r#"{{"init-data":null,"runtime-data":{data},"tee-evidence":{evidence}}}"#)
        };
        let many = |what: &str, times: usize| vec![what; times].join(",");
        let bodies = [
            // A tree of a hundred times its text.
            body_of(format!("[{}]", many("{\"\":0}", 140_000))),
            // As much of one as is read.
            body_of(format!(
                "[{},{},\"{}\"]",
                many("{\"\":0}", 3900),
                many("0", 50_000),
                "x".repeat(800_000)
            )),
            // A text that an error message quotes.
            format!("\"{}\"", "rubbish ".repeat(130_000)),
        ];
        assert!(bodies.iter().all(|body| (900_000..paths::MAX_ATTEST_BYTES).contains(&body.len())));
        let tls = TlsConnector::from(Arc::new(config));
        Arc::new(Self {
            server,
            tls,
            bodies,
            over: AtomicBool::new(false),
            answered: AtomicUsize::new(0),
        })
    }

    async fn connect(&self, from: Ipv4Addr) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let stream = socket.connect(self.server).await?;
        self.tls.connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    /// A request on a connection of its own; its answer's text.
    async fn ask(
        &self,
        from: Ipv4Addr,
        path: &str,
        cookie: &str,
        body: &str,
    ) -> std::io::Result<String> {
        let mut stream = self.connect(from).await?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: \
             {cookie}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        // The end of an attacker's connection is not always a clean one.
        let _ = stream.read_to_end(&mut answer).await;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// One challenge, and rubbish three times for it.
    async fn rubbish(&self, from: Ipv4Addr, body: &str) -> std::io::Result<()> {
        let challenge = r#"{"version":"0.4.0","tee":"snp","extra-params":""}"#;
        let answer = self.ask(from, paths::AUTH, "", challenge).await?;
        let Some(cookie) =
            answer.split("set-cookie: ").nth(1).and_then(|rest| rest.split(';').next())
        else {
            return Ok(());
        };
        for _ in 0..3 {
            let answer = self.ask(from, paths::ATTEST, cookie, body).await?;
            self.answered.fetch_add(usize::from(answer.starts_with("HTTP/1.1 401")), Relaxed);
        }
        Ok(())
    }

    /// A head, or a megabyte of a body, that never ends.
    async fn trickle(&self, from: Ipv4Addr, with_body: bool) -> std::io::Result<()> {
        let mut stream = self.connect(from).await?;
        let (head, body) = if with_body {
            (
                format!(
                    "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
                    paths::ATTEST
                ),
                999_000,
            )
        } else {
            (format!("POST {} HTTP/1.1\r\nHost: x\r\n", paths::AUTH), 0)
        };
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&vec![b' '; body]).await?;
        while !self.over.load(Relaxed) {
            stream.write_all(if with_body { b" " } else { b"X: x\r\n" }).await?;
            stream.flush().await?;
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// From one address.
    fn from(self: &Arc<Self>, from: Ipv4Addr) {
        for n in 0..TRICKLING {
            let attack = self.clone();
            tokio::spawn(async move {
                while !attack.over.load(Relaxed) {
                    let _ = attack.trickle(from, n % 4 == 0).await;
                    sleep(Duration::from_millis(250)).await;
                }
            });
        }
        for n in 0..self.bodies.len() {
            let attack = self.clone();
            tokio::spawn(async move {
                while !attack.over.load(Relaxed) {
                    let _ = attack.rubbish(from, &attack.bodies[n]).await;
                    sleep(Duration::from_millis(50)).await;
                }
            });
        }
    }
}

#[test]
fn attack_ten_hostile_addresses_beside_an_honest_boot() {
    let swtpm = Swtpm::new();
    let ceremony = Ceremony::hold(&rego(Some(root_sha256(&swtpm))));
    let (documents, manifest) = ceremony.build(1, &log(LOG));
    let state = ceremony.folder.path().join("state");
    fs::create_dir(&state).unwrap();
    let alice = ceremony.party("alice");
    let store = || {
        SqliteStore::open(&state, Identity::from(alice.card()), Some(alice.identity().clone()))
            .unwrap()
    };
    store().enrol(&documents).unwrap();
    ceremony.policy_folder("alice", &swtpm.roots(), false);
    let program = Program::start(&ceremony, &state);

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let attack = Attack::new(program.address);
    runtime.block_on(async {
        (2..2 + ADDRESSES).for_each(|last| attack.from(Ipv4Addr::new(127, 0, 0, last)));
        let began = Instant::now();
        while attack.answered.load(Relaxed) < 60 {
            assert!(began.elapsed() < Duration::from_secs(600), "the attack does not come about");
            sleep(Duration::from_millis(50)).await;
        }
    });

    // Its defaults: what a CVM in the field has.
    let endpoint = Endpoint {
        party: "alice".into(),
        url: format!("https://{}", program.address),
        certificate_sha256: program.certificate_sha256,
        proxy: None,
    };
    let holder = Holder::new(&endpoint, Default::default(), SystemResolver).unwrap();
    let mut tpm = boot(&swtpm, &log(LOG));
    let session = holder
        .release(&manifest.image_id, Stage::Boot, &TpmAttester::new(&mut tpm, log(LOG)))
        .unwrap();
    assert_eq!(session.half(), ceremony.half("alice", &manifest).as_bytes());

    attack.over.store(true, Relaxed);
    let memory = program.memory();
    assert!(memory <= MAX_MEMORY, "{memory} MiB");
    runtime.block_on(async {
        let _ = timeout(Duration::from_millis(500), std::future::pending::<()>()).await;
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    let said = program.stop();

    let size = |name: String| fs::metadata(state.join(name)).map_or(0, |file| file.len());
    let store_size = size(FILE.into()) + size(format!("{FILE}-wal"));
    assert!(store_size <= MAX_STORE << 20, "{store_size} bytes");
    store().verify_log().unwrap();
    let entries = store().log().unwrap();
    assert!(entries.iter().all(|entry| entry.decision.detail.len() <= MAX_DETAIL));
    for last in 2..2 + ADDRESSES {
        let peer = Ipv4Addr::new(127, 0, 0, last).to_string();
        let of = entries.iter().filter(|entry| entry.decision.peer == peer);
        let (summaries, own): (Vec<_>, Vec<_>) =
            of.partition(|entry| entry.decision.step == Step::Summary);
        assert!(own.len() <= MAX_ENTRIES && summaries.len() <= 1, "{peer}: {} entries", own.len());
        assert!(summaries.iter().all(|entry| entry.decision.detail.contains(" more, from ")));
    }
    assert!(entries.iter().any(|entry| entry.decision.verdict == Verdict::Released));
    // The console, which nobody read meanwhile, has what the log has, and no more.
    assert!(said.len() <= entries.len() + 1, "{} lines", said.len());
    eprintln!(
        "{memory} MiB, {store_size} bytes, {} entries, {} answers",
        entries.len(),
        attack.answered.load(Relaxed)
    );
}
