//! Evidence collected in a guest, whose TPM and GPUs are played here, and verified where it is
//! taken to.

use std::{path::Path, process::Command};

use cvm_testkit::swtpm::Swtpm;

use crate::{EVIDENCE, NOW, Run, claims, folder, nvml, read, repository, verify};

const NONCE: &str = "c011ec7c011ec7c011ec7c011ec7c011ec7c011ec7c011ec7c011ec7c011ec7c0";

/// `attest collect` on a machine whose NVML lies in `libraries`.
fn collect(arguments: &str, libraries: &Path) -> Run {
    let arguments = format!("attest collect {arguments}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flare-cvm"));
    command
        .args(arguments.split_whitespace())
        .current_dir(repository())
        .env("LD_LIBRARY_PATH", libraries);
    Run::of(&mut command, arguments)
}

#[test]
fn a_machines_devices_are_asked_with_one_nonce() {
    let nonce = &NONCE[..64];
    let (folder, tpm) = (folder("collect"), Swtpm::new());
    let (libraries, _) = nvml::library("COUNT=2");
    let output = folder.join("evidence");
    let asked = format!("--nonce {nonce} -o {} --tcti {}", output.display(), tpm.tcti());
    let run = collect(&format!("{asked} --json"), libraries.path());
    assert_eq!(run.status, Some(0), "{}{}", run.out, run.err);
    assert_eq!(run.json()["devices"], serde_json::json!(["tpm", "gpu"]));

    // The TPM's is genuine. The GPUs answer, and no signature of theirs covers the answer.
    let run = verify(&format!("{}/tpm --nonce {nonce}", output.display())).good();
    run.says("tpm0: tpm, genuine");
    let other = nonce.replace('c', "d");
    verify(&format!("{}/tpm --nonce {other}", output.display()))
        .failed("ATT-362")
        .says("refused[ATT-3");
    let verdict =
        verify(&format!("{} --nonce {nonce} --json", output.display())).failed("ATT-362").json();
    assert_eq!(claims(&verdict, "tpm0", "tpm")["report_data"], nonce);
    let refused = verdict["refusals"].as_array().unwrap();
    assert_eq!(refused.len(), 2, "{verdict:#}");
    assert!(refused.iter().all(|refusal| refusal["code"] == "ATT-343"), "{refused:#?}");

    // Nothing is written over, and nothing is left of what failed.
    collect(&asked, libraries.path()).failed("CLI-029");
    let elsewhere = folder.join("elsewhere");
    let asked = format!("--nonce {nonce} -o {} --tcti {}", elsewhere.display(), tpm.tcti());
    collect(&format!("{asked} --device tee"), libraries.path()).failed("ATT-365");
    let (stale, _) = nvml::library("STALE=1");
    collect(&asked, stale.path()).failed("ATT-367");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    collect("--nonce 00 -o x", libraries.path()).failed("CLI-033");
}

#[test]
fn a_machine_without_devices_says_what_was_looked_for() {
    let output = folder("collect-nothing").join("evidence");
    let asked =
        format!("--nonce {} -o {} --tcti device:/nonexistent", &NONCE[..64], output.display());
    let run = collect(&asked, Path::new("/nonexistent")).failed("CLI-034");
    for device in ["SNP or TDX guest device", "TPM", "libnvidia-ml"] {
        assert!(run.err.contains(device), "{}", run.err);
    }
}

/// What vouches for evidence lies in its folder, or in a Trustee client's JSON.
#[test]
fn collateral_travels_with_the_evidence() {
    let folder = folder("travels");
    let [cache, key, packed] =
        ["cache", "my.key", "collateral.json"].map(|name| folder.join(name).display().to_string());
    let vcek = format!("{EVIDENCE}/snp/milan-virtee/vcek.der");
    crate::flare_cvm(&["collateral", "import", "--cache", &cache, "--key", &key, &vcek]).good();
    let signer = format!("{key}.pub");
    let pack = ["collateral", "pack", "--cache", &cache, "--signer", &signer, "-o", &packed];
    crate::flare_cvm(&pack).good().says("1 pieces");

    let machine = folder.join("machine");
    std::fs::create_dir_all(machine.join("cpu")).unwrap();
    std::fs::write(
        machine.join("cpu/report.bin"),
        read(&format!("{EVIDENCE}/snp/milan-virtee/report.bin")),
    )
    .unwrap();
    let report = format!("{} --at {NOW}", machine.display());
    verify(&report).failed("ATT-362").says("refused[ATT-303]");
    // Beside it, by name, and among it.
    verify(&format!("{report} --collateral {packed} --collateral-signer {signer}"))
        .good()
        .says("cpu0: snp, genuine");
    verify(&format!("{report} --collateral {packed}")).failed("CLI-021");
    std::fs::copy(&packed, machine.join("collateral.json")).unwrap();
    verify(&format!("{report} --collateral-signer {signer}")).good().says("cpu0: snp, genuine");
    verify(&report).failed("ATT-362").says("left out: ").says("collateral.json");
    // A collector's key that lies beside it makes nobody a collector.
    std::fs::copy(&signer, machine.join("collateral.pub")).unwrap();
    let run = verify(&format!("{report} --nonce {}", "00".repeat(32))).failed("ATT-362");
    run.says("refused[ATT-303]").says("left out: ").says("collateral.json: ");

    let body =
        std::fs::read(repository().join(crate::VECTORS).join("snp-trustee-e2e/evidence.json"))
            .unwrap();
    let mut body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    body["collateral"] = serde_json::from_slice(&std::fs::read(&packed).unwrap()).unwrap();
    let file = crate::write(folder.join("evidence.json"), body.to_string());
    let asked = format!("{file} --at {NOW}");
    verify(&format!("{asked} --collateral-signer {signer}")).says("cpu0");
    assert!(!verify(&format!("{asked} --collateral-signer {signer}")).out.contains("left out"));
    verify(&asked).says("left out: the evidence's own collateral");
}
