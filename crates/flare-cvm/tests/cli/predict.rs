//! `predict` for each platform: values, named inputs, what is not predicted, and what it refuses.

use std::fs;

use cvm_base::sha256;
use cvm_evidence::{Reference, ReferenceSet, reference::TpmReference};
use cvm_predict::snp::{Kernel, LaunchInputs, VcpuType, Vmm, launch};
use igvm_defs::IgvmPlatformType;
use serde_json::{Value, json};

use crate::{bundle::Bundle, folder, igvm_file, read, write};

const AMD_SEV: &str = "tests/vectors/evidence/measurement/ovmf_AmdSev_suffix.bin";
const DEBIAN: &str = "/usr/share/ovmf/OVMF.fd";

/// Everything about one bundle: making it takes seconds.
#[test]
fn what_a_bundle_will_measure() {
    let bundle = Bundle::new(&folder("predict"));
    tpm(&bundle);
    snp(&bundle);
    igvm(&bundle);
    tdx(&bundle);
    sets(&bundle);
}

fn tpm(bundle: &Bundle) {
    let text = bundle.predict("--platform tpm").good();
    for (pcr, value) in &bundle.reference.tpm.pcrs {
        text.says(&format!("pcr {pcr}: {value}\n"));
    }
    text.says("reference.json: predicts the same")
        .says(&format!("p2's UKI = sha256 {}", sha256(&bundle.uki)));
    let found = bundle.predict("--platform tpm --json").good().json();
    assert_eq!(found["pcr"], json!(bundle.reference.tpm.pcrs));
    assert_eq!(found["event"].as_array().unwrap().len(), bundle.reference.tpm.explain.len());

    // reference.json is of another command line.
    let path = bundle.folder.join("reference.json");
    let mut events = bundle.reference.tpm.explain.clone();
    events
        .iter_mut()
        .filter(|event| event.pcr == 12)
        .for_each(|event| event.digest = sha256(b"quiet"));
    let other =
        Reference { tpm: TpmReference::from_events(events, &[13]), ..bundle.reference.clone() };
    fs::write(&path, other.to_bytes()).unwrap();
    let refused = bundle.predict("--platform tpm").failed("CLI-024");
    assert!(refused.out.is_empty() && refused.err.contains("in PCR 12\n"), "{}", refused.err);
    fs::write(&path, bundle.reference.to_bytes()).unwrap();
}

fn snp(bundle: &Bundle) {
    bundle.predict("--platform snp").failed("CLI-022");
    bundle
        .predict(&format!("--platform snp --firmware {AMD_SEV} --vcpu-type 486"))
        .failed("CLI-023");
    // sev-snp-measure's published digests of this firmware.
    for (more, digest) in [
        (
            "",
            "19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6013b26869a5fc6ecabe033c48dd6f6db5d6d76e7c5df632d",
        ),
        (
            " --guest-features 0x21",
            "e1e1ca029dd7973ab9513295be68198472dcd4fc834bd9af9b63f6e8a1674dbf281a9278a4a2ebe0eed9f22adbcd0e2b",
        ),
    ] {
        let run = bundle.predict(&format!("--platform snp --firmware {AMD_SEV}{more}")).good();
        run.says(&format!("measurement: {digest}\n"))
            .says("input: kernel = none")
            .says("input: vcpu_type = EPYC-v4");
    }
    // Debian's OVMF does not measure a kernel, so none is started with it.
    let debian = bundle.predict(&format!("--platform snp --firmware {DEBIAN} --direct"));
    assert!(debian.failed("ATT-391").err.contains("kernel"));

    let direct = format!("--platform snp --firmware {AMD_SEV} --direct --vcpus 4");
    let found = bundle.predict(&format!("{direct} --json")).good().json();
    assert_eq!(found["measurement"], json!(launched(bundle, 4)));
    let inputs = found["input"].as_array().unwrap();
    assert!(
        inputs.contains(&json!(format!("kernel = sha256:{}", sha256(&bundle.uki)))),
        "{inputs:?}"
    );
    let observed = launched(bundle, 8);
    let run = bundle.predict(&format!("{direct} --observed {observed}")).good();
    run.says("explained: the host gave 8 vCPUs, predicted are 4\n");
    let run = bundle.predict(&format!("{direct} --observed {}", "00".repeat(48))).good();
    run.says("explained: firmware, kernel, initrd or command line changed, or two inputs at once");
    let same = bundle.predict(&format!("{direct} --observed {}", launched(bundle, 4))).good();
    same.says("explained: the launch digest is the predicted one\n");
}

/// The bundle's digest, by the library.
pub fn launched(bundle: &Bundle, vcpus: u32) -> String {
    let inputs = LaunchInputs {
        firmware: &read(AMD_SEV),
        kernel: Some(Kernel { image: &bundle.uki, initrd: &[], command_line: "" }),
        vcpus,
        vcpu_type: VcpuType::from_model("EPYC-v4").unwrap(),
        guest_features: 1,
        vmm: Vmm::Qemu,
    };
    launch(&inputs).unwrap().measurement.to_string()
}

/// Firmware that says itself what a guest starts with; the digest is sev-snp-measure's over the
/// same pages.
fn igvm(bundle: &Bundle) {
    const DIGEST: &str = "0eda219f881b0edeb4c74707ad9162df0eac1958127c045ca73c9cf5c1846f4bccdc3b313c1d4a8635b62d6343816119";
    let mut pages = igvm_file::directives();
    let igvm = write(
        bundle.folder.join("firmware.igvm"),
        igvm_file::file(pages.clone(), IgvmPlatformType::SEV_SNP),
    );
    pages.remove(2);
    let other =
        write(bundle.folder.join("other.igvm"), igvm_file::file(pages, IgvmPlatformType::SEV_SNP));
    let launch = format!("--platform snp --firmware {igvm}");
    bundle
        .predict(&launch)
        .good()
        .says(&format!("measurement: {DIGEST}\n"))
        .says("input: firmware = sha256:");
    let found = bundle.predict(&format!("--platform snp --firmware {other} --json")).good().json();
    let observed = found["measurement"].as_str().unwrap();
    let run =
        bundle.predict(&format!("{launch} --observed {observed} --also-firmware {other}")).good();
    run.says("explained: the host started the firmware ")
        .says("other.igvm, newer or older than the one predicted\n");
    bundle
        .predict(&format!("{launch} --observed {observed}"))
        .good()
        .says("explained: another IGVM file");
    bundle
        .predict(&format!("{launch} --observed {DIGEST}"))
        .good()
        .says("explained: the launch digest is the pred");
    for more in ["--direct", "--vcpus 2", "--vmm ec2"] {
        bundle.predict(&format!("{launch} {more}")).failed("CLI-028");
    }
    let damaged = write(bundle.folder.join("damaged.igvm"), b"IGVM and nothing after it");
    bundle.predict(&format!("--platform snp --firmware {damaged}")).failed("ATT-393");
}

fn tdx(bundle: &Bundle) {
    let direct = format!("--platform tdx --firmware {DEBIAN} --direct --memory 4096");
    let found = bundle.predict(&format!("{direct} --json")).good().json();
    if sha256(&fs::read(DEBIAN).unwrap()).to_string()
        == "7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773"
    {
        // td-shim's tool on this image.
        let known = "4c7206f0f483c524f12c366c711e9049030a8d47c471ee5aa9c4999a08de4057fb887fed0744d5631a212967fb231c47";
        assert_eq!(found["mrtd"], known);
    }
    // Nobody can guess the host's ACPI tables.
    assert!(found["rtmr"].get("0").is_none(), "{found:#}");
    assert!(found["not_predicted"][0].as_str().unwrap().contains("RTMR0: "), "{found:#}");
    assert_eq!(found["rtmr"]["3"], "00".repeat(48));
    assert!(found["rtmr"]["1"].is_string() && found["rtmr"]["2"].is_string(), "{found:#}");
    // Whoever has such a guest knows them, and then every register is known.
    let acpi = bundle.folder.join("acpi");
    fs::create_dir(&acpi).unwrap();
    bundle.predict(&format!("{direct} --acpi {}", acpi.display())).failed("FILE-001");
    for name in ["table-loader", "rsdp", "tables"] {
        fs::write(acpi.join(name), name).unwrap();
    }
    let with_acpi = format!("{direct} --acpi {}", acpi.display());
    let whole = bundle.predict(&format!("{with_acpi} --json")).good().json();
    assert_eq!(whole["not_predicted"], json!([]));
    assert!(whole["rtmr"]["0"].is_string());
    assert_eq!((&whole["rtmr"]["1"], &whole["mrtd"]), (&found["rtmr"]["1"], &found["mrtd"]));
    fs::write(acpi.join("tables"), "of another host").unwrap();
    assert_ne!(
        bundle.predict(&format!("{with_acpi} --json")).good().json()["rtmr"]["0"],
        whole["rtmr"]["0"]
    );
    let sections = bundle.predict(&format!("{with_acpi} --pages section --json")).good().json();
    assert_ne!(sections["mrtd"], found["mrtd"]);
    let disk = bundle
        .predict(&format!("--platform tdx --firmware {DEBIAN} --memory 4096 --json"))
        .good()
        .json();
    assert_ne!(disk["rtmr"]["1"], found["rtmr"]["1"]);

    let set = bundle.folder.join("tdx.json").display().to_string();
    bundle.predict(&format!("{direct} --set {set}")).failed("CLI-025");
    bundle.predict(&format!("{direct} --set {set} --rtmr 0=12")).failed("CLI-026");
    bundle.predict(&format!("{direct} --set {set} --rtmr 4={}", "ab".repeat(48))).failed("CLI-026");
    assert!(!fs::exists(&set).unwrap(), "a failure writes nothing");
    bundle.predict(&format!("{direct} --set {set} --rtmr 0={}", "ab".repeat(48))).good();
    let written = ReferenceSet::parse(&fs::read(&set).unwrap()).unwrap();
    assert_eq!(written.tdx[0].rtmr0.to_string(), "ab".repeat(48));
    assert_eq!(json!(written.tdx[0].rtmr2), found["rtmr"]["2"]);
    bundle.predict("--platform tdx --firmware /usr/share/OVMF/OVMF_CODE_4M.fd").failed("ATT-408");
}

/// One set for several platforms, of which each has one entry.
fn sets(bundle: &Bundle) {
    let set = bundle.folder.join("set.json").display().to_string();
    let snp = format!("--platform snp --firmware {AMD_SEV} --direct --set {set}");
    // A digest that any firmware may have made is not a reference.
    assert!(bundle.predict(&snp).failed("CLI-032").err.contains("docs/tcb.md"));
    bundle
        .predict(&format!("{snp} --min-tcb milan=4.0.24.219 --min-tcb milan=4.0.24.68"))
        .failed("CLI-000");
    assert!(!fs::exists(&set).unwrap(), "a failure writes nothing");
    let snp = snp + " --min-tcb milan-b1=4.0.24.219 --min-tcb siena=7.0.14.25";
    for more in [" --vcpus 4", " --vcpus 8", " --vcpus 8 --guest-features 0x21", " --vcpus 4"] {
        bundle.predict(&(snp.clone() + more)).good();
    }
    bundle.predict(&format!("--platform tpm --set {set}")).good();
    let written = ReferenceSet::parse(&fs::read(&set).unwrap()).unwrap();
    assert_eq!(written.tpm, Some(bundle.reference.tpm.clone()));
    let digests: Vec<_> =
        written.snp.iter().map(|platform| platform.measurement.to_string()).collect();
    assert_eq!(
        digests.len(),
        3,
        "{:?}",
        written.snp.iter().map(|platform| &platform.platform).collect::<Vec<_>>()
    );
    assert!(digests.contains(&launched(bundle, 4)) && digests.contains(&launched(bundle, 8)));
    let named: Value = serde_json::from_slice(&fs::read(&set).unwrap()).unwrap();
    assert_eq!(named["image_id"], "000102030405060708090a0b0c0d0e0f");
    let siena = json!({ "bootloader": 7, "tee": 0, "snp": 14, "microcode": 25 });
    assert_eq!(named["snp"][0]["tcb_floor"]["Siena"], siena);
    assert_eq!(named["snp"][0]["tcb_floor"]["Milan-B1"]["microcode"], 219);
}
