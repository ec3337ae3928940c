//! `flare-cvm predict`: what a machine will measure, from the bundle alone.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use cvm_attest::{
    Reference,
    predict::{
        snp::{self, Kernel, LaunchInputs, VcpuType, Vmm},
        tdx::{self, Boot, PageOrder, TdxInputs},
    },
};
use cvm_base::{Bytes, read_bounded};
use cvm_image::boot::{UKI_PATH, disk};
use cvm_layout::esp;
use serde_json::{Value, json};

use super::{problem::Problem, progress::line};

/// More than any firmware or reference file has, in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// More than any UKI has, in bytes.
const MAX_UKI: u64 = 512 * 1024 * 1024;

/// The platforms that a prediction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Platform {
    /// TPM PCRs, as the build predicted them.
    Tpm,
    /// SEV-SNP's launch digest.
    Snp,
    /// TDX's MRTD and RTMRs.
    Tdx,
}

/// Who starts the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Launcher {
    Qemu,
    Ec2,
    Gce,
}

/// Predict what a platform will measure of a bundle, with every input named.
///
/// tpm prints the PCRs that the build predicted. snp computes the launch digest of --firmware, with the bundle's UKI
/// as its kernel if --direct says so (the firmware must have a kernel-hashes table: OVMF's AmdSev build). tdx
/// computes MRTD and the RTMRs, and says of each register that it cannot predict why.
///
/// With --observed, an SNP measurement that differs is explained: which input, changed alone, gives it.
#[derive(Args)]
pub struct Predict {
    /// The bundle's folder
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// What measures
    #[arg(long, value_enum)]
    platform: Platform,
    /// The firmware that the host starts, code and variables in one file
    #[arg(long, value_name = "FILE")]
    firmware: Option<PathBuf>,
    /// snp: the UKI is started directly (QEMU's -kernel with kernel-hashes=on)
    #[arg(long)]
    direct: bool,
    /// snp: how many vCPUs
    #[arg(long, default_value_t = 1)]
    vcpus: u32,
    /// snp: QEMU's name of their type
    #[arg(long, default_value = "EPYC-v4", value_name = "MODEL")]
    vcpu_type: String,
    /// snp: SEV_FEATURES of the vCPUs, in hex
    #[arg(long, default_value = "1", value_name = "HEX")]
    guest_features: String,
    /// snp: who starts the guest
    #[arg(long, value_enum, default_value_t = Launcher::Qemu)]
    vmm: Launcher,
    /// tdx: the TD's memory in MiB
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,
    /// snp: a measurement that was seen, to be explained
    #[arg(long, value_name = "HEX")]
    observed: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Predicts and prints.
pub fn run(args: Predict) -> Result<()> {
    let prediction = match args.platform {
        Platform::Tpm => tpm(&args)?,
        Platform::Snp => snp(&args)?,
        Platform::Tdx => tdx(&args)?,
    };
    if args.json {
        line(&serde_json::to_string_pretty(&prediction)?);
        return Ok(());
    }
    for (name, value) in prediction.as_object().into_iter().flatten() {
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(member, value)| line(&format!("{name} {member}: {}", text(value))))
            }
            Value::Array(items) => items.iter().for_each(|item| line(&format!("{name}: {}", text(item)))),
            value => line(&format!("{name}: {}", text(value))),
        }
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn tpm(args: &Predict) -> Result<Value> {
    let reference = Reference::parse(&read_bounded(&args.bundle.join("reference.json"), MAX_FILE)?)?;
    let events = reference.tpm.explain.iter().map(|e| format!("PCR {} {} {}", e.pcr, e.digest, e.event));
    Ok(json!({ "pcr": reference.tpm.pcrs, "event": events.collect::<Vec<_>>() }))
}

fn firmware(args: &Predict) -> Result<Vec<u8>> {
    match &args.firmware {
        Some(path) => Ok(read_bounded(path, MAX_FILE)?),
        None => Problem::result(
            "CLI-022",
            "the host's firmware decides what is measured, and none was given",
            "give the file that the host starts with --firmware",
        ),
    }
}

/// The bundle's UKI, out of p2.
fn uki(args: &Predict) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let image = folder.path().join("p2");
    disk::extract(&args.bundle.join("disk.qcow2"), 2, &image)?;
    let bytes = fs::read(&image).context("cannot read p2's copy")?;
    esp::read_file(&bytes, UKI_PATH, MAX_UKI)?.with_context(|| format!("p2 has no {UKI_PATH}"))
}

fn snp(args: &Predict) -> Result<Value> {
    let (firmware, uki) = (firmware(args)?, if args.direct { Some(uki(args)?) } else { None });
    let Some(vcpu_type) = VcpuType::from_model(&args.vcpu_type) else {
        let known: Vec<_> = VcpuType::models().map(|model| model.to_string()).collect();
        return Problem::result(
            "CLI-023",
            format!("{:?} is no vCPU type that is known", args.vcpu_type),
            format!("one of {}", known.join(", ")),
        );
    };
    let features = u64::from_str_radix(args.guest_features.trim_start_matches("0x"), 16)
        .with_context(|| format!("{:?} is no number in hex", args.guest_features))?;
    let inputs = LaunchInputs {
        firmware: &firmware,
        kernel: uki.as_deref().map(|image| Kernel { image, initrd: &[], command_line: "" }),
        vcpus: args.vcpus,
        vcpu_type,
        guest_features: features,
        vmm: match args.vmm {
            Launcher::Qemu => Vmm::Qemu,
            Launcher::Ec2 => Vmm::Ec2,
            Launcher::Gce => Vmm::Gce,
        },
    };
    let prediction = snp::launch(&inputs)?;
    let inputs_named: Vec<_> =
        prediction.inputs.iter().map(|input| format!("{} = {}", input.name, input.value)).collect();
    let mut found = json!({ "measurement": prediction.measurement, "input": inputs_named });
    if let Some(observed) = &args.observed {
        let observed: Bytes<48> = observed.parse().context("--observed is no SNP measurement: 96 hex digits")?;
        found["explained"] = json!(snp::explain(&inputs, &observed)?.to_string());
    }
    Ok(found)
}

fn tdx(args: &Predict) -> Result<Value> {
    let (firmware, uki) = (firmware(args)?, uki(args)?);
    let prediction = tdx::tdx(&TdxInputs {
        firmware: &firmware,
        pages: PageOrder::PageByPage,
        memory: args.memory.map(|mib| mib << 20),
        acpi: None,
        boot: Boot::Direct { kernel: &uki, command_line: "", initrd: &[] },
    })?;
    let rtmrs = (0..).zip(&prediction.rtmrs).filter_map(|(n, value)| Some((format!("{n}"), json!(value.as_ref()?))));
    let not_predicted = prediction.not_predicted.iter().map(|n| format!("RTMR{}: {}", n.rtmr, n.reason));
    Ok(json!({
        "mrtd": prediction.mrtd,
        "rtmr": Value::Object(rtmrs.collect()),
        "not_predicted": not_predicted.collect::<Vec<_>>(),
    }))
}
