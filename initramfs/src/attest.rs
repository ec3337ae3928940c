//! What this machine attests with: its TEE where it has one, else its TPM.
//!
//! A TEE's evidence comes first: a TPM beside it is the host's, and proves nothing against the
//! host. That TPM still measures, for anybody who looks at the running system. How the boot phase
//! ends depends on what attests:
//!
//! | attests | the end of the phase of secrets |
//! |---|---|
//! | TPM | PCR 11 is extended |
//! | TDX | RTMR3 is extended; a kernel that cannot (before Linux 6.16) does not boot here |
//! | SEV-SNP | nothing measures at run time: key holders release once per launch (REPORT_ID) |

use std::{error::Error, path::Path, sync::Mutex};

use cvm_collect::{CollectError, Device, Kind, RTMR3, Rtmr, tpm::Tpm};
use cvm_evidence::{
    td_handoff_digest, td_jobs_digest,
    trustee::{COLLATERAL, report_data},
};
use cvm_layout::p1::MAX_EVENT_LOG_BYTES;
use cvm_release::{binding::Binding, messages::Tee};
use cvm_release_https::Attester;
use serde_json::Value;

use crate::{
    codes::{Code, Coded, Failure},
    machine::Keeper,
    platform::kernel,
    tpm,
};

/// The ACPI table with the log of what a TD's firmware measured.
const CCEL: &str = "/sys/firmware/acpi/tables/data/CCEL";

/// What attests, and the TPM if there is one.
pub struct Platform {
    tee: Option<GuestDevice>,
    tpm: Option<Tpm>,
}

/// No key holder answers this boot any more, by what is measured: made only by
/// [`Platform::measure_handoff`].
#[derive(Debug)]
pub struct HandoffMeasured(());

struct GuestDevice {
    device: Box<dyn Device>,
    tee: Tee,
    /// A TD's register for the end of its boot.
    phase: Option<Rtmr>,
}

impl Platform {
    /// Mounts what it needs, and [finds](Self::find) it.
    pub fn open() -> Result<Self, Failure> {
        kernel::mount_configfs()?;
        Self::find()
    }

    /// Finds the TEE's device; without one, waits for the TPM.
    pub fn find() -> Result<Self, Failure> {
        match cvm_collect::open() {
            Ok(device) => Ok(Self {
                tee: Some(GuestDevice::new(device, Path::new(RTMR3))?),
                tpm: tpm::open_if_there()?,
            }),
            Err(CollectError::Absent { .. }) => Ok(Self { tee: None, tpm: Some(tpm::open()?) }),
            Err(error) => Err(Failure::new(Code::Evidence, error)),
        }
    }

    /// For the console.
    pub fn describe(&self) -> &'static str {
        match (&self.tee, &self.tpm) {
            (Some(GuestDevice { tee: Tee::Tdx, .. }), _) => "TDX",
            (Some(_), _) => "SEV-SNP",
            (None, _) => "TPM 2.0",
        }
    }

    /// The TPM, the host's or not.
    pub fn tpm(&mut self) -> Option<&mut Tpm> {
        self.tpm.as_mut()
    }

    /// Who keeps this machine's secrets: never a TPM beside a TEE, which is the host's.
    pub fn keeper(&mut self) -> Result<Keeper<'_>, Failure> {
        match (&mut self.tee, &mut self.tpm) {
            (Some(guest), _) => Ok(Keeper::Tee(guest.device.as_mut())),
            (None, Some(tpm)) => Ok(Keeper::Tpm(tpm)),
            (None, None) => Err(nothing_attests()),
        }
    }

    /// Makes evidence for the key holders, who may be asked at once. A TEE's takes `collateral`
    /// along; nothing that a vendor publishes vouches for a TPM.
    pub fn attester(
        &mut self,
        collateral: Option<&Value>,
    ) -> Result<Box<dyn Attester + Sync + '_>, Failure> {
        match (&mut self.tee, &mut self.tpm) {
            (Some(guest), _) => {
                let event_log = match guest.tee {
                    Tee::Tdx => Some(
                        cvm_base::read_bounded(Path::new(CCEL), MAX_EVENT_LOG_BYTES)
                            .code(Code::Evidence)?,
                    ),
                    _ => None,
                };
                let device: &mut dyn Device = guest.device.as_mut();
                let collateral = collateral.cloned();
                Ok(Box::new(TeeEvidence {
                    tee: guest.tee,
                    device: Mutex::new(device),
                    event_log,
                    collateral,
                }))
            }
            (None, Some(tpm)) => Ok(Box::new(tpm::Evidence::prepare(tpm)?)),
            (None, None) => Err(nothing_attests()),
        }
    }

    /// Measures the handoff wherever it can be measured.
    pub fn measure_handoff(self) -> Result<HandoffMeasured, Failure> {
        if let Some(phase) = self.tee.and_then(|guest| guest.phase) {
            phase.extend(&td_handoff_digest()).code(Code::HandoffMeasure)?;
        }
        self.tpm.map_or(Ok(()), tpm::measure_handoff)?;
        Ok(HandoffMeasured(()))
    }

    /// Measures, in the running system, that p5 is open. SEV-SNP cannot measure it, as it cannot
    /// measure the handoff.
    pub fn measure_jobs(self) -> Result<(), Failure> {
        if let Some(phase) = self.tee.and_then(|guest| guest.phase) {
            phase.extend(&td_jobs_digest()).code(Code::JobsMeasure)?;
        }
        self.tpm.map_or(Ok(()), tpm::measure_jobs)
    }
}

fn nothing_attests() -> Failure {
    Failure::new(Code::Tpm, "neither a TEE nor a TPM was opened")
}

impl GuestDevice {
    fn new(device: Box<dyn Device>, rtmr3: &Path) -> Result<Self, Failure> {
        let (tee, phase) = match device.kind() {
            Kind::Snp => (Tee::Snp, None),
            // This is found out before any secret is there: a boot whose end cannot be measured
            // must not begin.
            Kind::Tdx => (Tee::Tdx, Some(Rtmr::open(rtmr3).code(Code::HandoffMeasure)?)),
            other => {
                return Err(Failure::new(
                    Code::Evidence,
                    format_args!("a device of kind {other:?}"),
                ));
            }
        };
        Ok(Self { device, tee, phase })
    }
}

/// Makes a TEE's evidence, for one boot.
struct TeeEvidence<'a> {
    tee: Tee,
    /// The kernel has one buffer, so exchanges wait for each other.
    device: Mutex<&'a mut dyn Device>,
    event_log: Option<Vec<u8>>,
    collateral: Option<Value>,
}

impl Attester for TeeEvidence<'_> {
    fn tee(&self) -> Tee {
        self.tee
    }

    fn auth_params(&self) -> Result<String, Box<dyn Error + Send + Sync>> {
        Ok(String::new())
    }

    fn evidence(&self, _: &str, binding: &Binding) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let mut device =
            self.device.lock().map_err(|_| "the device was lost in another exchange")?;
        let raw = device.evidence(&report_data(&binding.0))?;
        let (tee, mut body) = raw.to_trustee(self.event_log.clone())?;
        if tee != self.tee.name() {
            return Err(format!("the device gave evidence of kind {tee}").into());
        }
        if let Some(collateral) = &self.collateral {
            body[COLLATERAL] = collateral.clone();
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests;
