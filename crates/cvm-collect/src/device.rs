//! The trait that every source of evidence implements, and the raw evidence that it gives.

use zeroize::Zeroizing;

use cvm_evidence::{
    certificate_table::SnpCertificate,
    wire::{Base64, TpmQuote},
};

use crate::error::CollectError;

/// The kind of evidence that a device gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// Azure's vTPM, over SNP or TDX.
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
        /// The HCL report, followed by the runtime data.
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
    /// NVML's name of the device, for people. Nobody vouches for it.
    pub uuid: String,
    /// SPDM GET_MEASUREMENTS request and response.
    pub report: Vec<u8>,
    /// PEM, leaf first.
    pub certificates: Vec<u8>,
}

/// A source of evidence inside a guest.
pub trait Device: Send {
    /// The kind of evidence that it gives.
    fn kind(&self) -> Kind;

    /// Evidence bound to `report_data`. A GPU's report and a TPM's quote carry its first 32 bytes
    /// ([`short_nonce`]), all others all 64.
    ///
    /// # Errors
    /// [`CollectError`]; every wait is bounded.
    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<Raw, CollectError>;

    /// A key that the TEE derives for this image on this chip, and for nobody else. `None` where
    /// the TEE derives none. Every boot gets the same key, before and after the handoff. Secret.
    ///
    /// # Errors
    /// [`CollectError`].
    fn derived_key(&mut self) -> Result<Option<Zeroizing<[u8; 32]>>, CollectError> {
        Ok(None)
    }
}

/// The part of the report data that a GPU's request and a TPM's quote carry: the first 32 bytes, as
/// in [`cvm_evidence::tpm_nonce`].
pub fn short_nonce(report_data: &[u8; 64]) -> [u8; 32] {
    let mut nonce = [0; 32];
    nonce.copy_from_slice(&report_data[..32]);
    nonce
}
