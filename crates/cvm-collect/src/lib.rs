//! Evidence from a guest's own devices, and the secrets that its TPM keeps.
//!
//! Programs inside a CVM link this crate: `cvm-init`, `cvm-agent`, `cvm-jobs`, and `flare-cvm` for
//! `attest collect`. A key holder must not: it opens no device, and it reads evidence as
//! `cvm-evidence` defines it. This crate verifies nothing and decides nothing.
//!
//! Every source of evidence is a [`Device`], and gives raw bytes, [`Raw`], for `cvm-verify` or any
//! other verifier. Each device checks that its answer is bound to the report data that was asked
//! for. A raced or relayed answer is therefore an error here and not a puzzle at the verifier.
//!
//! | device | where | kind |
//! |---|---|---|
//! | [`Tsm`] | `/sys/kernel/config/tsm/report` (Linux 6.7) | SNP, TDX |
//! | [`SevGuest`] | `/dev/sev-guest`: older kernels | SNP |
//! | [`TdxGuest`] | `/dev/tdx_guest` and the host's quote generation service: older kernels | TDX |
//! | [`azure::Azure`] | the paravisor's vTPM | SNP or TDX under Azure's HCL |
//! | [`tpm::TpmDevice`] | a TPM 2.0 | TPM |
//! | [`nvml::Nvml`] | `libnvidia-ml.so.1` | NVIDIA GPUs |
//! | [`Recorded`] | a folder | each, for tests |
//!
//! NVSwitches are missing: NVML does not reach them (NVIDIA's NSCQ library does).
//!
//! | module | content |
//! |---|---|
//! | `device` | [`Device`], [`Kind`], [`Raw`], [`Gpu`] |
//! | `open` | [`open()`] and [`open_devices`]: which TEE this guest has |
//! | `bound` | how long an answer may be, and whether it is bound to the question |
//! | `tsm`, `sev_guest`, `tdx_guest`, `ioctl`, `qgs` | SNP and TDX through the kernel |
//! | `rtmr` | [`Rtmr`]: a TD's own register |
//! | [`tpm`], [`azure`] | a TPM 2.0, and Azure's |
//! | [`nvml`], [`gpus`] | GPUs, and their body in the release protocol |
//! | `body` | [`Raw::to_trustee`]: the other bodies |
//! | `recorded` | [`Recorded`] |
//!
//! ```no_run
//! // The session's digest, zeros after it: what the evidence must be bound to.
//! let report_data = cvm_evidence::trustee::report_data(&[0x5a; 48]);
//! let raw = cvm_collect::open()?.evidence(&report_data)?;
//! let (tee, primary_evidence) = raw.to_trustee(None)?;
//! println!("{tee}: {primary_evidence}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod azure;
mod body;
mod bound;
mod device;
mod error;
pub mod gpus;
mod ioctl;
pub mod nvml;
mod open;
mod qgs;
mod recorded;
mod rtmr;
mod sev_guest;
mod tdx_guest;
pub mod tpm;
mod tsm;

pub use cvm_evidence::certificate_table::{CertificateKind, SnpCertificate, certificate_table};
pub use device::{Device, Gpu, Kind, Raw, short_nonce};
pub use error::CollectError;
pub use open::{open, open_devices};
pub use qgs::quote_over;
pub use recorded::Recorded;
pub use rtmr::{RTMR3, Rtmr};
pub use sev_guest::SevGuest;
pub use tdx_guest::{QgsAddress, TdxGuest};
pub use tsm::{TSM_REPORTS, Tsm};
