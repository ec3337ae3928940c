//! Folders of evidence: read whole, once, and never in part.

use crate::{EVIDENCE, NOW, VECTORS, folder, read, verify, write};

/// A file that is named must be evidence. A folder may hold other files, which are listed as left
/// out.
#[test]
fn a_file_that_is_not_evidence_is_named() {
    let run = verify("README.md").failed("ATT-362");
    run.says("refused[ATT-360]: README.md: ")
        .says("refused[ATT-360]: the files: there is no evidence among them");

    let folder = folder("notes");
    for name in ["report.bin", "vcek.der"] {
        write(folder.join(name), read(&format!("{EVIDENCE}/snp/milan-virtee/{name}")));
    }
    write(folder.join("notes.txt"), "asked on Monday");
    let arguments = format!("{} --at {NOW}", folder.display());
    verify(&arguments)
        .good()
        .says("left out: ")
        .says("notes.txt: it is neither evidence nor")
        .says("(15 bytes)");
    let verdict = verify(&format!("{arguments} --json")).good().json();
    assert!(verdict["left_out"][0]["of"].as_str().unwrap().ends_with("notes.txt"), "{verdict:#}");
    // With a damaged report its folder attests nothing: the certificate in it is not enough.
    write(
        folder.join("report.bin"),
        &read(&format!("{EVIDENCE}/snp/milan-virtee/report.bin"))[..1000],
    );
    verify(&arguments)
        .failed("ATT-362")
        .says("refused[ATT-360]: ")
        .says("report.bin: it is neither evidence nor")
        .says("(1000 bytes)");
}

/// What is not a file is named, what lies too deep is refused, and what a link shows again is read
/// once.
#[test]
fn folders_are_read_whole_and_once() {
    let folder = folder("whole");
    for name in ["report.bin", "vcek.der"] {
        write(folder.join(name), read(&format!("{EVIDENCE}/snp/milan-virtee/{name}")));
    }
    std::os::unix::fs::symlink(&folder, folder.join("loop")).unwrap();
    let arguments = format!("{} --at {NOW}", folder.display());
    let run = verify(&arguments).good();
    assert_eq!(run.out.matches("snp, genuine").count(), 1, "{}", run.out);

    let deep = folder.join("a/b/c/d");
    std::fs::create_dir_all(&deep).unwrap();
    write(deep.join("report.bin"), "hidden");
    verify(&arguments)
        .failed("ATT-362")
        .says("refused[ATT-360]: ")
        .says("a/b/c/d: folders in folders");
    let rules = write(folder.with_extension("rules.json"), r#"{"accept_unread": ["d"]}"#);
    let run = verify(&format!("{arguments} --policy {rules}")).good();
    run.says("a/b/c/d: not checked: unread-evidence: folders in folders");
    std::fs::remove_dir_all(folder.join("a")).unwrap();

    std::os::unix::fs::symlink("/nonexistent", folder.join("quote.msg")).unwrap();
    verify(&arguments).failed("ATT-362").says("quote.msg: it is neither a file nor a folder");
}

/// As it was found: a genuine quote, and a report that could not be read, in one folder.
#[test]
fn attack_an_unread_report_beside_a_genuine_quote() {
    let folder = folder("dropped");
    let jwt = folder.join("verdict.jwt").display().to_string();
    let [key, public] = ["ear.key", "ear.pub"].map(|name| folder.join(name).display().to_string());
    crate::token::make_key(&key, &public);
    let case = format!("{VECTORS}/dropped-evidence/tpm-quote-and-unread-snp --at {NOW}");
    verify(&format!("{case} --ear {key} -o {jwt}")).failed("ATT-362").says("verdict: refused");
    let run =
        verify(&format!("{jwt} --jwks {public} --issuer flare-cvm --at {NOW}")).failed("ATT-362");
    run.says("the verifier's verdict on tpm0 is \"contraindicated\"")
        .says("verdict on refused0 is");
    verify(&format!("{VECTORS}/cases/snp-version-6.bin")).failed("ATT-362").says("version 6");
    // The same for a signed verdict without anything genuine in it.
    verify(&format!("{VECTORS}/cases/snp-version-6.bin --ear {key} -o {jwt} --at {NOW}"))
        .failed("ATT-362");
    verify(&format!("{jwt} --jwks {public} --issuer flare-cvm --at {NOW}"))
        .failed("ATT-362")
        .says("refused0");
}
