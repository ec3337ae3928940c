//! A TPM, seen from the CVM: keys, quotes, measurements (tss-esapi over libtss2).
//!
//! One [`Tpm`] per process; it and its [`AttestationKey`] are `Send` but not `Sync`: several
//! exchanges share a key behind a mutex. Nothing persistent is written except what [`Tpm::keep`]
//! keeps, and every transient object is flushed. Each command is bounded by the kernel's own
//! time-outs, which a software TPM on a busy host may miss. Its connection is of no use then; what
//! changes nothing that must not change twice is done again over a new one ([`patiently`]).

mod error;
mod keep;
mod key;
mod quoting;

use std::{
    path::Path,
    str::FromStr,
    time::{Duration, Instant},
};

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

use cvm_evidence::{eventlog, tpm::REQUIRED_PCRS};

/// The kernel's resource-managed TPM.
pub const DEFAULT_TCTI: &str = "device:/dev/tpmrm0";

/// How long a TPM is asked again that does not answer in the kernel's time.
const PATIENCE: Duration = Duration::from_secs(15);

/// A connection to a TPM 2.0.
pub struct Tpm {
    pub(crate) context: Context,
    tcti: String,
}

/// Does `attempt` again, for some seconds, where the TPM did not answer in the time that Linux
/// gives it. `attempt` opens the TPM itself, and does nothing that must not be done twice.
///
/// # Errors
/// The last attempt's.
pub fn patiently<T>(mut attempt: impl FnMut() -> Result<T, TpmError>) -> Result<T, TpmError> {
    let end = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Err(error) if error.is_silence() && Instant::now() < end => {}
            found => return found,
        }
    }
}

fn connect(tcti: &str) -> Result<Context, TpmError> {
    let fail = |source| TpmError::Open { tcti: tcti.into(), source };
    let name = TctiNameConf::from_str(tcti).map_err(fail)?;
    Context::new(name).map_err(fail)
}

impl Tpm {
    /// Connects. `tcti` is `device:PATH` (the kernel's: [`DEFAULT_TCTI`]) or `swtpm:path=SOCKET`,
    /// `swtpm:host=…,port=…` for a process.
    ///
    /// # Errors
    /// [`TpmError::Open`] when there is no such TPM.
    pub fn open(tcti: &str) -> Result<Self, TpmError> {
        // One that is not there is not waited for.
        let there = tcti.strip_prefix("device:").is_some_and(|path| Path::new(path).exists());
        let context = if there { patiently(|| connect(tcti))? } else { connect(tcti)? };
        Ok(Self { context, tcti: tcti.into() })
    }

    /// Does `work`, and where no answer came does it again over a new connection: whatever it
    /// changes, it may change twice, and nothing of the old connection lives on in it.
    fn again<T>(
        &mut self,
        mut work: impl FnMut(&mut Self) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let mut silent = false;
        patiently(|| {
            if silent {
                self.reconnect()?;
            }
            silent = true;
            work(self)
        })
    }

    fn reconnect(&mut self) -> Result<(), TpmError> {
        self.context = connect(&self.tcti)?;
        Ok(())
    }

    /// Makes the attestation key: finds the endorsement key and its certificate, and creates a
    /// P-256 restricted signing key that lives until this value is dropped.
    ///
    /// # Errors
    /// [`TpmError`] when the TPM has no endorsement certificate or refuses a command.
    pub fn create_ak(&mut self) -> Result<AttestationKey<'_>, TpmError> {
        AttestationKey::create(self)
    }

    /// Makes the same attestation key again, for quotes alone: no endorsement key, which takes a
    /// TPM long to make.
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
        self.again(|tpm| read_pcrs(&mut tpm.context, &[pcr])).map(|values| values[0])
    }

    /// Extends a register of the SHA-256 bank by TPM2_PCR_Extend, exactly once, and looks: where no
    /// answer came, the register tells whether the command did, and a TPM that only says so is
    /// found out.
    ///
    /// # Errors
    /// [`TpmError::Command`], [`TpmError::NotExtended`].
    pub fn extend_pcr(&mut self, pcr: u8, digest: &Bytes32) -> Result<(), TpmError> {
        let before = self.read_pcr(pcr)?;
        let expected = eventlog::extend(&before, digest);
        let found = self.again(|tpm| {
            let read = |tpm: &mut Self| read_pcrs(&mut tpm.context, &[pcr]).map(|values| values[0]);
            if read(tpm)? == before {
                extend(&mut tpm.context, pcr, digest)?;
            }
            read(tpm)
        })?;
        if found == expected { Ok(()) } else { Err(TpmError::NotExtended { pcr, found, expected }) }
    }
}

fn extend(context: &mut Context, pcr: u8, digest: &Bytes32) -> Result<(), TpmError> {
    let fail = TpmError::command("PCR_Extend");
    let handle = PcrHandle::try_from(u32::from(pcr)).map_err(&fail)?;
    let mut values = DigestValues::new();
    values.set(HashingAlgorithm::Sha256, digest.0.as_slice().try_into().map_err(&fail)?);
    context
        .execute_with_session(Some(AuthSession::Password), |context| {
            context.pcr_extend(handle, values)
        })
        .map_err(&fail)
}

/// SHA-256 values of these PCRs, in this order.
pub(crate) fn read_pcrs(context: &mut Context, pcrs: &[u8]) -> Result<Vec<Bytes32>, TpmError> {
    let fail = TpmError::command("PCR_Read");
    let mut values = Vec::with_capacity(pcrs.len());
    // A TPM answers at most eight at once.
    for pcrs in pcrs.chunks(8) {
        let selection = selection(pcrs)?;
        let (_, _, digests) = context
            .execute_without_session(|context| context.pcr_read(selection))
            .map_err(&fail)?;
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
    let slots =
        pcrs.iter().map(|pcr| PcrSlot::try_from(1u32 << (pcr & 31))).collect::<Result<Vec<_>, _>>();
    PcrSelectionList::builder()
        .with_selection(HashingAlgorithm::Sha256, &slots.map_err(&fail)?)
        .build()
        .map_err(&fail)
}

/// The PCRs that a quote covers.
fn quoted_pcrs() -> Vec<u8> {
    (0..REQUIRED_PCRS as u8).collect()
}

/// Whether the TPM says that a handle, such as an NV index, does not exist.
pub(crate) fn is_missing(error: &tss_esapi::Error) -> bool {
    matches!(error, tss_esapi::Error::Tss2Error(code) if code.kind() == Some(Tss2ResponseCodeKind::Handle))
}
