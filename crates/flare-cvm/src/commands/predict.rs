//! `flare-cvm predict`: what a machine will measure, from the bundle alone.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use cvm_base::{Bytes, read_bounded, read_text, write_atomic};
use cvm_evidence::{
    Reference, ReferenceSet,
    platform::{SnpReference, SnpVariant, TdxReference},
    rtmr::sha384,
    tcb::TcbFloor,
};
use cvm_image::boot::{LOADER_PATH, UKI_PATH, disk, secure_boot::Databases};
use cvm_layout::esp;
use cvm_predict::{
    Inputs,
    snp::{self, Kernel, LaunchInputs, VcpuType, Vmm},
    tdx::{self, Acpi, Boot, PageOrder, TdxInputs},
};
use serde_json::{Value, json};

use super::{problem::Problem, progress::line};

/// More than any firmware or reference file has, in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// More than any UKI has, in bytes.
const MAX_UKI: u64 = 512 * 1024 * 1024;

/// The platforms that a prediction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Platform {
    /// TPM PCRs.
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

/// How a host adds firmware's pages to a TD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Pages {
    /// Each page is added, then measured.
    Page,
    /// A section's pages are added, then measured.
    Section,
}

/// Predict what a platform will measure of a bundle, with every input named.
///
/// tpm predicts the PCRs from loader, UKI and Secure Boot variables, and compares with
/// reference.json. snp computes the launch digest of --firmware, with the bundle's UKI as its
/// kernel if --direct says so (the firmware must have a kernel-hashes table: OVMF's AmdSev build).
/// Firmware in an IGVM file says itself what a guest starts with, one vCPU and no kernel. tdx
/// computes MRTD and the RTMRs, and says of each register that it cannot predict why: with
/// --direct, --memory and --acpi it predicts all.
///
/// With --observed, an SNP measurement that differs is explained: which input, changed alone, gives
/// it.
#[derive(Args)]
pub struct Predict {
    /// The bundle's folder
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// What measures
    #[arg(long, value_enum)]
    platform: Platform,
    /// The firmware that the host starts: code and variables in one file; for snp also an IGVM file
    #[arg(long, value_name = "FILE")]
    firmware: Option<PathBuf>,
    /// snp, tdx: the UKI is started directly (QEMU's -kernel; snp: with kernel-hashes=on), not from
    /// the disk
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
    /// tdx: the host's ACPI tables, as files table-loader, rsdp and tables. A guest of the same
    /// configuration has them in /sys/firmware/qemu_fw_cfg/by_name/etc/ (table-loader/raw,
    /// acpi/rsdp/raw, acpi/tables/raw)
    #[arg(long, value_name = "FOLDER")]
    acpi: Option<PathBuf>,
    /// tdx: how the host adds firmware's pages: page by page since Linux 6.16
    #[arg(long, value_enum, default_value_t = Pages::Page)]
    pages: Pages,
    /// tdx: a register that hangs on the host's devices, from whoever knows them: N=HEX; give it
    /// once per register
    #[arg(long, value_name = "N=HEX")]
    rtmr: Vec<String>,
    /// snp: other firmware that a host may start; a digest is explained by it
    #[arg(long, value_name = "FILE")]
    also_firmware: Vec<PathBuf>,
    /// snp, with --direct: another command line that a host may give
    #[arg(long, value_name = "TEXT")]
    also_command_line: Vec<String>,
    /// snp, with --set: the least firmware that is accepted of a product and stepping, as
    /// milan-b1=BOOTLOADER.TEE.SNP.MICROCODE (turin-c1=FMC.BOOTLOADER.TEE.SNP.MICROCODE); give it
    /// once per kind of machine. docs/tcb.md says where the numbers stand
    #[arg(long, value_name = "CHIP=VERSIONS")]
    min_tcb: Vec<TcbFloor>,
    /// Add the prediction to this reference set, for `policy new` and `attest verify --explain`
    #[arg(long, value_name = "FILE")]
    set: Option<PathBuf>,
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
            Value::Object(members) => members
                .iter()
                .for_each(|(member, value)| line(&format!("{name} {member}: {}", text(value)))),
            Value::Array(items) => {
                items.iter().for_each(|item| line(&format!("{name}: {}", text(item))))
            }
            value => line(&format!("{name}: {}", text(value))),
        }
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// From the bundle's files alone; `reference.json` must say the same.
fn tpm(args: &Predict) -> Result<Value> {
    let files = Files::read(args)?;
    let predicted = cvm_predict::tpm(&files.inputs())?;
    let reference = reference(args)?;
    let differs =
        reference.tpm.pcrs.iter().filter(|(pcr, value)| predicted.pcrs.get(pcr) != Some(value));
    let differs: Vec<String> = differs.map(|(pcr, _)| pcr.to_string()).collect();
    if !differs.is_empty() {
        return Problem::result(
            "CLI-024",
            format!(
                "reference.json predicts other values than the bundle's files, in PCR {}",
                differs.join(", ")
            ),
            "the bundle was changed after it was made: provision it again, and do not enrol it",
        );
    }
    add_to_set(args, |set| {
        set.tpm = Some(predicted.clone());
        Ok(())
    })?;
    let events =
        predicted.explain.iter().map(|e| format!("PCR {} {} {}", e.pcr, e.digest, e.event));
    Ok(json!({
        "pcr": predicted.pcrs,
        "event": events.collect::<Vec<_>>(),
        "input": files.named(),
        "reference.json": "predicts the same",
    }))
}

fn reference(args: &Predict) -> Result<Reference> {
    Ok(Reference::parse(&read_bounded(&args.bundle.join("reference.json"), MAX_FILE)?)?)
}

/// What a boot of the bundle's disk measures.
struct Files {
    loader: Vec<u8>,
    uki: Vec<u8>,
    databases: Databases,
    gpt: Vec<u8>,
}

impl Files {
    fn read(args: &Predict) -> Result<Self> {
        let variables = read_bounded(&args.bundle.join("OVMF_VARS.fd"), MAX_FILE)?;
        Ok(Self {
            loader: from_partition(args, 1, LOADER_PATH)?,
            uki: from_partition(args, 2, UKI_PATH)?,
            databases: Databases::read(&variables)?,
            gpt: disk::table(&args.bundle.join("disk.qcow2"))?,
        })
    }

    fn inputs(&self) -> Inputs<'_> {
        let Databases { pk, kek, db, dbx, db_authority } = &self.databases;
        Inputs { loader: &self.loader, uki: &self.uki, pk, kek, db, dbx, authority: db_authority }
    }

    /// Every input with its SHA-256.
    fn named(&self) -> Vec<String> {
        let Inputs { loader, uki, pk, kek, db, dbx, .. } = self.inputs();
        let named = [
            ("p1's loader", loader),
            ("p2's UKI", uki),
            ("PK", pk),
            ("KEK", kek),
            ("db", db),
            ("dbx", dbx),
        ];
        named.map(|(name, bytes)| format!("{name} = sha256 {}", cvm_base::sha256(bytes))).into()
    }
}

/// A file of one of the bundle's FAT partitions.
fn from_partition(args: &Predict, number: u32, path: &str) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let image = folder.path().join("partition");
    disk::extract(&args.bundle.join("disk.qcow2"), number, &image)?;
    let bytes = fs::read(&image).context("cannot read the partition's copy")?;
    esp::read_file(&bytes, path, MAX_UKI)?.with_context(|| format!("p{number} has no {path}"))
}

/// Adds the prediction to the reference set of `--set`, which begins as the bundle's
/// reference.json.
fn add_to_set(args: &Predict, add: impl FnOnce(&mut ReferenceSet) -> Result<()>) -> Result<()> {
    let Some(path) = &args.set else { return Ok(()) };
    let mut set = match path.exists() {
        true => ReferenceSet::parse(&read_text(path, MAX_FILE)?)?,
        false => ReferenceSet::from(&reference(args)?),
    };
    add(&mut set)?;
    write_atomic(path, &set.to_bytes(), 0o644)?;
    Ok(())
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

fn snp(args: &Predict) -> Result<Value> {
    let firmware = firmware(args)?;
    if firmware.starts_with(b"IGVM") {
        return snp_igvm(args, &firmware);
    }
    let uki = if args.direct { Some(from_partition(args, 2, UKI_PATH)?) } else { None };
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
    let mut changes = Vec::new();
    for path in &args.also_firmware {
        let firmware = read_bounded(path, MAX_FILE)?;
        let change = format!(
            "the host started the firmware {}, newer or older than the one predicted",
            path.display()
        );
        changes.push((
            change,
            snp::launch(&LaunchInputs { firmware: &firmware, ..inputs })?.measurement,
        ));
    }
    for command_line in &args.also_command_line {
        let Some(kernel) = inputs.kernel else { continue };
        let kernel = Some(Kernel { command_line, ..kernel });
        let change = format!("the command line changed: the host gave {command_line:?}");
        changes.push((change, snp::launch(&LaunchInputs { kernel, ..inputs })?.measurement));
    }
    add_to_set(args, |set| {
        let tcb_floor = floor(args)?;
        let variants = snp::variants(&inputs)?
            .into_iter()
            .map(|(change, digest)| (change.to_string(), digest));
        let variants = variants.chain(changes.iter().cloned());
        let variants =
            variants.map(|(change, measurement)| SnpVariant { change, measurement }).collect();
        let started = if args.direct { "direct" } else { "disk" };
        let platform = format!(
            "{:?}, {}, {} vCPUs, features {features:#x}, {started}",
            args.vmm, args.vcpu_type, args.vcpus
        );
        add_snp(
            set,
            SnpReference { platform, measurement: prediction.measurement, tcb_floor, variants },
        );
        Ok(())
    })?;
    let mut found = json!({ "measurement": prediction.measurement, "input": inputs_named });
    if let Some(observed) = observed(args)? {
        let known = changes.iter().find(|(_, measurement)| *measurement == observed);
        found["explained"] = match known {
            Some((change, _)) => json!(change),
            None => json!(snp::explain(&inputs, &observed)?.to_string()),
        };
    }
    Ok(found)
}

/// Firmware that states everything itself.
fn snp_igvm(args: &Predict, firmware: &[u8]) -> Result<Value> {
    if args.direct || args.vcpus != 1 || args.vmm != Launcher::Qemu {
        return Problem::result(
            "CLI-028",
            "an IGVM file says itself what a guest starts with: no other kernel, one vCPU, under \
             QEMU",
            "leave --direct, --vcpus and --vmm out, or give OVMF",
        );
    }
    let prediction = snp::launch_igvm(firmware)?;
    let mut variants = Vec::new();
    for path in &args.also_firmware {
        let change = format!(
            "the host started the firmware {}, newer or older than the one predicted",
            path.display()
        );
        let measurement = snp::launch_igvm(&read_bounded(path, MAX_FILE)?)?.measurement;
        variants.push(SnpVariant { change, measurement });
    }
    let inputs: Vec<_> =
        prediction.inputs.iter().map(|input| format!("{} = {}", input.name, input.value)).collect();
    let mut found = json!({ "measurement": prediction.measurement, "input": inputs });
    if let Some(observed) = observed(args)? {
        let known = variants.iter().find(|variant| variant.measurement == observed);
        found["explained"] = match known {
            _ if observed == prediction.measurement => {
                json!("the launch digest is the predicted one")
            }
            Some(variant) => json!(variant.change),
            None => json!("another IGVM file: nothing else goes into this launch digest"),
        };
    }
    add_to_set(args, |set| {
        let (measurement, tcb_floor) = (prediction.measurement, floor(args)?);
        add_snp(
            set,
            SnpReference { platform: "Qemu, IGVM".into(), measurement, tcb_floor, variants },
        );
        Ok(())
    })?;
    Ok(found)
}

/// A digest says nothing of the firmware that made it: whoever accepts one says of which.
fn floor(args: &Predict) -> Result<TcbFloor> {
    if args.min_tcb.is_empty() {
        return Problem::result(
            "CLI-032",
            "no least firmware was stated for the SEV-SNP machines of this reference set",
            "give --min-tcb once per product and stepping, as milan-b1=4.0.24.219: docs/tcb.md \
             says where the numbers stand",
        );
    }
    TcbFloor::merge(args.min_tcb.iter().cloned()).context("--min-tcb")
}

/// In the place of an earlier prediction for the same platform.
fn add_snp(set: &mut ReferenceSet, reference: SnpReference) {
    set.snp.retain(|known| known.platform != reference.platform);
    set.snp.push(reference);
}

fn observed(args: &Predict) -> Result<Option<Bytes<48>>> {
    let parsed = args.observed.as_deref().map(str::parse).transpose();
    parsed.context("--observed is no SNP measurement: 96 hex digits")
}

/// The digests of what QEMU hands to the firmware.
fn acpi(folder: &Path) -> Result<Acpi> {
    let digest =
        |name: &str| Ok::<_, anyhow::Error>(sha384(&read_bounded(&folder.join(name), MAX_FILE)?));
    Ok(Acpi { loader: digest("table-loader")?, rsdp: digest("rsdp")?, tables: digest("tables")? })
}

fn tdx(args: &Predict) -> Result<Value> {
    let (firmware, files) = (firmware(args)?, Files::read(args)?);
    let inputs = files.inputs();
    let boot = match args.direct {
        true => Boot::Direct { kernel: &files.uki, command_line: "", initrd: &[] },
        false => Boot::Disk { inputs: &inputs, gpt: Some(&files.gpt) },
    };
    let mut prediction = tdx::tdx(&TdxInputs {
        firmware: &firmware,
        pages: match args.pages {
            Pages::Page => PageOrder::PageByPage,
            Pages::Section => PageOrder::SectionBySection,
        },
        memory: args.memory.map(|mib| mib << 20),
        acpi: args.acpi.as_deref().map(acpi).transpose()?,
        boot,
    })?;
    // Only the owner of the host knows what its devices lead to.
    for text in &args.rtmr {
        let given = text
            .split_once('=')
            .and_then(|(n, value)| Some((n.parse::<u8>().ok()?, value.parse().ok()?)));
        let slot = given
            .and_then(|(n, value)| Some((n, prediction.rtmrs.get_mut(usize::from(n))?, value)));
        let Some((n, slot, value)) = slot else {
            return Problem::result(
                "CLI-026",
                format!("{text:?} is no register"),
                "write --rtmr 0=HEX, with 96 digits",
            );
        };
        *slot = Some(value);
        prediction.not_predicted.retain(|missing| missing.rtmr != n);
    }
    add_to_set(args, |set| {
        let [Some(rtmr0), Some(rtmr1), Some(rtmr2), Some(rtmr3)] = prediction.rtmrs else {
            let missing =
                prediction.not_predicted.iter().map(|n| format!("RTMR{}: {}", n.rtmr, n.reason));
            return Problem::result(
                "CLI-025",
                format!(
                    "no reference without all registers: {}",
                    missing.collect::<Vec<_>>().join("; ")
                ),
                "give the value that this host's configuration leads to with --rtmr N=HEX",
            );
        };
        let events = prediction.explain.clone();
        let platform = format!(
            "{}, {} MiB",
            if args.direct { "direct" } else { "disk" },
            args.memory.unwrap_or_default()
        );
        set.tdx.retain(|known| known.platform != platform);
        set.tdx.push(TdxReference {
            platform,
            mrtd: prediction.mrtd,
            rtmr0,
            rtmr1,
            rtmr2,
            rtmr3,
            events,
        });
        Ok(())
    })?;
    let rtmrs = (0..)
        .zip(&prediction.rtmrs)
        .filter_map(|(n, value)| Some((format!("{n}"), json!(value.as_ref()?))));
    let not_predicted =
        prediction.not_predicted.iter().map(|n| format!("RTMR{}: {}", n.rtmr, n.reason));
    let events =
        prediction.explain.iter().map(|e| format!("RTMR{} {} {}", e.rtmr, e.digest, e.event));
    let mut named = files.named();
    named.push(format!("firmware = sha256 {}", cvm_base::sha256(&firmware)));
    Ok(json!({
        "mrtd": prediction.mrtd,
        "rtmr": Value::Object(rtmrs.collect()),
        "event": events.collect::<Vec<_>>(),
        "not_predicted": not_predicted.collect::<Vec<_>>(),
        "input": named,
    }))
}
