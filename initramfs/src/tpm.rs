//! The TPM: evidence for the key holders, and the measured end of the boot phase.

use std::{error::Error, path::Path, sync::Mutex};

use cvm_collect::tpm::{AttestationKey, DEFAULT_DEVICE, Tpm};
use cvm_evidence::{JOBS_PCR, handoff_digest, jobs_digest, wire::CredentialChallenge};
use cvm_layout::p1::MAX_EVENT_LOG_BYTES;
use cvm_release::{binding::Binding, messages::Tee};
use cvm_release_https::Attester;

use crate::{
    codes::{Code, Coded, Failure},
    platform::wait,
};

/// The firmware's log of what it measured.
const EVENT_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
/// The register of the UKI and of the boot phases.
const PHASE_PCR: u8 = 11;
/// Where the driver of a TPM 2.0 with a Command Response Buffer takes on a device
/// (Documentation/ABI, sysfs-bus…bind).
const DRIVER_BIND: &str = "/sys/bus/acpi/drivers/tpm_crb/bind";
/// The first TPM 2.0 in ACPI's name space (TCG ACPI Specification 1.4, table 5).
const TPM_DEVICE: &str = "MSFT0101:00";

/// Waits for the TPM and opens it.
pub fn open() -> Result<Tpm, Failure> {
    let look = || std::fs::metadata(DEFAULT_DEVICE).inspect_err(|_| probe_again());
    wait::until(wait::DEVICES, look).code_at(Code::Tpm, DEFAULT_DEVICE)?;
    Tpm::open_device(DEFAULT_DEVICE).code(Code::Tpm)
}

/// Linux gives a TPM up whose first answers take longer than the specification allows, which a
/// software TPM's on a busy host do, and never looks again by itself. A driver that has its TPM, or
/// a machine without one, refuses this.
fn probe_again() {
    let _ = std::fs::write(DRIVER_BIND, TPM_DEVICE);
}

/// Opens the TPM if the firmware's devices include one; nobody waits for it.
pub fn open_if_there() -> Result<Option<Tpm>, Failure> {
    match Path::new(DEFAULT_DEVICE).exists() {
        true => Tpm::open_device(DEFAULT_DEVICE).code(Code::Tpm).map(Some),
        false => Ok(None),
    }
}

/// What the firmware measured; empty where it measures into no TPM.
pub fn event_log() -> Result<Vec<u8>, Failure> {
    match Path::new(EVENT_LOG).exists() {
        true => {
            cvm_base::read_bounded(Path::new(EVENT_LOG), MAX_EVENT_LOG_BYTES).code(Code::Evidence)
        }
        false => Ok(Vec::new()),
    }
}

/// Measures the handoff: from here on, no key holder releases anything to this boot.
pub fn measure_handoff(mut tpm: Tpm) -> Result<(), Failure> {
    tpm.extend_pcr(PHASE_PCR, &handoff_digest()).code(Code::HandoffMeasure)
}

/// Measures that p5 is open: from here on, no key holder releases its half again to this boot.
pub fn measure_jobs(mut tpm: Tpm) -> Result<(), Failure> {
    tpm.extend_pcr(JOBS_PCR, &jobs_digest()).code(Code::JobsMeasure)
}

/// Makes evidence for one boot; key holders asked at once share the key.
pub struct Evidence<'a> {
    key: Mutex<AttestationKey<'a>>,
    params: String,
    event_log: Vec<u8>,
}

impl<'a> Evidence<'a> {
    /// Makes the attestation key and reads the event log.
    pub fn prepare(tpm: &'a mut Tpm) -> Result<Self, Failure> {
        let event_log = event_log()?;
        let key = tpm.create_ak().code(Code::Evidence)?;
        let params = serde_json::to_string(key.handshake_params()).code(Code::Evidence)?;
        Ok(Self { key: Mutex::new(key), params, event_log })
    }
}

impl Attester for Evidence<'_> {
    fn tee(&self) -> Tee {
        Tee::Tpm
    }

    fn auth_params(&self) -> Result<String, Box<dyn Error + Send + Sync>> {
        Ok(self.params.clone())
    }

    fn evidence(
        &self,
        params: &str,
        binding: &Binding,
    ) -> Result<serde_json::Value, Box<dyn Error + Send + Sync>> {
        let challenge: CredentialChallenge = serde_json::from_str(params)?;
        let mut key = self.key.lock().map_err(|_| "the TPM was lost in another exchange")?;
        Ok(serde_json::to_value(key.answer(&challenge, &binding.0, &self.event_log)?)?)
    }
}
