//! The arguments of `flare-cvm predict`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cvm_evidence::tcb::TcbFloor;

/// The platforms that a prediction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Platform {
    /// TPM PCRs.
    Tpm,
    /// SEV-SNP's launch digest.
    Snp,
    /// TDX's MRTD and RTMRs.
    Tdx,
}

/// Who starts the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Launcher {
    Qemu,
    Ec2,
    Gce,
}

/// How a host adds firmware's pages to a TD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Pages {
    /// Each page is added, then measured.
    Page,
    /// A section's pages are added, then measured.
    Section,
}

/// Predict what a platform will measure of a bundle, with every input named.
///
/// tpm predicts the PCRs from loader, UKI and Secure Boot variables, and compares them with
/// reference.json. snp computes the launch digest of --firmware, with the bundle's UKI as its
/// kernel if --direct says so (the firmware must have a kernel-hashes table: OVMF's AmdSev build).
/// Firmware in an IGVM file states itself what a guest starts with: one vCPU and no kernel. tdx
/// computes MRTD and the RTMRs, and says of each register that it cannot predict why: with
/// --direct, --memory and --acpi it predicts all.
///
/// With --observed, an SNP measurement that differs is explained: by the one input whose change
/// leads to it.
#[derive(Args)]
pub struct Predict {
    /// The bundle's folder
    #[arg(value_name = "BUNDLE")]
    pub(super) bundle: PathBuf,
    /// What measures
    #[arg(long, value_enum)]
    pub(super) platform: Platform,
    /// The firmware that the host starts: code and variables in one file; for snp also an IGVM file
    #[arg(long, value_name = "FILE")]
    pub(super) firmware: Option<PathBuf>,
    /// snp, tdx: the UKI is started directly (QEMU's -kernel; snp: with kernel-hashes=on), not from
    /// the disk
    #[arg(long)]
    pub(super) direct: bool,
    /// snp: how many vCPUs
    #[arg(long, default_value_t = 1)]
    pub(super) vcpus: u32,
    /// snp: QEMU's name of their type
    #[arg(long, default_value = "EPYC-v4", value_name = "MODEL")]
    pub(super) vcpu_type: String,
    /// snp: SEV_FEATURES of the vCPUs, in hex
    #[arg(long, default_value = "1", value_name = "HEX")]
    pub(super) guest_features: String,
    /// snp: who starts the guest
    #[arg(long, value_enum, default_value_t = Launcher::Qemu)]
    pub(super) vmm: Launcher,
    /// tdx: the TD's memory in MiB
    #[arg(long, value_name = "MIB")]
    pub(super) memory: Option<u64>,
    /// tdx: the host's ACPI tables, as files table-loader, rsdp and tables. A guest of the same
    /// configuration has them in /sys/firmware/qemu_fw_cfg/by_name/etc/ (table-loader/raw,
    /// acpi/rsdp/raw, acpi/tables/raw)
    #[arg(long, value_name = "FOLDER")]
    pub(super) acpi: Option<PathBuf>,
    /// tdx: how the host adds firmware's pages: page by page since Linux 6.16
    #[arg(long, value_enum, default_value_t = Pages::Page)]
    pub(super) pages: Pages,
    /// tdx: a register that depends on the host's devices, from whoever knows them: N=HEX; give it
    /// once per register
    #[arg(long, value_name = "N=HEX")]
    pub(super) rtmr: Vec<String>,
    /// snp: other firmware that a host may start; a digest is explained by it
    #[arg(long, value_name = "FILE")]
    pub(super) also_firmware: Vec<PathBuf>,
    /// snp, with --direct: another command line that a host may give
    #[arg(long, value_name = "TEXT")]
    pub(super) also_command_line: Vec<String>,
    /// snp, with --set: the least firmware that is accepted of a product and stepping, as
    /// milan-b1=BOOTLOADER.TEE.SNP.MICROCODE (turin-c1=FMC.BOOTLOADER.TEE.SNP.MICROCODE); give it
    /// once per kind of machine. docs/tcb.md says where to find the numbers
    #[arg(long, value_name = "CHIP=VERSIONS")]
    pub(super) min_tcb: Vec<TcbFloor>,
    /// Add the prediction to this reference set, for `policy new` and `attest verify --explain`
    #[arg(long, value_name = "FILE")]
    pub(super) set: Option<PathBuf>,
    /// snp: a measurement that was seen, to be explained
    #[arg(long, value_name = "HEX")]
    pub(super) observed: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}
