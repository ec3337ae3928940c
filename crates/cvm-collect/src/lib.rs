//! Evidence from a guest's own devices.
//!
//! One trait, [`Device`]; what it gives is raw bytes, [`Raw`], for the verifiers of this crate or
//! anybody's. Each device checks that its answer is bound to the report data it was asked for, so
//! that a raced or relayed answer is an error here and not a puzzle at the verifier.
//!
//! | device | where | kind |
//! |---|---|---|
//! | [`Tsm`] | `/sys/kernel/config/tsm/report` (Linux 6.7) | SNP, TDX |
//! | [`SevGuest`] | `/dev/sev-guest`: older kernels | SNP |
//! | [`TdxGuest`] | `/dev/tdx_guest` and the host's quote generation service: older kernels | TDX |
//! | [`azure::Azure`] | the paravisor's vTPM | SNP or TDX behind Azure's HCL |
//! | [`tpm::TpmDevice`] | a TPM 2.0 | TPM |
//! | [`nvml::Nvml`] | `libnvidia-ml.so.1` | NVIDIA GPUs |
//! | [`Recorded`] | a folder | each, for tests |
//!
//! NVSwitches are not among them: NVML does not reach them (NVIDIA's NSCQ library does).

pub mod attester;
pub mod azure;
mod body;
mod error;
pub mod gpus;
mod ioctl;
pub mod nvml;
mod qgs;
mod recorded;
mod rtmr;
mod sev_guest;
mod tdx_guest;
pub mod tpm;
mod tsm;

use std::path::Path;

use zeroize::Zeroizing;

use cvm_evidence::{
    certificate_table::parse_certificate_table,
    wire::{Base64, TpmQuote},
};

pub use cvm_evidence::certificate_table::{CertificateKind, SnpCertificate, certificate_table};
pub use error::CollectError;
pub use qgs::quote_over;
pub use recorded::Recorded;
pub use rtmr::{RTMR3, Rtmr};
pub use sev_guest::SevGuest;
pub use tdx_guest::{QgsAddress, TdxGuest};
pub use tsm::{TSM_REPORTS, Tsm};

/// What kind of evidence a device gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// Azure's vTPM in front of SNP or TDX.
    Azure,
    /// A TPM 2.0.
    Tpm,
    /// NVIDIA GPUs.
    Gpu,
}

/// Evidence as a device gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Raw {
    /// A report of 1184 bytes, and the certificates that the host added: often a VCEK or VLEK,
    /// often none.
    Snp {
        /// The report.
        report: Vec<u8>,
        /// From the host: unverified.
        certificates: Vec<SnpCertificate>,
    },
    /// A DCAP quote.
    Tdx {
        /// The quote.
        quote: Vec<u8>,
    },
    /// What Azure's vTPM gives. The report inside the HCL report binds the quote's key; the quote
    /// binds the challenge.
    Azure {
        /// The HCL report, with the runtime data behind it.
        hcl_report: Vec<u8>,
        /// `TPMS_ATTEST`.
        quote: Vec<u8>,
        /// The raw signature: RSASSA with SHA-256.
        signature: Vec<u8>,
        /// SHA-256 PCRs 0 to 23.
        pcrs: Vec<[u8; 32]>,
    },
    /// A quote of the SHA-256 bank.
    Tpm {
        /// The attestation key, marshalled TPMT_PUBLIC.
        ak_public: Base64,
        /// The quote, and the values that it covers.
        quote: Box<TpmQuote>,
    },
    /// Every GPU that NVML lists, in its order.
    Gpus(Vec<Gpu>),
}

/// One GPU's evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// NVML's name of the device, for people; nobody vouches for it.
    pub uuid: String,
    /// SPDM GET_MEASUREMENTS request and response.
    pub report: Vec<u8>,
    /// PEM, leaf first.
    pub certificates: Vec<u8>,
}

/// A source of evidence inside a guest.
pub trait Device: Send {
    /// What it gives.
    fn kind(&self) -> Kind;

    /// Evidence bound to `report_data`. A GPU's report and a TPM's quote carry its first 32 bytes
    /// ([`short_nonce`]), all others all 64.
    ///
    /// # Errors
    /// [`CollectError`]; every wait is bounded.
    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<Raw, CollectError>;

    /// A key that the TEE derives for this image on this chip, and for nobody else; `None` where it
    /// derives none. It is the same in every boot, before and after the handoff. Secret.
    ///
    /// # Errors
    /// [`CollectError`].
    fn derived_key(&mut self) -> Result<Option<Zeroizing<[u8; 32]>>, CollectError> {
        Ok(None)
    }
}

/// The part of the report data that a GPU's request and Azure's TPM quote carry, as
/// [`cvm_evidence::tpm_nonce`] does.
pub fn short_nonce(report_data: &[u8; 64]) -> [u8; 32] {
    let mut nonce = [0; 32];
    nonce.copy_from_slice(&report_data[..32]);
    nonce
}

/// The guest's own TEE, by the newest interface that its kernel has: configfs, then the older
/// devices.
///
/// # Errors
/// [`CollectError::Absent`] when this is no SNP or TDX guest, or another error of the device that
/// is there.
pub fn open() -> Result<Box<dyn Device>, CollectError> {
    match Tsm::open(Path::new(TSM_REPORTS)) {
        Ok(tsm) => return Ok(Box::new(tsm)),
        Err(CollectError::Absent { .. }) => {}
        Err(other) => return Err(other),
    }
    open_devices()
}

/// The guest's own TEE for a program that is not root: through the devices, whose group udev or
/// systemd can set. What configfs makes belongs to root, also in a folder that somebody else made.
///
/// # Errors
/// As [`open`].
pub fn open_devices() -> Result<Box<dyn Device>, CollectError> {
    match SevGuest::open(Path::new(sev_guest::DEVICE)) {
        Ok(device) => return Ok(Box::new(device)),
        Err(CollectError::Absent { .. }) => {}
        Err(other) => return Err(other),
    }
    match TdxGuest::open(Path::new(tdx_guest::DEVICE), QgsAddress::default()) {
        Ok(device) => Ok(Box::new(device)),
        Err(CollectError::Absent { .. }) => Err(CollectError::Absent {
            device: "SNP or TDX guest device".into(),
            problem: format!("neither {} nor {}", sev_guest::DEVICE, tdx_guest::DEVICE),
        }),
        Err(other) => Err(other),
    }
}

/// A report has 1184 bytes (AMD 56860, table 23), its report data at 0x50.
pub(crate) const SNP_REPORT_BYTES: usize = 1184;
/// The longest quote known has some 16 KiB; the kernel's limit was 32 KiB for long.
pub(crate) const MAX_QUOTE_BYTES: usize = 128 * 1024;

/// What evidence is bound to, where it says so: 64 bytes, or 32 for GPUs.
pub(crate) fn bound_to(kind: Kind, bytes: &[u8]) -> Option<&[u8]> {
    let version = bytes.first_chunk().map(|v| u16::from_le_bytes(*v))?;
    match kind {
        Kind::Snp => bytes.get(0x50..0x90),
        // A quote's header has 48 bytes; version 5 has type and size of the body behind it; 520
        // bytes into the body (TD_REPORT10 and TD_REPORT15) follows the report data.
        Kind::Tdx if version == 4 => bytes.get(48 + 520..48 + 584),
        Kind::Tdx if version == 5 => bytes.get(48 + 6 + 520..48 + 6 + 584),
        Kind::Gpu => bytes.get(4..36),
        Kind::Tdx | Kind::Azure | Kind::Tpm => None,
    }
}

/// What a host handed over beside its report.
fn host_certificates(table: &[u8]) -> Result<Vec<SnpCertificate>, CollectError> {
    parse_certificate_table(table).map_err(|e| CollectError::answer("the host", e.to_string()))
}

/// Refuses evidence that is bound to something else than what was asked for.
pub(crate) fn check_bound(
    device: &str,
    kind: Kind,
    bytes: &[u8],
    asked: &[u8],
) -> Result<(), CollectError> {
    match bound_to(kind, bytes) {
        Some(found) if found == asked => Ok(()),
        Some(_) => Err(CollectError::answer(device, "evidence for another challenge")),
        None => Err(CollectError::answer(
            device,
            format!("{} bytes that are no evidence of this kind", bytes.len()),
        )),
    }
}
