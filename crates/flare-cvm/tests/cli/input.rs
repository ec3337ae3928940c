//! What a command line names: dates, standard input, pipes, links, and files of every editor.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    process::Command,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::{
    EVIDENCE, NOW, Run, flare_cvm, folder, read, repository, token::make_key, verify, write,
};

const MILAN: &str = "tests/vectors/evidence/snp/milan-virtee";

/// A report and its certificate in a folder of their own.
fn milan(to: &Path) {
    for name in ["report.bin", "vcek.der"] {
        write(to.join(name), read(&format!("{MILAN}/{name}")));
    }
}

#[test]
fn a_date_alone_is_its_first_second() {
    let verdict = verify(&format!("{MILAN} --at 2025-10-09 --json")).good().json();
    assert_eq!(verdict["at"], 1_759_968_000);
    for wrong in ["2025-10-32", "2025-10", "09.10.2025", "2025-10-09Z"] {
        verify(&format!("{MILAN} --at {wrong}")).failed("CLI-020");
    }
}

#[test]
fn standard_input_is_a_file() {
    let arguments = format!("attest verify - {MILAN}/vcek.der --at {NOW}");
    let piped = |from: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flare-cvm"));
        command.args(arguments.split(' ')).current_dir(repository());
        Run::of(command.stdin(File::open(repository().join(from)).unwrap()), arguments.clone())
    };
    piped(&format!("{MILAN}/report.bin")).good().says("cpu0: snp, genuine");
    piped("README.md").failed("ATT-362").says("standard input: it is neither evidence nor");
}

/// Opening a pipe that nobody writes to would wait for ever.
#[test]
fn a_named_pipe_is_refused_and_nobody_waits() {
    let folder = folder("pipe");
    milan(&folder);
    let pipe = folder.join("quote.msg");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.display();
    verify(&format!("{} --at {NOW}", folder.display()))
        .failed("ATT-362")
        .says("quote.msg: it is neither a file");
    verify(&pipe.to_string()).failed("FILE-004");
    for option in ["--roots", "--jwks", "--policy", "--reference"] {
        verify(&format!("{MILAN} --at {NOW} {option} {pipe}")).failed("FILE-004");
    }
    // A file that a shell opened for the program is read.
    let shell = format!(
        "{} attest verify <(cat {MILAN}/report.bin) {MILAN}/vcek.der --at {NOW}",
        env!("CARGO_BIN_EXE_flare-cvm")
    );
    Run::of(Command::new("bash").args(["-c", &shell]).current_dir(repository()), shell.clone())
        .good();
}

#[test]
fn each_file_is_read_once_wherever_links_show_it() {
    let folder = folder("links");
    milan(&folder);
    symlink(&folder, folder.join("loop")).unwrap();
    symlink("report.bin", folder.join("again.bin")).unwrap();
    fs::create_dir(folder.join("cpu")).unwrap();
    symlink("../report.bin", folder.join("cpu/report.bin")).unwrap();
    symlink("..", folder.join("cpu/up")).unwrap();
    fs::hard_link(folder.join("report.bin"), folder.join("cpu/hard.bin")).unwrap();
    let named = folder.display();
    let run = verify(&format!("{named} {named}/loop {named}/report.bin --at {NOW}")).good();
    assert_eq!(run.out.matches("snp, genuine").count(), 1, "{}", run.out);
    // A certificate vouches in each folder that shows it.
    fs::remove_file(folder.join("report.bin")).unwrap();
    fs::remove_file(folder.join("again.bin")).unwrap();
    fs::remove_file(folder.join("cpu/report.bin")).unwrap();
    symlink("../vcek.der", folder.join("cpu/vcek.der")).unwrap();
    verify(&format!("{named} --at {NOW}")).good();
}

#[test]
fn files_of_every_editor_are_read_or_named() {
    let folder = folder("editors");
    let marked = |text: &[u8]| {
        [b"\xef\xbb\xbf", String::from_utf8_lossy(text).replace('\n', "\r\n").as_bytes()].concat()
    };
    let utf16 = |text: &[u8]| -> Vec<u8> {
        let text = String::from_utf8_lossy(text).into_owned();
        [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    let (key, public) = (
        folder.join("ear.key").display().to_string(),
        folder.join("ear.pub").display().to_string(),
    );
    make_key(&key, &public);
    let jwt = folder.join("verdict.jwt").display().to_string();
    let evidence = format!("{MILAN} --at {NOW}");
    verify(&format!("{evidence} --ear {key} -o {jwt}")).good();
    let token = format!("{jwt} --issuer flare-cvm --at {NOW}");
    let accepted = r#"{"certificate-revocation", "report-data", "host-data", "acpi", "nonce"}"#;
    let rego = format!(
        "package policy\n\ndefault allow := false\n\nallow if \
         input.submods.cpu0\n\naccepted_not_checked := {accepted}\n"
    );
    let with_rego = format!("{evidence} --policy {}", write(folder.join("p.rego"), &rego));
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("--policy", b"{\n\"snp\": {\"allow_debug\": true}\n}\n".to_vec(), &evidence),
        ("--policy", rego.clone().into_bytes(), &evidence),
        ("--reference", b"{}\n".to_vec(), &with_rego),
        ("--roots", read("keys/roots/amd/ask_ark_milan.pem"), &evidence),
        ("--jwks", fs::read(&public).unwrap(), &token),
    ];
    for (n, (option, text, rest)) in cases.iter().enumerate() {
        let file = |kind: &str, bytes: &[u8]| write(folder.join(format!("{n}.{kind}")), bytes);
        for (kind, bytes) in [("plain", text.clone()), ("marked", marked(text))] {
            verify(&format!("{rest} {option} {}", file(kind, &bytes))).good();
        }
        let run =
            verify(&format!("{rest} {option} {}", file("utf16", &utf16(text)))).failed("FILE-005");
        assert!(run.err.contains("UTF-16") && run.err.contains("save it as UTF-8"), "{}", run.err);
    }
    // A ceremony's text is signed as it was: what changed it is said.
    let text = b"flare-cvm/v1/invite\nname: a\nend\n";
    for (bytes, says) in [
        (
            String::from_utf8_lossy(text).replace('\n', "\r\n").into_bytes(),
            "line ends that were changed (CR LF)",
        ),
        ([b"\xef\xbb\xbf", &text[..]].concat(), "byte order mark"),
        (utf16(text), "UTF-16"),
    ] {
        let file = write(folder.join("invite.txt"), bytes);
        let run = flare_cvm(&["ceremony", "show", &file]);
        assert!(run.status == Some(1) && run.err.contains(says), "{says}: {}", run.err);
    }
}

#[test]
fn the_json_and_the_signed_verdict_say_the_same_of_each_attester() {
    let folder = folder("tiers");
    let (key, public) = (
        folder.join("ear.key").display().to_string(),
        folder.join("ear.pub").display().to_string(),
    );
    make_key(&key, &public);
    let h100 = format!("{EVIDENCE}/gpu/h100-545.00-e2e");
    for (evidence, tier) in [
        (format!("{MILAN} --at {NOW}"), "warning"),
        (
            format!(
                "{h100}/report.bin {h100}/chain.pem --nonce {} --at 1700000000",
                "11".repeat(32)
            ),
            "contraindicated",
        ),
        (format!("{EVIDENCE}/tdx/quotes/near-mpc.bin --at {NOW}"), "contraindicated"),
    ] {
        let verdict = verify(&format!("{evidence} --json --ear {key}")).json();
        let token = verdict["ear"].as_str().unwrap().split('.').nth(1).unwrap();
        let signed: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).unwrap()).unwrap();
        let signed = signed["submods"].as_object().unwrap();
        for (name, submodule) in verdict["submods"].as_object().unwrap() {
            assert_eq!(submodule["ear.status"], signed[name]["ear.status"], "{name}");
        }
        assert!(signed.values().all(|submodule| submodule["ear.status"] == tier), "{signed:#?}");
    }
}
