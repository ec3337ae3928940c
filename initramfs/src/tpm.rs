//! The TPM: evidence for the key holders, and the measured end of the boot phase.

use std::{error::Error, path::Path, sync::Mutex};

use cvm_attest::{
    attester::{AttestationKey, DEFAULT_TCTI, Tpm},
    handoff_digest,
    wire::CredentialChallenge,
};
use cvm_base::sha256;
use cvm_release::{binding::Binding, client::http::Attester, messages::Tee};

use crate::{
    codes::{Code, Coded, Failure},
    platform::wait,
};

const DEVICE: &str = "/dev/tpmrm0";
/// The firmware's log of what it measured.
const EVENT_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
/// OVMF's log has a few KiB; a longer one would not fit a request.
const EVENT_LOG_BYTES: u64 = 128 * 1024;
/// The register of the UKI and of the boot phases.
const PHASE_PCR: u8 = 11;

/// Waits for the TPM and opens it.
pub fn open() -> Result<Tpm, Failure> {
    wait::until(wait::DEVICES, || std::fs::metadata(DEVICE)).code_at(Code::Tpm, DEVICE)?;
    Tpm::open(DEFAULT_TCTI).code(Code::Tpm)
}

/// Opens the TPM if the firmware's devices include one; nobody waits for it.
pub fn open_if_there() -> Result<Option<Tpm>, Failure> {
    match Path::new(DEVICE).exists() {
        true => Tpm::open(DEFAULT_TCTI).code(Code::Tpm).map(Some),
        false => Ok(None),
    }
}

/// What the firmware measured; empty where it measures into no TPM.
pub fn event_log() -> Result<Vec<u8>, Failure> {
    match Path::new(EVENT_LOG).exists() {
        true => cvm_base::read_bounded(Path::new(EVENT_LOG), EVENT_LOG_BYTES).code(Code::Evidence),
        false => Ok(Vec::new()),
    }
}

/// Measures the handoff: from here on, no key holder releases anything to this boot.
pub fn measure_handoff(mut tpm: Tpm) -> Result<(), Failure> {
    let before = tpm.read_pcr(PHASE_PCR).code(Code::HandoffMeasure)?;
    tpm.extend_pcr(PHASE_PCR, &handoff_digest()).code(Code::HandoffMeasure)?;
    // A TPM that only says so would leave the secrets' phase open.
    let after = tpm.read_pcr(PHASE_PCR).code(Code::HandoffMeasure)?;
    let expected = sha256(&[before.0, handoff_digest().0].concat());
    if after == expected {
        return Ok(());
    }
    Err(Failure::new(Code::HandoffMeasure, format_args!("PCR {PHASE_PCR} is {after}, expected {expected}")))
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

    fn evidence(&self, params: &str, binding: &Binding) -> Result<serde_json::Value, Box<dyn Error + Send + Sync>> {
        let challenge: CredentialChallenge = serde_json::from_str(params)?;
        let mut key = self.key.lock().map_err(|_| "the TPM was lost in another exchange")?;
        Ok(serde_json::to_value(key.answer(&challenge, &binding.0, &self.event_log)?)?)
    }
}
