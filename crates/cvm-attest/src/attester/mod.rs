//! A TPM, seen from the CVM: keys, quotes, measurements (tss-esapi over libtss2).
//!
//! One [`Tpm`] per process; it and its [`AttestationKey`] are `Send` but not `Sync`: several exchanges share
//! a key behind a mutex. Nothing persistent is written except what [`Tpm::keep`] keeps, and every transient
//! object is flushed.
//! Each command is bounded by the kernel's own TPM time-outs.

mod error;
mod keep;
mod key;
mod quoting;

use std::str::FromStr;

use cvm_base::{Bytes, Bytes32};
use tss_esapi::{
    Context,
    constants::response_code::Tss2ResponseCodeKind,
    handles::PcrHandle,
    interface_types::{algorithm::HashingAlgorithm, session_handles::AuthSession},
    structures::{DigestValues, PcrSelectionList, PcrSlot},
    tcti_ldr::TctiNameConf,
};

pub use error::TpmError;
pub use keep::{MAX_KEPT_BYTES, Place};
pub use key::AttestationKey;
pub use quoting::QuotingKey;

use crate::tpm::REQUIRED_PCRS;

/// The kernel's resource-managed TPM.
pub const DEFAULT_TCTI: &str = "device:/dev/tpmrm0";

/// A connection to a TPM 2.0.
pub struct Tpm {
    pub(crate) context: Context,
}

impl Tpm {
    /// Connects. `tcti` is `device:PATH` (the kernel's: [`DEFAULT_TCTI`]) or `swtpm:path=SOCKET`,
    /// `swtpm:host=…,port=…` for a process.
    ///
    /// # Errors
    /// [`TpmError::Open`] when there is no such TPM.
    pub fn open(tcti: &str) -> Result<Self, TpmError> {
        let fail = |source| TpmError::Open { tcti: tcti.into(), source };
        let name = TctiNameConf::from_str(tcti).map_err(fail)?;
        Ok(Self { context: Context::new(name).map_err(fail)? })
    }

    /// Makes the attestation key: finds the endorsement key and its certificate, and creates a P-256
    /// restricted signing key that lives until this value is dropped.
    ///
    /// # Errors
    /// [`TpmError`] when the TPM has no endorsement certificate or refuses a command.
    pub fn create_ak(&mut self) -> Result<AttestationKey<'_>, TpmError> {
        AttestationKey::create(&mut self.context)
    }

    /// Makes the same attestation key again, for quotes alone: no endorsement key, which takes a TPM long to make.
    ///
    /// # Errors
    /// [`TpmError`] when the TPM refuses a command.
    pub fn create_quoting_key(&mut self) -> Result<QuotingKey<'_>, TpmError> {
        QuotingKey::create(&mut self.context)
    }

    /// A SHA-256 PCR's value.
    ///
    /// # Errors
    /// [`TpmError::Command`], also when the TPM has no SHA-256 bank.
    pub fn read_pcr(&mut self, pcr: u8) -> Result<Bytes32, TpmError> {
        read_pcrs(&mut self.context, &[pcr]).map(|values| values[0])
    }

    /// TPM2_PCR_Extend in the SHA-256 bank.
    ///
    /// # Errors
    /// [`TpmError::Command`].
    pub fn extend_pcr(&mut self, pcr: u8, digest: &Bytes32) -> Result<(), TpmError> {
        let fail = TpmError::command("PCR_Extend");
        let handle = PcrHandle::try_from(u32::from(pcr)).map_err(&fail)?;
        let mut values = DigestValues::new();
        values.set(HashingAlgorithm::Sha256, digest.0.as_slice().try_into().map_err(&fail)?);
        self.context
            .execute_with_session(Some(AuthSession::Password), |context| context.pcr_extend(handle, values))
            .map_err(&fail)
    }
}

/// SHA-256 values of these PCRs, in this order.
pub(crate) fn read_pcrs(context: &mut Context, pcrs: &[u8]) -> Result<Vec<Bytes32>, TpmError> {
    let fail = TpmError::command("PCR_Read");
    let mut values = Vec::with_capacity(pcrs.len());
    // A TPM answers at most eight at once.
    for pcrs in pcrs.chunks(8) {
        let selection = selection(pcrs)?;
        let (_, _, digests) = context.execute_without_session(|context| context.pcr_read(selection)).map_err(&fail)?;
        if digests.len() != pcrs.len() {
            return Err(TpmError::NoBank);
        }
        for digest in digests.value() {
            let value = digest.value().try_into().map_err(|_| TpmError::NoBank)?;
            values.push(Bytes(value));
        }
    }
    Ok(values)
}

pub(crate) fn selection(pcrs: &[u8]) -> Result<PcrSelectionList, TpmError> {
    let fail = TpmError::command("PCR selection");
    let slots = pcrs.iter().map(|pcr| PcrSlot::try_from(1u32 << (pcr & 31))).collect::<Result<Vec<_>, _>>();
    PcrSelectionList::builder().with_selection(HashingAlgorithm::Sha256, &slots.map_err(&fail)?).build().map_err(&fail)
}

/// The PCRs that a quote covers.
fn quoted_pcrs() -> Vec<u8> {
    (0..REQUIRED_PCRS as u8).collect()
}

/// Whether the TPM says that a handle, such as an NV index, does not exist.
pub(crate) fn is_missing(error: &tss_esapi::Error) -> bool {
    matches!(error, tss_esapi::Error::Tss2Error(code) if code.kind() == Some(Tss2ResponseCodeKind::Handle))
}
