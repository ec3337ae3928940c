//! The verdict as a signed token, made and checked as the help of `attest verify` says.

use std::{fs, process::Command};

use crate::{EVIDENCE, NOW, claims, folder, verify};

/// A key and its public half, by openssl, as the help has it.
fn key(folder: &std::path::Path) -> (String, String) {
    let [key, public] = ["ear.key", "ear.pub"].map(|name| folder.join(name).display().to_string());
    make_key(&key, &public);
    (key, public)
}

pub fn make_key(key: &str, public: &str) {
    for arguments in [
        format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {key}"),
        format!("pkey -in {key} -pubout -out {public}"),
    ] {
        let output = Command::new("openssl").args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_signed_verdict_is_verified_by_its_readers() {
    let folder = folder("token");
    let (key, public) = key(&folder);
    let jwt = folder.join("verdict.jwt").display().to_string();
    let evidence = format!("{EVIDENCE}/snp/milan-virtee --at {NOW}");
    verify(&format!("{evidence} --ear {key} -o {jwt}")).good().says("verdict: accepted");

    let read = format!("{jwt} --jwks {public} --issuer flare-cvm");
    let run = verify(&format!("{read} --at {NOW}")).good();
    run.says("token0: ear, genuine").says("verdict: accepted").not_checked(&[("token0", "nonce")]);
    let verdict = verify(&format!("{read} --at {NOW} --json")).good().json();
    let cpu = &claims(&verdict, "token0", "ear")["submods"]["cpu0"];
    // Checks were left out of the evidence's own verdict: they travel with it.
    assert_eq!(cpu["ear.status"], "warning", "{cpu:#}");
    let not_checked = &cpu["ear.veraison.annotated-evidence"]["snp"]["not_checked"];
    assert_eq!(not_checked[0]["check"], "certificate-revocation", "{cpu:#}");

    for (arguments, code) in [
        (format!("{read} --at 1760007200"), "ATT-355"),
        (format!("{jwt} --issuer flare-cvm --at {NOW}"), "ATT-360"),
        (format!("{jwt} --jwks {public} --issuer somebody --at {NOW}"), "ATT-354"),
        (format!("{read} --nonce 00 --at {NOW}"), "ATT-356"),
        (format!("{read} --audience us --at {NOW}"), "ATT-354"),
    ] {
        verify(&arguments).failed("ATT-362").says(&format!("refused[{code}]: "));
    }
    let (_, others) = self::key(&crate::folder("token-other"));
    verify(&format!("{jwt} --jwks {others} --issuer flare-cvm --at {NOW}"))
        .failed("ATT-362")
        .says("refused[ATT-35");
    // One character of what is signed.
    let text = fs::read_to_string(&jwt).unwrap();
    let at = text.find('.').unwrap() + 20;
    let other = if &text[at..=at] == "A" { "B" } else { "A" };
    fs::write(&jwt, format!("{}{other}{}", &text[..at], &text[at + 1..])).unwrap();
    verify(&format!("{read} --at {NOW}")).failed("ATT-362");
}

#[test]
fn a_refused_machines_verdict_is_signed_and_refused_again() {
    let folder = folder("token-refused");
    let (key, public) = key(&folder);
    let jwt = folder.join("verdict.jwt").display().to_string();
    let debug = format!("{EVIDENCE}/snp/google-vcek --at {NOW} --ear {key} -o {jwt}");
    verify(&debug).failed("ATT-362");
    let run =
        verify(&format!("{jwt} --jwks {public} --issuer flare-cvm --at {NOW}")).failed("ATT-362");
    run.says("refused[ATT-396]: ").says("the verifier's verdict on cpu0 is \"contraindicated\"");
}

/// A token without a file is all that standard output gets.
#[test]
fn a_token_without_a_file_can_be_piped() {
    let folder = folder("token-pipe");
    let (key, public) = key(&folder);
    let evidence = format!("{EVIDENCE}/snp/milan-virtee --at {NOW} --ear {key}");
    let run = verify(&evidence);
    assert_eq!(run.status, Some(0), "{}", run.err);
    assert!(run.err.contains("verdict: accepted"), "{}", run.err);
    let json = verify(&format!("{evidence} --json")).good().json();
    for (name, token) in [("text", run.out.as_str()), ("json", json["ear"].as_str().unwrap())] {
        let jwt = crate::write(folder.join(name), token);
        verify(&format!("{jwt} --jwks {public} --issuer flare-cvm --at {NOW}")).good();
    }
}

/// A file that is not a key, or a key on another curve: no token, and an error that says which key
/// is needed.
#[test]
fn another_kind_of_key_signs_nothing() {
    let folder = folder("token-key");
    let key = folder.join("p384.key").display().to_string();
    let arguments = format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out {key}");
    assert!(Command::new("openssl").args(arguments.split(' ')).output().unwrap().status.success());
    let jwt = folder.join("verdict.jwt");
    for key in [key, crate::write(folder.join("words"), "no key")] {
        let evidence =
            format!("{EVIDENCE}/snp/milan-virtee --at {NOW} --ear {key} -o {}", jwt.display());
        let run = verify(&evidence);
        assert_eq!((run.status, run.out.as_str()), (Some(1), ""), "{}", run.err);
        assert!(run.err.contains("P-256") && !run.err.contains("CLI-000"), "{}", run.err);
        assert!(!jwt.exists());
    }
}
