//! Azure's confidential VMs: a vTPM in the paravisor, bound to a SEV-SNP report or a TD quote.
//!
//! The chain, from the hardware down: the hardware signs a report whose data is the hash of the
//! runtime data; the runtime data names the vTPM's attestation key; that key signs a quote over
//! PCRs and the verifier's nonce. [`AzureEvidence::check_binding`] checks everything below the
//! hardware's signature and returns the report that [`AzureBound::verify_snp`], or a verifier of TD
//! quotes, must accept.

mod binding;
mod claims;
mod error;
mod evidence;
mod hardware;
mod hcl;
mod td;

pub use self::{
    binding::AzureBound,
    claims::{AzureClaims, VtpmClaims},
    error::AzureError,
    evidence::{AzureEvidence, Hardware, QuoteFiles},
    hardware::HardwareKind,
    hcl::{HclReport, RuntimeClaims, SNP_REPORT_BYTES, TD_REPORT_BYTES},
};
