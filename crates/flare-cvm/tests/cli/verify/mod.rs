//! `attest verify`: what its help says, and what is wrong with a command line.

mod accepted;
mod folders;
mod judged;
mod refused;

use crate::{EVIDENCE, NOW, VECTORS, flare_cvm, folder, read, verify, write};

/// The nonce that the vector's H100 answered.
pub fn h100_nonce() -> String {
    let nonce =
        String::from_utf8(read(&format!("{EVIDENCE}/gpu/h100-545.00-e2e/nonce.hex"))).unwrap();
    nonce.trim().to_owned()
}

/// The nonce that the vector's switch answered: bytes 4 to 36 of the request before its report.
fn switch_nonce() -> String {
    String::from_utf8(read(&format!("{VECTORS}/forms/ls10.report.txt")).split_off(8)[..64].to_vec())
        .unwrap()
}

#[test]
fn mistakes_on_the_command_line_end_before_any_verdict() {
    let folder = folder("mistakes");
    let rules = write(folder.join("rules.json"), r#"{"snp": {"allow_debug": true}}"#);
    let unknown = write(folder.join("unknown.json"), r#"{"snp": {"allow_anything": true}}"#);
    let words = write(folder.join("words.txt"), "no reference");
    let other = write(folder.join("other.json"), r#"{"mine": 1}"#);
    let debug = format!("{EVIDENCE}/snp/google-vcek --at {NOW}");
    for (arguments, code, text) in [
        (format!("{debug} --at tomorrow"), "", "--at"),
        (format!("{EVIDENCE}/snp/google-vcek --at tomorrow"), "CLI-020", "tomorrow"),
        ("nowhere.bin".into(), "FILE-001", "nowhere.bin"),
        (format!("{debug} --policy {rules} --policy {rules}"), "CLI-027", "both give rules"),
        (format!("{debug} --policy {unknown}"), "CLI-000", "allow_anything"),
        (format!("{debug} --reference {words}"), "CLI-000", "is not JSON"),
        (
            format!("{debug} --reference {other}"),
            "ATT-001",
            "neither a bundle's reference.json nor a reference set",
        ),
        (format!("{debug} --explain"), "", "--reference"),
        (format!("{debug} -o verdict.jwt"), "", "--ear"),
    ] {
        let run = verify(&arguments);
        assert_eq!(run.out, "", "{arguments}");
        assert!(run.err.contains(text), "{arguments}: {}", run.err);
        match code {
            "" => assert_eq!(run.status, Some(2), "{arguments}"),
            code => drop(run.failed(code)),
        }
    }
    // Rules do what they say.
    let run = verify(&format!("{debug} --policy {rules}")).good();
    run.says("verdict: accepted").not_checked(&[
        ("cpu0", "certificate-revocation"),
        ("cpu0", "report-data"),
        ("cpu0", "host-data"),
        ("cpu0", "acpi"),
        ("cpu0", "nonce"),
        ("cpu0", "tcb-floor"),
    ]);
    let floor = |chip: &str| {
        format!(
            r#"{{"snp": {{"allow_debug": true, "min_tcb":
                {{"{chip}": {{"bootloader": 2, "tee": 0, "snp": 5, "microcode": 68}}}}}}}}"#
        )
    };
    for (chip, accepted) in [("Milan", true), ("Siena", false), ("Milan-B1", false)] {
        let rules = write(folder.join(format!("{chip}.json")), floor(chip));
        let run = verify(&format!("{debug} --policy {rules}"));
        assert!(!run.out.contains("tcb-floor"), "{}", run.out);
        match accepted {
            true => drop(run.good()),
            false => drop(run.failed("ATT-362").says("refused[ATT-309]: ")),
        }
    }
}

#[test]
fn help_teaches() {
    let help = flare_cvm(&["attest", "verify", "--help"]).good();
    help.says("openssl genpkey").says("--ear").says("What could not be checked is");
    help.says("--nonce-from-evidence")
        .says("--jwks-from-evidence")
        .says("--issuer-from-evidence")
        .says("accept_unread");
}
