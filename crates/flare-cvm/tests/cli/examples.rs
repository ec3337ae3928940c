//! The examples that a user of the libraries copies: they run, and refuse what is wrong.

use std::{fs, process::Command};

use cvm_image::boot::secure_boot::Keys;

use crate::{Run, bundle::Bundle, folder, repository, write};

const REPORT: &str = "tests/vectors/evidence/snp/milan-virtee/report.bin";
const VCEK: &str = "tests/vectors/evidence/snp/milan-virtee/vcek.der";

/// Runs an example, which cargo built beside this test.
fn example(name: &str, arguments: &[&str]) -> Run {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples").join(name);
    let mut command = Command::new(program);
    Run::of(command.args(arguments).current_dir(repository()), name.into())
}

#[test]
fn a_report_is_verified_and_judged() {
    example("verify_snp_report", &[REPORT, VCEK, "milan=0.0.0.0"])
        .good()
        .says("accepted: a milan guest")
        .says("not checked: ");
    let refused = |arguments: &[&str], reason: &str| {
        let run = example("verify_snp_report", arguments);
        assert!(run.status == Some(1) && run.err.contains(reason), "{}{}", run.out, run.err);
    };
    refused(&[REPORT, VCEK, "milan=255.0.0.0"], "the policy refuses this guest");
    refused(&[REPORT, VCEK, "milan=0.0.0.0", &"00".repeat(64)], "REPORT_DATA");
    refused(&[REPORT, REPORT, "milan=0.0.0.0"], "");
}

#[test]
fn a_manifest_is_read_after_its_signature() {
    let folder = folder("example-manifest");
    let agreement = write(
        folder.join("agreement.txt"),
        crate::read("fuzz/seeds/ceremony_artifact/agreement.txt"),
    );
    let manifest =
        write(folder.join("manifest.json"), crate::read("fuzz/seeds/init_documents/manifest.json"));
    fs::write(folder.join("manifest.sig"), [0; 64]).unwrap();
    let run = example("read_manifest", &[&agreement, &manifest]);
    assert!(
        run.status == Some(1) && run.err.contains("is not signed by builder"),
        "{}{}",
        run.out,
        run.err
    );
    run.says("agreement: ");
}

#[test]
fn an_images_registers_are_predicted_from_its_files() {
    let folder = folder("example-predict");
    let bundle = Bundle::new(&folder);
    let loader = Keys::open_or_create(&folder.join("keys")).unwrap().signed_loader().unwrap();
    let (loader, uki) =
        (write(folder.join("loader.efi"), loader), write(folder.join("uki.efi"), &bundle.uki));
    let variables = bundle.folder.join("OVMF_VARS.fd").display().to_string();
    let run = example("predict_pcr", &[&loader, &uki, &variables]).good();
    for (pcr, value) in &bundle.reference.tpm.pcrs {
        run.says(&format!("PCR {pcr}: {value}\n"));
    }
}
