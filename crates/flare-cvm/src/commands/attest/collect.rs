//! `flare-cvm attest collect`: this machine's own evidence, into a folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use cvm_base::{interrupt, read_bounded, write_atomic};
use cvm_collateral::{Cache, read_public_key};
use cvm_collect::{
    CollectError, Device, Recorded,
    azure::Azure,
    nvml::Nvml,
    tpm::{DEFAULT_TCTI, Tpm, TpmDevice},
};
use serde_json::json;

use super::super::progress::{Progress, line};
use crate::problem::Problem;

/// A TPM's event log, as Linux shows it.
const TPM_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
/// A TD's: the log area of the ACPI table CCEL.
const CC_LOG: &str = "/sys/firmware/acpi/tables/data/CCEL";
/// What Azure's firmware says of itself
/// (<https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service>, and
/// cloud-init's DataSourceAzure).
const CHASSIS: &str = "/sys/class/dmi/id/chassis_asset_tag";
const AZURE_CHASSIS: &str = "7783-7084-3265-9085-8269-3286-77";
/// Logs of real machines have some 60 KiB.
const MAX_LOG: u64 = 1024 * 1024;
/// What a GPU's request and a TPM's quote carry, and what a TEE's report carries, in bytes.
const NONCE: std::ops::RangeInclusive<usize> = 32..=64;

/// A source of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Source {
    /// SEV-SNP or TDX: configfs-tsm, or the older devices.
    Tee,
    /// Azure's vTPM, with the TEE's report that it keeps.
    Azure,
    /// A TPM 2.0.
    Tpm,
    /// NVIDIA's GPUs, through the driver's NVML.
    Gpu,
}

/// Ask this machine for its evidence, and leave it in a folder.
///
/// Run it in the confidential machine, as root, with a nonce that the verifier has drawn: the nonce
/// makes the evidence fresh. The folder has one folder per device, and goes to the verifier as it
/// is:
///
///   verifier$ openssl rand -hex 32
///   machine#  flare-cvm attest collect --nonce HEX -o evidence/
///   verifier$ flare-cvm attest verify evidence/ --nonce HEX --collateral cache/
///   --collateral-signer my.key.pub
///
/// Without --device, it asks what is there: the TEE, or else Azure's vTPM, or else the TPM; and the
/// GPUs. A device that is named must be there. With --collateral the cache travels along,
/// and the verifier needs only the collector's key.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Collect {
    /// What the evidence answers: 32 to 64 bytes in hex. A GPU and a TPM answer the first 32
    #[arg(long, value_name = "HEX")]
    nonce: String,
    /// The folder to write; it must not be there
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Ask this, and fail if it is not there; give it once per device
    #[arg(long, value_enum)]
    device: Vec<Source>,
    /// How libtss2 reaches the TPM
    #[arg(long, default_value = DEFAULT_TCTI, value_name = "TCTI")]
    tcti: String,
    /// A cache that `flare-cvm collateral` made for this machine, to travel along
    #[arg(long, value_name = "DIR", requires = "collateral_signer")]
    collateral: Option<PathBuf>,
    /// Who signed that cache: a public key file; give it once per signer
    #[arg(long, value_name = "FILE")]
    collateral_signer: Vec<PathBuf>,
    /// For scripts: one JSON object at the end instead of progress
    #[arg(long)]
    json: bool,
}

/// Collects and writes.
pub(super) fn collect(args: &Collect) -> Result<()> {
    let mut progress = Progress::new(args.json);
    let report_data = report_data(&args.nonce)?;
    if args.output.exists() {
        return Problem::result(
            "CLI-029",
            format!("{} is there already", args.output.display()),
            "name a new folder: old evidence beside new would be taken for one machine's",
        );
    }
    let collateral = match &args.collateral {
        Some(folder) => {
            let signers = args.collateral_signer.iter().map(|path| read_public_key(path));
            Some(Cache::open(folder, &signers.collect::<Result<Vec<_>, _>>()?)?)
        }
        None => None,
    };
    // Written beside the output and then renamed, so that it appears whole.
    let parent = args
        .output
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let work = tempfile::tempdir_in(parent)
        .with_context(|| format!("cannot write into {}", parent.display()))?;
    let _guard = interrupt::guard_path(work.path());
    let folder = work.path().join("evidence");
    let mut found = Vec::new();
    for device in devices(args)? {
        let kind = device.kind();
        progress.step(&format!("asking {}", described(kind)));
        let (name, log) = place(kind);
        let raw = { device }.evidence(&report_data)?;
        Recorded::write(&folder.join(name), &raw)?;
        if let Some(log) = log {
            add_log(Path::new(log), &folder.join(name).join("eventlog.bin"), &mut progress)?;
        }
        found.push(format!("{kind:?}").to_lowercase());
    }
    if let Some(cache) = &collateral {
        write_atomic(&folder.join("collateral.json"), &cache.pack(), 0o644)?;
    }
    std::fs::rename(&folder, &args.output)
        .with_context(|| format!("cannot move the evidence to {}", args.output.display()))?;
    progress.done(
        &format!("{}: evidence of {} devices", args.output.display(), found.len()),
        &json!({ "output": args.output, "devices": found, "collateral": collateral.is_some() }),
    );
    if !args.json {
        line("next: give the folder to the verifier: flare-cvm attest verify FOLDER --nonce HEX");
    }
    Ok(())
}

/// The nonce, padded with zeros.
fn report_data(nonce: &str) -> Result<[u8; 64]> {
    let mut data = [0; 64];
    match hex::decode(nonce.trim()) {
        Ok(bytes) if NONCE.contains(&bytes.len()) => {
            data[..bytes.len()].copy_from_slice(&bytes);
            Ok(data)
        }
        _ => Problem::result(
            "CLI-033",
            format!("{nonce:?} is not a nonce of 32 to 64 bytes in hex"),
            "let the verifier draw one: openssl rand -hex 32",
        ),
    }
}

/// The devices to ask.
fn devices(args: &Collect) -> Result<Vec<Box<dyn Device>>> {
    if !args.device.is_empty() {
        return args.device.iter().map(|source| Ok(open(*source, args)?)).collect();
    }
    // A TPM beside a TEE belongs to the host, and proves nothing against the host.
    let mut missing = Vec::new();
    let mut first = |sources: &[Source]| -> Result<Option<Box<dyn Device>>> {
        for source in sources {
            match open(*source, args) {
                Ok(device) => return Ok(Some(device)),
                Err(error @ CollectError::Absent { .. }) => missing.push(error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    };
    let cpu = match in_azure() {
        true => first(&[Source::Tee, Source::Azure, Source::Tpm])?,
        false => first(&[Source::Tee, Source::Tpm])?,
    };
    let gpus = first(&[Source::Gpu])?;
    let devices: Vec<_> = cpu.into_iter().chain(gpus).collect();
    if devices.is_empty() {
        return Problem::result(
            "CLI-034",
            format!("this machine has nothing that attests: {}", missing.join("; ")),
            "run this in the confidential machine, as root; --device names the one that should be \
             there",
        );
    }
    Ok(devices)
}

fn open(source: Source, args: &Collect) -> Result<Box<dyn Device>, CollectError> {
    let tpm = || {
        let absent = |problem| CollectError::Absent { device: "TPM".into(), problem };
        // libtss2 writes to standard error where it finds nothing.
        match args.tcti.strip_prefix("device:") {
            Some(path) if !Path::new(path).exists() => Err(absent(format!("no {path}"))),
            _ => Tpm::open(&args.tcti).map_err(|e| absent(e.to_string())),
        }
    };
    Ok(match source {
        Source::Tee => cvm_collect::open()?,
        Source::Azure => Box::new(Azure::open(tpm()?)?),
        Source::Tpm => Box::new(TpmDevice::new(tpm()?)),
        Source::Gpu => Box::new(Nvml::open(None)?),
    })
}

/// Whether this is one of Azure's machines, by what its firmware says about the chassis. It is only
/// a guess, which spares other TPMs a question: the evidence proves what the machine is.
fn in_azure() -> bool {
    std::fs::read_to_string(CHASSIS).is_ok_and(|tag| tag.trim() == AZURE_CHASSIS)
}

fn described(kind: cvm_collect::Kind) -> &'static str {
    match kind {
        cvm_collect::Kind::Snp => "SEV-SNP for a report",
        cvm_collect::Kind::Tdx => "TDX for a quote",
        cvm_collect::Kind::Azure => "Azure's vTPM for a report and a quote",
        cvm_collect::Kind::Tpm => "the TPM for a quote",
        cvm_collect::Kind::Gpu => "the GPUs for their reports",
        _ => "a device",
    }
}

/// Where a device's evidence goes, and where the log lies that explains it.
fn place(kind: cvm_collect::Kind) -> (&'static str, Option<&'static str>) {
    match kind {
        // The recording has a folder for each.
        cvm_collect::Kind::Gpu => ("", None),
        cvm_collect::Kind::Tpm => ("tpm", Some(TPM_LOG)),
        cvm_collect::Kind::Azure => ("cpu", Some(TPM_LOG)),
        cvm_collect::Kind::Tdx => ("cpu", Some(CC_LOG)),
        _ => ("cpu", None),
    }
}

/// The log explains registers and proves nothing: the evidence is as good without it.
fn add_log(log: &Path, to: &Path, progress: &mut Progress) -> Result<()> {
    match read_bounded(log, MAX_LOG) {
        Ok(bytes) => Ok(write_atomic(to, &bytes, 0o644)?),
        Err(error) => {
            progress.step(&format!("warning: no event log: {error}"));
            Ok(())
        }
    }
}
