//! What strangers and broken networks can do to the service, and to its client.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::common::{Ceremony, Serving, client_limits, rego};
use cvm_base::{Explain, sha256};
use cvm_custody::Unlock;
use cvm_keyholder::{
    KeyHolderError,
    limit::Rate,
    service::{Config, Limits, Service},
};
use cvm_layout::manifest::Stage;
use cvm_release::{
    client::{Client, Failure, Method, Outgoing},
    messages::Tee,
    paths,
};
use cvm_release_https::{Endpoint, Holder, SystemResolver};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

fn serving(limits: Limits) -> (Ceremony, Serving) {
    let ceremony = Ceremony::hold(&rego(None));
    let folder = ceremony.party_folder("alice");
    let serving = Serving::start(&ceremony, &folder, limits);
    (ceremony, serving)
}

fn quick() -> Limits {
    let short = Duration::from_millis(700);
    Limits {
        handshake: short,
        request: short,
        connection: Duration::from_secs(3),
        ..Limits::default()
    }
}

fn auth() -> Outgoing {
    Client::new(Tee::Sample).unwrap().auth_request("").unwrap()
}

/// A TLS connection to write anything on.
fn raw(serving: &Serving) -> StreamOwned<ClientConnection, TcpStream> {
    let socket = TcpStream::connect(serving.url.strip_prefix("https://").unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(100))).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(crate::common::trusting::Trusting(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
}

/// Everything until the server ends the connection, and how long that took.
fn rest(stream: &mut impl Read) -> (String, Duration) {
    let (began, mut bytes) = (Instant::now(), Vec::new());
    let _ = stream.read_to_end(&mut bytes);
    (String::from_utf8_lossy(&bytes).into_owned(), began.elapsed())
}

#[test]
fn attack_oversize_bodies() {
    let (_ceremony, serving) = serving(Limits::default());
    let holder = serving.holder();
    // A length that is only promised is refused before it is sent, by what a request of this path
    // can need.
    for (method, path, length) in [
        ("POST", paths::ATTEST, 4_000_000_000),
        ("POST", paths::ATTEST, paths::MAX_ATTEST_BYTES + 1),
        ("POST", paths::AUTH, paths::MAX_AUTH_BYTES + 1),
        ("PUT", paths::IMAGE, paths::MAX_IMAGE_BYTES + 1),
        ("POST", "/", paths::MAX_AUTH_BYTES + 1),
    ] {
        let mut stream = raw(&serving);
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
            .unwrap();
        let (answer, took) = rest(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 413"), "{method} {path}: {answer}");
        assert!(took < Duration::from_secs(50), "{took:?}");
    }
    let mut stream = raw(&serving);
    // Hyper may buffer one read more than its bound of 128 KiB, so a head that is over it by little
    // can still pass.
    let _ = write!(stream, "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    // What the server left unread may reset the connection before its answer is here.
    let answer = rest(&mut stream).0;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(holder.send(&auth()).unwrap().status, 200, "the service lives on");
}

#[test]
fn attack_slow_loris() {
    let (_ceremony, serving) = serving(Limits { connections: 8, ..quick() });
    let peers: Vec<_> = (0..24)
        .map(|i| {
            let socket = TcpStream::connect(serving.url.strip_prefix("https://").unwrap()).unwrap();
            (i, socket)
        })
        .collect();
    // 24 peers that never finish their handshake hold 8 places for 0.7 s each time: others still
    // come through.
    assert_eq!(serving.holder().send(&auth()).unwrap().status, 200);
    drop(peers);

    // A head that trickles in, and a body that never comes.
    let mut head = raw(&serving);
    write!(head, "POST {} HTTP/1.1\r\nHost: x\r\nX-A: ", paths::AUTH).unwrap();
    let mut body = raw(&serving);
    write!(body, "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{", paths::AUTH)
        .unwrap();
    for stream in [&mut head, &mut body] {
        let (_, took) = rest(stream);
        assert!(took < Duration::from_secs(50), "{took:?}");
    }
}

#[test]
fn attack_a_flood() {
    let (ceremony, serving) =
        serving(Limits { rate: Rate { burst: 5.0, per_second: 0.01 }, ..Limits::default() });
    let holder = serving.holder();
    let statuses: Vec<u16> = (0..200).map(|_| holder.send(&auth()).unwrap().status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 5);
    assert!(statuses[5..].iter().all(|status| *status == 429));
    // Neither challenges nor what strangers sent leave a row.
    assert!(ceremony.store("alice").log().unwrap().is_empty());
}

#[test]
fn strangers_write_nothing_into_the_log() {
    let (ceremony, serving) = serving(Limits::default());
    let holder = serving.holder();
    for (path, cookie) in
        [(paths::ATTEST, None), (paths::ATTEST, Some("kbs-session-id=AAAA")), ("/", None)]
    {
        let request = Outgoing {
            method: Method::Post,
            path: path.into(),
            cookie: cookie.map(str::to_owned),
            body: vec![],
        };
        assert!([401, 404].contains(&holder.send(&request).unwrap().status));
    }
    assert!(ceremony.store("alice").log().unwrap().is_empty());
    assert_eq!(serving.decisions.lock().unwrap().len(), 3, "but the operator sees them");
}

#[test]
fn another_certificate_is_recognised_and_never_spoken_to() {
    let (_ceremony, serving) = serving(Limits::default());
    let failure = serving.holder_with(sha256(b"another")).send(&auth()).unwrap_err();
    match failure {
        Failure::WrongCertificate { expected, found } => {
            assert_eq!((expected, found), (sha256(b"another"), serving.certificate_sha256));
        }
        other => panic!("{other}"),
    }
}

/// A client of `url` whose whole patience is three seconds.
fn impatient(url: String) -> Holder {
    let endpoint =
        Endpoint { party: "alice".into(), url, certificate_sha256: sha256(b""), proxy: None };
    let mut limits = client_limits();
    limits.connect = Duration::from_secs(1);
    limits.request = Duration::from_secs(2);
    Holder::new(&endpoint, limits, SystemResolver).unwrap()
}

struct NoTpm;

impl cvm_release_https::Attester for NoTpm {
    fn tee(&self) -> Tee {
        Tee::Sample
    }
    fn auth_params(&self) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        Ok(String::new())
    }
    fn evidence(
        &self,
        _: &str,
        _: &cvm_release::binding::Binding,
    ) -> Result<serde_json::Value, Box<dyn std::error::Error + Send + Sync>> {
        Ok(serde_json::json!({}))
    }
}

/// A TPM's, whose key must be proven; the server is told that it is another kind, for which it
/// sends no challenge.
struct WantsItsProof;

impl cvm_release_https::Attester for WantsItsProof {
    fn tee(&self) -> Tee {
        Tee::Sample
    }
    fn auth_params(&self) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        Ok("the endorsement key".into())
    }
    fn evidence(
        &self,
        _: &str,
        _: &cvm_release::binding::Binding,
    ) -> Result<serde_json::Value, Box<dyn std::error::Error + Send + Sync>> {
        Err("nobody asked for it".into())
    }
}

/// As a stock Trustee answers a TPM. The boot ended with FC-405 and "EOF while parsing a value".
#[test]
fn an_empty_challenge_is_said_to_be_one() {
    let ceremony = Ceremony::hold(&rego(None));
    let policy = ceremony.policy_folder("alice", b"", true);
    std::fs::remove_dir_all(policy.join("ek-roots")).unwrap();
    let serving = Serving::start(&ceremony, &policy, Limits::default());
    let error = serving
        .holder()
        .release(&"00".repeat(16).parse().unwrap(), Stage::Boot, &WantsItsProof)
        .err()
        .unwrap();
    assert!(matches!(error.failure, Failure::NoChallenge), "{error}");
    assert!(error.help().contains("Trustee"), "{}", error.help());
}

#[test]
fn nobody_at_the_address_is_unreachable_after_the_deadline() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = impatient(format!("https://127.0.0.1:{port}"))
        .release(&"00".repeat(16).parse().unwrap(), Stage::Boot, &NoTpm)
        .err()
        .unwrap();
    assert!(matches!(error.failure, Failure::Deadline { tries: 2.., .. }), "{error}");
    assert!(matches!(error.failure.root(), Failure::Unreachable(_)), "{error}");
    assert!(error.to_string().starts_with("key holder alice (https://127.0.0.1:"), "{error}");
    assert_eq!(error.code(), "REL-001");
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let keep = thread::spawn(move || {
        listener.accept().map(|(stream, _)| (stream, thread::sleep(Duration::from_secs(60))))
    });
    let failure = impatient(url).send(&auth()).unwrap_err();
    assert!(matches!(failure, Failure::Timeout(_)), "{failure}");
    drop(keep);
}

#[test]
fn a_name_that_does_not_resolve_is_unreachable() {
    let failure = impatient("https://no-such-host.invalid:1".into()).send(&auth()).unwrap_err();
    assert!(matches!(failure, Failure::Unreachable(_) | Failure::Timeout(_)), "{failure}");
}

#[test]
fn addresses_that_are_none_are_named() {
    for url in ["http://a:1", "https://", "https://a:1/path", "a", "https://a b"] {
        let endpoint = Endpoint {
            party: "a".into(),
            url: url.into(),
            certificate_sha256: sha256(b""),
            proxy: None,
        };
        let error = Holder::new(&endpoint, client_limits(), SystemResolver).err().unwrap();
        assert_eq!(error.code(), "REL-008", "{url}");
    }
}

#[test]
fn the_exchange_goes_through_a_connect_proxy() {
    let (_ceremony, serving) = serving(Limits::default());
    let target = serving.url.strip_prefix("https://").unwrap().to_owned();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    thread::spawn(move || {
        let (mut client, _) = proxy.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"CONNECT keyholder.example:8443 HTTP/1.1\r\n"));
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let mut server = TcpStream::connect(target).unwrap();
        let (mut a, mut b) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut a, &mut b));
        let _ = std::io::copy(&mut server, &mut client);
    });
    let endpoint = Endpoint {
        party: "alice".into(),
        // Only the proxy knows this name.
        url: "https://keyholder.example:8443".into(),
        certificate_sha256: serving.certificate_sha256,
        proxy: Some(format!("http://{address}")),
    };
    let holder = Holder::new(&endpoint, client_limits(), SystemResolver).unwrap();
    assert_eq!(holder.send(&auth()).unwrap().status, 200);
}

#[test]
fn a_start_that_fails_says_why() {
    let ceremony = Ceremony::hold(&rego(None));
    let folder = ceremony.party_folder("alice");
    let config = |listen: &str| Config {
        folder: folder.clone(),
        state: folder.clone(),
        enrol_presented: None,
        listen: listen.into(),
        policy: folder.clone(),
        limits: Limits::default(),
    };
    let open =
        |config: &Config, unlock: &Unlock| Service::open(config, unlock, |_| {}).err().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = open(&config(&taken.local_addr().unwrap().to_string()), &Unlock::beside(&folder));
    assert!(
        error.code() == "KEY-005" && error.help().contains("another program listens"),
        "{error}"
    );

    let error = open(&config("127.0.0.1:0"), &Unlock::beside(&ceremony.party_folder("bob")));
    assert!(matches!(error, KeyHolderError::Custody(_)), "{error}");

    use std::os::unix::fs::PermissionsExt;
    let secrets = folder.join("secrets.age");
    std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = open(&config("127.0.0.1:0"), &Unlock::beside(&folder));
    assert!(error.code() == "KEY-001" && error.help().contains("chmod 600"), "{error}");
    std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(0o600)).unwrap();

    std::fs::write(folder.join("policy.rego"), "package policy\nallow := true").unwrap();
    assert_eq!(open(&config("127.0.0.1:0"), &Unlock::beside(&folder)).code(), "KEY-003");
    std::fs::remove_file(folder.join("policy.rego")).unwrap();
    assert_eq!(open(&config("127.0.0.1:0"), &Unlock::beside(&folder)).code(), "FILE-001");
}
