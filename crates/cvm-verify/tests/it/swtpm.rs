//! Attester and verifier against a real swtpm: a boot is replayed into it, quoted, verified, handed
//! off.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use cvm_base::{Bytes, sha256};
use cvm_collect::tpm::{Place, Tpm, TpmError};
use cvm_evidence::{
    AttestError, Evidence, HANDOFF_EVENT, Reference,
    eventlog::{EventLog, PredictedEvent},
    handoff_digest,
    reference::{Platforms, TpmReference},
    tpm,
    wire::HandshakeParams,
};
use cvm_testkit::swtpm::{Swtpm, roots};
use cvm_verify::{Binding, Phase, Roots, challenge, verify};

fn open(swtpm: &Swtpm) -> Tpm {
    Tpm::open(&swtpm.tcti()).unwrap()
}

fn vectors() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Measures into the TPM what a real boot's log lists.
fn boot(tpm: &mut Tpm, log: &[u8]) -> Reference {
    let log = EventLog::parse(log).unwrap();
    let mut explain = Vec::new();
    for event in log.events() {
        tpm.extend_pcr(event.pcr, &event.digest).unwrap();
        if [4, 7, 9, 11, 12].contains(&event.pcr) {
            explain.push(PredictedEvent {
                pcr: event.pcr,
                event: event.describe(),
                digest: event.digest,
            });
        }
    }
    let tpm = TpmReference::from_events(explain, &[13]);
    Reference::new("00".repeat(16).parse().unwrap(), sha256(b""), tpm, Platforms::default())
}

/// A register that these tests alone extend.
const PCR: u8 = 15;

/// What a silent TPM did with the command that got no answer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lost {
    Command,
    Answer,
}

/// Stands between libtss2 and swtpm, and cuts the first connection off in the place of an answer:
/// what a command sees that the kernel gave up. How libtss2 reaches it.
fn falling_silent(swtpm: &Swtpm, after: usize, lost: Lost) -> String {
    let real: u16 = swtpm.tcti().rsplit('=').next().unwrap().parse().unwrap();
    let (commands, control) = (0..100)
        .find_map(|_| {
            let commands = TcpListener::bind("127.0.0.1:0").unwrap();
            let control = TcpListener::bind((
                "127.0.0.1",
                commands.local_addr().unwrap().port().checked_add(1)?,
            ));
            Some((commands, control.ok()?))
        })
        .expect("a pair of free ports");
    let port = commands.local_addr().unwrap().port();
    for (listener, real, mut left) in [(commands, real, after), (control, real + 1, usize::MAX)] {
        thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, mut server) =
                    (client.unwrap(), TcpStream::connect(("127.0.0.1", real)).unwrap());
                let mut buffer = [0; 8192];
                while let Ok(count @ 1..) = client.read(&mut buffer) {
                    if left == 0 {
                        if lost == Lost::Answer {
                            server.write_all(&buffer[..count]).unwrap();
                            let _ = server.read(&mut buffer).unwrap();
                        }
                        break;
                    }
                    left -= 1;
                    server.write_all(&buffer[..count]).unwrap();
                    let count = server.read(&mut buffer).unwrap();
                    if client.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
                left = usize::MAX;
            }
        });
    }
    format!("swtpm:host=127.0.0.1,port={port}")
}

#[test]
fn a_tpm_that_falls_silent_is_asked_again() {
    let ca = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::of(ca.path(), true);
    let roots = Roots::from_pem(&roots(ca.path())).unwrap();
    open(&swtpm).keep(Place::Machine, b"of this machine").unwrap();
    // Opening takes a few commands; then each silence meets another one.
    for after in [4, 6, 8, 10, 13, 16, 20, 25] {
        let mut tpm = Tpm::open(&falling_silent(&swtpm, after, Lost::Command))
            .unwrap_or_else(|e| panic!("{after}: {e}"));
        tpm.keep(Place::Machine, b"kept again").unwrap_or_else(|e| panic!("{after}: {e}"));
        let mut tpm = Tpm::open(&falling_silent(&swtpm, after, Lost::Command)).unwrap();
        assert_eq!(**tpm.recall(Place::Machine).unwrap().unwrap(), b"kept again"[..], "{after}");
        let mut tpm = Tpm::open(&falling_silent(&swtpm, after, Lost::Command)).unwrap();
        let mut ak = tpm.create_ak().unwrap_or_else(|e| panic!("{after}: {e}"));
        let (credential, state) = challenge(ak.handshake_params()).unwrap();
        let evidence =
            ak.answer(&credential, &[0x5a; 48], &[]).unwrap_or_else(|e| panic!("{after}: {e}"));
        assert!(evidence.activated_credential.is_some(), "{after}");
        // It is the same key as before, and the challenge was this session's.
        let binding = Binding { digest: &[0x5a; 48], credential: Some(&state) };
        let refused =
            verify(&Evidence::Tpm(Box::new(evidence)), &binding, &roots, now()).unwrap_err();
        assert!(
            matches!(refused, AttestError::Malformed { .. } | AttestError::Replay { .. }),
            "no log: {refused}"
        );
    }
}

#[test]
fn a_register_is_extended_once_whatever_was_lost() {
    let ca = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::of(ca.path(), true);
    let mut expected = open(&swtpm).read_pcr(PCR).unwrap();
    for lost in [Lost::Command, Lost::Answer] {
        // Opening takes four; then two reads, the command, and a read.
        for after in 4..=9 {
            let mut tpm = Tpm::open(&falling_silent(&swtpm, after, lost)).unwrap();
            let digest = sha256(format!("{lost:?} {after}").as_bytes());
            tpm.extend_pcr(PCR, &digest).unwrap_or_else(|e| panic!("{lost:?} {after}: {e}"));
            expected = cvm_evidence::eventlog::extend(&expected, &digest);
            assert_eq!(open(&swtpm).read_pcr(PCR).unwrap(), expected, "{lost:?} {after}");
        }
    }
}

#[test]
fn a_boot_is_proven_then_its_handoff_is_seen() {
    let ca = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::of(ca.path(), true);
    let mut tpm = open(&swtpm);
    let log = fs::read(vectors().join("boot-debian12/eventlog.bin")).unwrap();
    let reference = boot(&mut tpm, &log);
    let reference = Reference::parse(&reference.to_bytes()).unwrap();
    let roots = Roots::from_pem(&roots(ca.path())).unwrap();
    let digest = [0x5a; 48];

    let session = |tpm: &mut Tpm| {
        let mut ak = tpm.create_ak().unwrap();
        let (challenge, state) = challenge(ak.handshake_params()).unwrap();
        // The state travels through a sealed cookie.
        let state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        let evidence = ak.answer(&challenge, &digest, &log).unwrap();
        let body = serde_json::to_value(&evidence).unwrap();
        let evidence = Evidence::from_json("tpm", &body).unwrap();
        verify(&evidence, &Binding { digest: &digest, credential: Some(&state) }, &roots, now())
            .unwrap()
    };

    let claims = session(&mut tpm);
    assert_eq!(claims.phase(&reference), Phase::Boot);
    assert!(claims.mismatches(&reference).is_empty());
    let json = claims.to_json();
    assert_eq!(json["tpm"]["trust"], "untrusted-host");
    assert_eq!(json["tpm"]["pcrs"]["4"], json["tpm"]["pcr04"]);
    assert_eq!(json["tpm"]["ek_root_sha256"], roots.ek_roots().next().unwrap().to_string());

    tpm.extend_pcr(11, &handoff_digest()).unwrap();
    assert_eq!(handoff_digest(), sha256(HANDOFF_EVENT.as_bytes()));
    let claims = session(&mut tpm);
    assert_eq!(claims.phase(&reference), Phase::AfterHandoff);
    assert_eq!(claims.mismatches(&reference)[0].reason, "the image has handed off");

    // Anything else in PCR 11 is not explained by the log.
    tpm.extend_pcr(11, &sha256(b"something")).unwrap();
    assert_ne!(tpm.read_pcr(11).unwrap(), Bytes([0; 32]));
    let mut ak = tpm.create_ak().unwrap();
    let (challenge, state) = challenge(ak.handshake_params()).unwrap();
    let evidence = Evidence::Tpm(Box::new(ak.answer(&challenge, &digest, &log).unwrap()));
    let refused =
        verify(&evidence, &Binding { digest: &digest, credential: Some(&state) }, &roots, now())
            .unwrap_err();
    assert!(matches!(refused, AttestError::Replay { pcr: 11, .. }), "{refused}");
}

#[test]
fn a_credential_for_another_tpm_or_key_cannot_be_activated() {
    let ca = tempfile::tempdir().unwrap();
    let (first, second) = (Swtpm::of(ca.path(), true), Swtpm::of(ca.path(), true));
    let (mut first, mut second) = (open(&first), open(&second));
    let mut ak = first.create_ak().unwrap();
    let mut other = second.create_ak().unwrap();
    let (for_other, _) = challenge(other.handshake_params()).unwrap();
    assert!(matches!(ak.answer(&for_other, &[0; 48], &[]), Err(TpmError::Command { .. })));
    // An endorsed TPM's certificate with a key that lives elsewhere: neither of them can answer.
    let mixed = HandshakeParams {
        ak_public: other.handshake_params().ak_public.clone(),
        ..ak.handshake_params().clone()
    };
    let (relayed, _) = challenge(&mixed).unwrap();
    assert!(matches!(ak.answer(&relayed, &[0; 48], &[]), Err(TpmError::Command { .. })));
    assert!(matches!(other.answer(&relayed, &[0; 48], &[]), Err(TpmError::Command { .. })));
    // A certificate shown with another endorsement key.
    let swapped = HandshakeParams {
        ek_public: other.handshake_params().ek_public.clone(),
        ..ak.handshake_params().clone()
    };
    assert_eq!(challenge(&swapped).unwrap_err(), AttestError::EndorsementMismatch);
}

#[test]
fn keys_are_flushed_so_that_many_sessions_fit() {
    let ca = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::of(ca.path(), true);
    let mut tpm = open(&swtpm);
    for _ in 0..6 {
        let ak = tpm.create_ak().unwrap();
        tpm::Public::parse(&ak.handshake_params().ak_public.0)
            .unwrap()
            .check_attestation_key()
            .unwrap();
    }
}

#[test]
fn a_tpm_without_a_certificate_is_named_as_such() {
    let ca = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::of(ca.path(), false);
    assert!(matches!(open(&swtpm).create_ak(), Err(TpmError::NoCertificate)));
    assert!(matches!(Tpm::open("device:/nonexistent/tpm"), Err(TpmError::Open { .. })));
}

/// Writes the session that the verifier's unit tests attack.
#[test]
fn what_a_tpm_keeps_it_gives_back_to_this_image_in_this_phase_only() {
    let (ca, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let swtpm = Swtpm::of(ca.path(), true);
    let mut tpm = open(&swtpm);
    boot(&mut tpm, &fs::read(vectors().join("boot-debian12/eventlog.bin")).unwrap());
    let recall = |tpm: &mut Tpm, place| tpm.recall(place).unwrap().map(|kept| kept.to_vec());
    assert_eq!(recall(&mut tpm, Place::Machine), None);
    tpm.keep(Place::Machine, &[1; 48]).unwrap();
    tpm.keep(Place::Machine, &[2; 48]).unwrap();
    tpm.keep(Place::System, &[3; 80]).unwrap();
    assert_eq!(recall(&mut tpm, Place::Machine), Some(vec![2; 48]), "the later one");
    tpm.forget(Place::System).unwrap();
    tpm.forget(Place::System).unwrap();
    assert_eq!(recall(&mut tpm, Place::System), None);
    // The running system asks in vain, and so does another machine.
    tpm.extend_pcr(11, &handoff_digest()).unwrap();
    assert_eq!(recall(&mut tpm, Place::Machine), None);
    let another = Swtpm::of(other.path(), true);
    assert_eq!(recall(&mut open(&another), Place::Machine), None);
}

#[test]
fn attack_a_secret_that_somebody_put_there_is_not_believed() {
    let ca = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::of(ca.path(), true);
    let tools = |tool: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new(tool);
        command.args(arguments).args(["-T", &swtpm.tcti()]);
        let output = command.output().expect("tpm2-tools are installed");
        assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let planted = swtpm.write("planted", &[9; 48]);
    tools(
        "tpm2_nvdefine",
        &["0x0180fc01", "-C", "o", "-s", "48", "-a", "authread|authwrite|no_da"],
    );
    tools("tpm2_nvwrite", &["0x0180fc01", "-i", planted.to_str().unwrap()]);
    assert!(open(&swtpm).recall(Place::Machine).unwrap().is_none());
}

#[test]
#[ignore = "writes tests/vectors/session-swtpm"]
fn record() {
    let ca = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::of(ca.path(), true);
    let mut tpm = open(&swtpm);
    let log = fs::read(vectors().join("boot-debian12/eventlog.bin")).unwrap();
    let reference = boot(&mut tpm, &log);
    let mut ak = tpm.create_ak().unwrap();
    let (challenge, state) = challenge(ak.handshake_params()).unwrap();
    let evidence = ak.answer(&challenge, &[0x5a; 48], &log).unwrap();
    let folder = vectors().join("session-swtpm");
    fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: String| fs::write(folder.join(name), text + "\n").unwrap();
    write("handshake.json", serde_json::to_string_pretty(ak.handshake_params()).unwrap());
    write("state.json", serde_json::to_string_pretty(&state).unwrap());
    write("evidence.json", serde_json::to_string_pretty(&evidence).unwrap());
    write("now", now().to_string());
    fs::write(folder.join("reference.json"), reference.to_bytes()).unwrap();
    fs::write(folder.join("roots.pem"), roots(ca.path())).unwrap();
}
