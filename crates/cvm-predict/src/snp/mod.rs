//! The SEV-SNP launch digest of an image from its files alone, and which input a wrong digest is
//! due to.
//!
//! The firmware (AMD-SP) hashes each page that the VMM adds before launch into a running digest
//! (SEV-SNP ABI 56860, §8.17, table `PAGE_INFO`). For OVMF, a VMM adds these pages in this order:
//!
//! 1. the firmware image;
//! 2. the pages that its SEV metadata names, among them the hashes of kernel, initrd and command
//!    line;
//! 3. one VMSA, the initial registers, for each vCPU.
//!
//! Checked against `sev-snp-measure` 0.0.13. The rules for EC2 and GCE are its own: the `sev` crate
//! 8.0.0 has older ones for EC2, and none for GCE.
//!
//! | module | content |
//! |---|---|
//! | `inputs`, `vcpu_type` | [`LaunchInputs`] and what they consist of, [`LaunchPrediction`] |
//! | `launch` | [`launch()`]: OVMF's digest |
//! | `igvm` | [`launch_igvm`]: the digest of an IGVM file |
//! | `explain` | [`explain()`], [`variants`]: which input a wrong digest is due to |
//! | `firmware`, `vmsa`, `digest` | OVMF's metadata, a vCPU's page, the running digest |

mod digest;
mod error;
mod explain;
mod firmware;
mod igvm;
mod inputs;
mod launch;
mod vcpu_type;
mod vmsa;

pub use error::LaunchError;
pub use explain::{LaunchDifference, explain, variants};
pub use igvm::launch_igvm;
pub use inputs::{Kernel, LaunchInput, LaunchInputs, LaunchPrediction, Vmm};
pub use launch::launch;
pub use vcpu_type::VcpuType;
