//! Launch digests against published ones and, where it is installed, against `sev-snp-measure`.

use std::{fs, path::PathBuf, process::Command};

use cvm_base::Explain;
use cvm_predict::snp::{
    Kernel, LaunchDifference, LaunchError, LaunchInputs, LaunchPrediction, VcpuType, Vmm, explain,
    launch,
};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors/evidence/measurement")
        .join(name)
}

fn firmware(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap()
}

fn inputs(firmware: &[u8]) -> LaunchInputs<'_> {
    LaunchInputs {
        firmware,
        kernel: None,
        vcpus: 1,
        vcpu_type: VcpuType::from_model("EPYC-v4").unwrap(),
        guest_features: 1,
        vmm: Vmm::Qemu,
    }
}

const EMPTY: Kernel<'_> = Kernel { image: b"", initrd: b"", command_line: "" };
const CONSOLE: Kernel<'_> = Kernel { command_line: "console=ttyS0 loglevel=7", ..EMPTY };

/// From sev-snp-measure 8f2b337e tests/test_guest.py; the QEMU ones are also in the sev crate's
/// tests.
#[test]
fn published_digests() {
    let (amd_sev, x64) = (firmware("ovmf_AmdSev_suffix.bin"), firmware("ovmf_OvmfX64_suffix.bin"));
    let amd = inputs(&amd_sev);
    for (inputs, digest) in [
        (
            amd,
            "19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6\
             013b26869a5fc6ecabe033c48dd6f6db5d6d76e7c5df632d",
        ),
        (
            LaunchInputs { guest_features: 0x21, ..amd },
            "e1e1ca029dd7973ab9513295be68198472dcd4fc834bd9af\
             9b63f6e8a1674dbf281a9278a4a2ebe0eed9f22adbcd0e2b",
        ),
        (
            LaunchInputs { kernel: Some(EMPTY), vcpus: 4, ..amd },
            "5061fffb019493a903613d56d54b94912a1a2f9e4502385f\
             5c194616753720a92441310ba6c4933de877c36e23046ad5",
        ),
        (
            LaunchInputs { kernel: Some(EMPTY), vcpus: 4, guest_features: 0x21, ..amd },
            "4953b1fb416fa874980e8442b3706d345926d5f38879134e\
             00813c5d7abcbe78eafe7b422907be0b4698e2414a631942",
        ),
        (
            LaunchInputs { kernel: Some(CONSOLE), ..amd },
            "6d287813eb5222d770f75005c664e34c204f385ce832cc2c\
             e7d0d6f354454362f390ef83a92046c042e706363b4b08fa",
        ),
        (
            LaunchInputs { kernel: Some(CONSOLE), guest_features: 0x21, ..amd },
            "803f691094946e42068aaa3a8f9e26a5c89f36f7b73ecfb2\
             8c653360fe4b3aba7e534442e7e1e17895dfe778d0228977",
        ),
        (
            LaunchInputs { kernel: Some(EMPTY), vmm: Vmm::Ec2, ..amd },
            "0883bd0eeb716e65b7b977a321c278d1e51b33b5c655fab9\
             85443bbcc65c086b9c15e8a0bd8811050dec7e24964e5056",
        ),
        (
            LaunchInputs { kernel: Some(EMPTY), vmm: Vmm::Ec2, guest_features: 0x21, ..amd },
            "0ce9ccc06bab55eebe8abc234f3df6514883977a68a591b7\
             1052498ab52b2f1aa415db338033946ef93aa8278c0d67fb",
        ),
        (
            inputs(&x64),
            "da0296de8193586a5512078dcd719eccecbd87e2b825ad41\
             48c44f665dc87df21e5b49e21523a9ad993afdb6a30b4005",
        ),
        (
            LaunchInputs { guest_features: 0x21, ..inputs(&x64) },
            "28797ae0afaba4005a81e629acebfb59e6687949d6be4400\
             7cd5506823b0dd66f146aaae26ff291eed7b493d8a64c385",
        ),
    ] {
        assert_eq!(
            launch(&inputs).unwrap().measurement.to_string(),
            digest,
            "{:?}",
            launch(&inputs).unwrap().inputs
        );
    }
}

/// PROVENANCE: both tools agree on Debian 12's OVMF 2022.11-6+deb12u2.
#[test]
fn debians_ovmf() {
    let Ok(ovmf) = fs::read("/usr/share/ovmf/OVMF.fd") else {
        return println!("skipped: ovmf is not installed");
    };
    if cvm_base::sha256(&ovmf).to_string() != DEBIAN_OVMF {
        return println!("skipped: another ovmf is installed");
    }
    let predicted = launch(&inputs(&ovmf)).unwrap().measurement.to_string();
    assert_eq!(
        predicted,
        "11570979c77a0adb515761a702527c8b9e11554e73055262\
         1d950988613a3a75c6ff1703f540bd22a9beede8fe7a97e3"
    );
    let kernel = LaunchInputs { kernel: Some(CONSOLE), ..inputs(&ovmf) };
    assert_eq!(launch(&kernel), Err(LaunchError::KernelHashes));
}

const DEBIAN_OVMF: &str = "7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773";

#[test]
fn every_input_is_named() {
    let image = firmware("ovmf_AmdSev_suffix.bin");
    let predicted =
        launch(&LaunchInputs { kernel: Some(CONSOLE), vcpus: 2, ..inputs(&image) }).unwrap();
    let named: Vec<_> =
        predicted.inputs.iter().map(|input| (input.name.as_str(), input.value.as_str())).collect();
    let empty = format!("sha256:{}", cvm_base::sha256(b""));
    assert_eq!(
        named,
        [
            ("firmware", format!("sha256:{}", cvm_base::sha256(&image)).as_str()),
            ("kernel", &empty),
            ("initrd", &empty),
            ("command_line", "console=ttyS0 loglevel=7"),
            ("vcpus", "2"),
            ("vcpu_type", "EPYC-v4 (CPUID 0x00800f12)"),
            ("guest_features", "0x1"),
            ("vmm", "qemu"),
        ]
    );
    let json = serde_json::to_string(&predicted).unwrap();
    assert_eq!(serde_json::from_str::<LaunchPrediction>(&json).unwrap(), predicted);
}

#[test]
fn a_kernel_needs_a_firmware_that_measures_it() {
    let image = firmware("ovmf_OvmfX64_suffix.bin");
    let refused = launch(&LaunchInputs { kernel: Some(EMPTY), ..inputs(&image) }).unwrap_err();
    assert_eq!((refused.code(), &refused), ("ATT-391", &LaunchError::KernelHashes));
    for vcpus in [0, 1025, u32::MAX] {
        assert_eq!(
            launch(&LaunchInputs { vcpus, ..inputs(&image) }),
            Err(LaunchError::Vcpus { found: vcpus })
        );
    }
}

#[test]
fn a_mismatch_names_the_one_input_that_changed() {
    let image = firmware("ovmf_AmdSev_suffix.bin");
    let kernel = Kernel { image: b"kernel", initrd: b"initrd", command_line: "quiet" };
    let predicted = LaunchInputs { kernel: Some(kernel), vcpus: 2, ..inputs(&image) };
    let genoa = VcpuType::from_model("EPYC-Genoa").unwrap();
    for (launched, says) in [
        (predicted, "the launch digest is the predicted one"),
        (LaunchInputs { vcpus: 1, ..predicted }, "the host gave 1 vCPUs, predicted are 2"),
        (LaunchInputs { vcpus: 64, ..predicted }, "the host gave 64 vCPUs, predicted are 2"),
        (
            LaunchInputs { vcpu_type: genoa, ..predicted },
            "the host gave another vCPU type: EPYC-Genoa (CPUID 0x00a10f10), predicted is EPYC-v4 \
             (CPUID 0x00800f12)",
        ),
        (
            LaunchInputs { guest_features: 0x21, ..predicted },
            "the host's kernel set other guest features: 0x21, predicted are 0x1",
        ),
        (
            LaunchInputs { vmm: Vmm::Ec2, ..predicted },
            "the guest was launched with another vmm: ec2, not qemu",
        ),
        (
            LaunchInputs { kernel: None, ..predicted },
            "the guest was launched with another kernel: none, not the predicted one",
        ),
        (
            LaunchInputs { kernel: Some(Kernel { initrd: b"", ..kernel }), ..predicted },
            "the guest was launched with another initrd: none, not the predicted one",
        ),
        (
            LaunchInputs { kernel: Some(Kernel { command_line: "", ..kernel }), ..predicted },
            "the guest was launched with another command_line: none, not the predicted one",
        ),
    ] {
        let observed = launch(&launched).unwrap().measurement;
        assert_eq!(explain(&predicted, &observed).unwrap().to_string(), says);
    }
    let other_kernel =
        LaunchInputs { kernel: Some(Kernel { image: b"Kernel", ..kernel }), ..predicted };
    let two = LaunchInputs { vcpus: 3, guest_features: 0x21, ..predicted };
    for launched in [other_kernel, two, LaunchInputs { vcpus: 65, ..predicted }] {
        let observed = launch(&launched).unwrap().measurement;
        assert_eq!(explain(&predicted, &observed), Ok(LaunchDifference::Unknown));
    }
}

#[test]
fn damaged_firmware_is_refused_or_measured_but_never_a_panic() {
    let image = firmware("ovmf_AmdSev_suffix.bin");
    let measure = |image: &[u8]| launch(&LaunchInputs { kernel: Some(EMPTY), ..inputs(image) });
    for length in [0, 1, 31, 32, 49, 50, 4095, 4097, 8191] {
        let mut image = image.clone();
        image.resize(length, 0);
        assert_eq!(measure(&image).unwrap_err().code(), "ATT-390", "{length}");
    }
    assert_eq!(measure(&vec![0; 4096]).unwrap_err().code(), "ATT-390");
    let original = measure(&image).unwrap().measurement;
    // Where the metadata and the table of GUIDs are: every byte of theirs, with values that make
    // lengths absurd.
    let metadata = image.windows(4).position(|bytes| bytes == b"ASEV").unwrap();
    let table = image.len() - 300..image.len() - 32;
    for at in (metadata..metadata + 112).chain(table) {
        for value in [0x00, 0xff] {
            let mut damaged = image.clone();
            if std::mem::replace(&mut damaged[at], value) == value {
                continue;
            }
            if let Ok(predicted) = measure(&damaged) {
                assert_ne!(predicted.measurement, original, "{at}");
            }
        }
    }
}

/// `FLARE_CVM_SEV_SNP_MEASURE=/path/to/sev-snp-measure`: IBM's and VirTEE's tool, from PyPI.
#[test]
fn the_python_tool_agrees() {
    let Ok(tool) = std::env::var("FLARE_CVM_SEV_SNP_MEASURE") else {
        return println!("skipped: FLARE_CVM_SEV_SNP_MEASURE names no tool");
    };
    let folder = tempfile::tempdir().unwrap();
    let (kernel_file, initrd_file) = (folder.path().join("kernel"), folder.path().join("initrd"));
    let kernel =
        Kernel { image: b"a kernel", initrd: b"an initrd", command_line: " root=/dev/x  quiet " };
    fs::write(&kernel_file, kernel.image).unwrap();
    fs::write(&initrd_file, kernel.initrd).unwrap();
    let mut files =
        vec![(path("ovmf_AmdSev_suffix.bin"), true), (path("ovmf_OvmfX64_suffix.bin"), false)];
    let debian = PathBuf::from("/usr/share/ovmf/OVMF.fd");
    files.extend(debian.exists().then_some((debian, false)));
    for (file, measures_kernels) in files {
        let image = fs::read(&file).unwrap();
        for (vmm, name) in [(Vmm::Qemu, "QEMU"), (Vmm::Ec2, "ec2"), (Vmm::Gce, "gce")] {
            for (vcpus, model, features) in
                [(1, "EPYC-v4", 1), (3, "EPYC-Milan-v2", 0x21), (16, "EPYC-Turin", 0x221)]
            {
                for kernel in [None, Some(kernel)]
                    .into_iter()
                    .filter(|kernel| kernel.is_none() || measures_kernels)
                {
                    let mut command = Command::new(&tool);
                    command.args(["--mode", "snp", "--vmm-type", name, "--vcpu-type", model]);
                    command.args([
                        "--vcpus",
                        &vcpus.to_string(),
                        "--guest-features",
                        &format!("{features:#x}"),
                    ]);
                    command.arg("--ovmf").arg(&file);
                    if let Some(kernel) = kernel {
                        command.arg("--kernel").arg(&kernel_file).arg("--initrd").arg(&initrd_file);
                        command.args(["--append", kernel.command_line]);
                    }
                    let output = command.output().unwrap();
                    let vcpu_type = VcpuType::from_model(model).unwrap();
                    let inputs = LaunchInputs {
                        firmware: &image,
                        kernel,
                        vcpus,
                        vcpu_type,
                        guest_features: features,
                        vmm,
                    };
                    let predicted = launch(&inputs).unwrap().measurement.to_string();
                    assert_eq!(
                        predicted,
                        String::from_utf8(output.stdout).unwrap().trim(),
                        "{command:?}"
                    );
                }
            }
        }
    }
}
