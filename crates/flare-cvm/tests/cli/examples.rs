//! The examples that a user of the libraries copies: they run, and refuse what is wrong.

use std::fs;

use anyhow::Result;
use cvm_image::boot::secure_boot::Keys;

use crate::{bundle::Bundle, folder, repository, write};

#[path = "../../examples/predict_pcr.rs"]
#[expect(dead_code, reason = "main")]
mod predict_pcr;
#[path = "../../examples/read_manifest.rs"]
#[expect(dead_code, reason = "main")]
mod read_manifest;
#[path = "../../examples/verify_snp_report.rs"]
#[expect(dead_code, reason = "main")]
mod verify_snp_report;

fn refused(result: Result<String>, reason: &str) {
    let text = format!("{:#}", result.unwrap_err());
    assert!(text.contains(reason), "{text}");
}

#[test]
fn a_report_is_verified_and_judged() {
    let run = |certificate: &str, more: &[&str]| {
        let path = |name| repository().join("tests/vectors/evidence/snp").join(name);
        let files = [path("milan-virtee/report.bin"), path(certificate)];
        let files = files.iter().map(|path| path.display().to_string());
        verify_snp_report::run(
            &files.chain(more.iter().map(|text| text.to_string())).collect::<Vec<_>>(),
        )
    };
    const VCEK: &str = "milan-virtee/vcek.der";
    let accepted = run(VCEK, &["milan=1.0.0.1"]).unwrap();
    assert!(accepted.starts_with("accepted: a Milan guest"), "{accepted}");
    assert!(accepted.contains("\nnot checked: "), "{accepted}");
    refused(run(VCEK, &["milan=255.0.0.0"]), "the policy refuses this guest");
    refused(run(VCEK, &["milan=1.0.0.1", &"00".repeat(64)]), "REPORT_DATA");
    refused(run("milan-virtee/report.bin", &["milan=1.0.0.1"]), "cannot be read");
}

#[test]
fn a_manifest_is_read_after_its_signature() {
    let folder = folder("example-manifest");
    let seed = |name: &str, path: &str| write(folder.join(name), crate::read(path));
    let arguments = [
        seed("agreement.txt", "fuzz/seeds/ceremony_artifact/agreement.txt"),
        seed("manifest.json", "fuzz/seeds/init_documents/manifest.json"),
    ];
    fs::write(folder.join("manifest.sig"), [0; 64]).unwrap();
    refused(read_manifest::run(&arguments), "is not signed by builder");
}

#[test]
fn an_images_registers_are_predicted_from_its_files() {
    let folder = folder("example-predict");
    let bundle = Bundle::new(&folder);
    let loader = Keys::open_or_create(&folder.join("keys")).unwrap().signed_loader().unwrap();
    let variables = bundle.folder.join("OVMF_VARS.fd").display().to_string();
    let text = predict_pcr::run(&[
        write(folder.join("loader.efi"), loader),
        write(folder.join("uki.efi"), &bundle.uki),
        variables,
    ])
    .unwrap();
    for (pcr, value) in &bundle.reference.tpm.pcrs {
        assert!(text.contains(&format!("PCR {pcr}: {value}\n")), "{text}");
    }
}
