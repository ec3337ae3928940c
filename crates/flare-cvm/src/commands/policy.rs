//! `flare-cvm policy`: the three attestation policies of an image.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use cvm_base::{read_bounded, read_text, write_atomic};
use cvm_evidence::{
    Reference, ReferenceSet, platform::AzureTee, reference_set::FirmwareReference, tcb::TcbFloor,
};
use cvm_policy::new_policies;

use super::progress::line;

/// More than any reference values need, in bytes.
const MAX_REFERENCE: u64 = 4 * 1024 * 1024;
/// More than any event log needs, in bytes.
const MAX_LOG: u64 = 1024 * 1024;

/// Write the policies that evidence is judged by.
#[derive(Subcommand)]
pub enum PolicyCommand {
    New(New),
    Firmware(Firmware),
}

/// Write boot.rego, self.rego and cross.rego from an image's predicted reference values.
///
/// boot.rego decides on the release of keys. A running CVM judges itself by self.rego, and its
/// peers by cross.rego. All three deny by default and say why. Read them, and edit them: they are
/// yours. A check that was left out is refused unless the policy lists it in accepted_not_checked.
#[derive(Args)]
pub struct New {
    /// The bundle's reference.json, or a reference set (flare-cvm predict prints one)
    #[arg(value_name = "REFERENCE")]
    reference: PathBuf,
    /// SHA-256 of an endorsement root whose TPMs are accepted; give it once per root
    #[arg(long, value_name = "HEX")]
    ek_root: Vec<cvm_base::Bytes32>,
    /// A TPM's event log of firmware that is accepted, as `policy firmware` reads it; give it once
    /// per kind of host
    #[arg(long, value_name = "LOG")]
    firmware: Vec<PathBuf>,
    /// SEV-SNP: the least firmware that is accepted of a product and stepping, instead of the
    /// reference's own, as milan-b1=BOOTLOADER.TEE.SNP.MICROCODE
    /// (turin-c1=FMC.BOOTLOADER.TEE.SNP.MICROCODE); give it once per kind of machine. docs/tcb.md
    /// says where to find the numbers
    #[arg(long, value_name = "CHIP=VERSIONS")]
    min_tcb: Vec<TcbFloor>,
    /// The folder to write them to
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
}

/// Print what a TPM policy names of a machine's firmware: PCR 0 and 1.
///
/// They depend on the site's firmware and virtual hardware, not on the image, and cover the host's
/// ACPI tables: code that the guest's kernel runs. Take the log of an honest
/// machine that is built like the site's (in Linux
/// /sys/kernel/security/tpm0/binary_bios_measurements), and put the line into `firmware` of
/// keys/policies/tpm.rego. A log of firmware that measures no ACPI tables, as Debian 12's OVMF, is
/// refused: its PCR 1 is the same whatever the tables hold.
#[derive(Args)]
pub struct Firmware {
    /// The event log
    #[arg(value_name = "LOG")]
    log: PathBuf,
}

/// Runs one of the commands.
pub fn run(command: PolicyCommand) -> Result<()> {
    let args = match command {
        PolicyCommand::New(args) => args,
        PolicyCommand::Firmware(Firmware { log }) => {
            line(&serde_json::to_string(&firmware(&log)?)?);
            return Ok(());
        }
    };
    let bytes = read_text(&args.reference, MAX_REFERENCE)?;
    let mut set = match Reference::parse(&bytes) {
        Ok(reference) => ReferenceSet::from(&reference),
        Err(_) => ReferenceSet::parse(&bytes).with_context(|| {
            format!(
                "{} is neither a bundle's reference.json nor a reference set",
                args.reference.display()
            )
        })?,
    };
    set.ek_roots.extend(args.ek_root.iter().copied());
    for log in &args.firmware {
        set.firmware.push(firmware(log)?);
    }
    if !args.min_tcb.is_empty() {
        let floor = TcbFloor::merge(args.min_tcb).context("--min-tcb")?;
        set.snp.iter_mut().for_each(|snp| snp.tcb_floor = floor.clone());
        let azure_snp = set.azure.iter_mut().filter(|azure| azure.tee == AzureTee::Snp);
        azure_snp.for_each(|azure| azure.tcb_floor = floor.clone());
    }
    let policies = new_policies(&set)?;
    std::fs::create_dir_all(&args.output)
        .with_context(|| format!("cannot make {}", args.output.display()))?;
    for (name, text) in policies {
        let path = args.output.join(name);
        write_atomic(&path, text.as_bytes(), 0o644)?;
        line(&format!("written: {}", path.display()));
    }
    line("next: read them; a party gives boot.rego to `flare-cvm ceremony init --policy`");
    Ok(())
}

fn firmware(log: &Path) -> Result<FirmwareReference> {
    let bytes = read_bounded(log, MAX_LOG)?;
    FirmwareReference::of_log(&bytes).with_context(|| format!("the event log {}", log.display()))
}
