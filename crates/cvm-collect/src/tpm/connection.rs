//! A connection to a TPM: commands that are repeated where no answer came, and its PCRs.

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
    tcti_ldr::{DeviceConfig, TctiNameConf},
};

use super::error::TpmError;
use cvm_evidence::{eventlog, tpm::REQUIRED_PCRS};

/// The kernel's resource-managed TPM.
pub const DEFAULT_TCTI: &str = "device:/dev/tpmrm0";
/// Its path.
pub const DEFAULT_DEVICE: &str = "/dev/tpmrm0";

/// How long to go on asking a TPM that does not answer in the kernel's time.
const PATIENCE: Duration = Duration::from_secs(15);

/// A connection to a TPM 2.0.
pub struct Tpm {
    pub(crate) context: Context,
    tcti: TctiNameConf,
    /// `tcti` as it was named, for messages.
    name: String,
}

/// Repeats `attempt`, for 15 seconds, while the TPM does not answer in the time that Linux gives
/// it. `attempt` opens the TPM itself, and must be safe to run twice.
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

fn connect(tcti: &TctiNameConf, name: &str) -> Result<Context, TpmError> {
    Context::new(tcti.clone()).map_err(|source| TpmError::Open { tcti: name.into(), source })
}

impl Tpm {
    /// Connects. `name` is `device:PATH` (the kernel's: [`DEFAULT_TCTI`]) or `swtpm:path=SOCKET`,
    /// `swtpm:host=…,port=…` for a process.
    ///
    /// # Errors
    /// [`TpmError::Open`] when no TPM is there.
    pub fn open(name: &str) -> Result<Self, TpmError> {
        if let Some(path) = name.strip_prefix("device:") {
            return Self::open_device(path);
        }
        let fail = |source| TpmError::Open { tcti: name.into(), source };
        let tcti = TctiNameConf::from_str(name).map_err(fail)?;
        Ok(Self { context: connect(&tcti, name)?, tcti, name: name.into() })
    }

    /// Connects to the kernel's TPM at `path`: all that PID 1 needs. [`Self::open`] brings an
    /// engine for regular expressions, by which tss-esapi reads the names of others.
    ///
    /// # Errors
    /// [`TpmError::Open`] when no TPM is there.
    pub fn open_device(path: &str) -> Result<Self, TpmError> {
        let name = format!("device:{path}");
        let fail = |source| TpmError::Open { tcti: name.clone(), source };
        let tcti = TctiNameConf::Device(DeviceConfig::from_str(path).map_err(fail)?);
        // Nobody waits for a TPM that does not exist.
        let there = Path::new(path).exists();
        let attempt = || connect(&tcti, &name);
        let context = if there { patiently(attempt)? } else { attempt()? };
        Ok(Self { context, tcti, name })
    }

    /// Does `work`. Where no answer came, does it again over a new connection. So `work` must be
    /// safe to run twice, and must keep nothing of the old connection.
    pub(super) fn again<T>(
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

    pub(super) fn reconnect(&mut self) -> Result<(), TpmError> {
        self.context = connect(&self.tcti, &self.name)?;
        Ok(())
    }

    /// A SHA-256 PCR's value.
    ///
    /// # Errors
    /// [`TpmError::Command`], also when the TPM has no SHA-256 bank.
    pub fn read_pcr(&mut self, pcr: u8) -> Result<Bytes32, TpmError> {
        self.again(|tpm| read_pcrs(&mut tpm.context, &[pcr])).map(|values| values[0])
    }

    /// Extends a register of the SHA-256 bank by TPM2_PCR_Extend, exactly once, and reads it back.
    /// Where no answer came, the register tells whether the command ran. A TPM that only claims to
    /// have extended it is found out.
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
pub(super) fn quoted_pcrs() -> Vec<u8> {
    (0..REQUIRED_PCRS as u8).collect()
}

/// Whether the TPM says that a handle, such as an NV index, does not exist.
pub(crate) fn is_missing(error: &tss_esapi::Error) -> bool {
    matches!(
        error,
        tss_esapi::Error::Tss2Error(code) if code.kind() == Some(Tss2ResponseCodeKind::Handle)
    )
}
