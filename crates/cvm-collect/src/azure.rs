//! Azure's confidential VMs: evidence through the vTPM of the paravisor (HCL).
//!
//! The guest has no TEE device of its own. It writes its data to one NV index. The paravisor then
//! leaves a report at another. That report's data is the digest of the runtime data, which name the
//! vTPM's attestation key and the guest's data. A quote under that key binds the challenge and the
//! PCRs.
//!
//! Azure's metadata service must still turn a TDX guest's report into a quote. That takes a request
//! over HTTP, which this crate does not make. The verifier names the missing quote.

use std::{
    thread,
    time::{Duration, Instant},
};

use tss_esapi::{
    Context,
    abstraction::nv,
    attributes::NvIndexAttributesBuilder,
    handles::{KeyHandle, NvIndexTpmHandle, PersistentTpmHandle, TpmHandle},
    interface_types::{
        algorithm::HashingAlgorithm,
        resource_handles::{NvAuth, Provision},
        session_handles::AuthSession,
    },
    structures::{HashScheme, MaxNvBuffer, NvPublicBuilder, Signature, SignatureScheme},
    traits::Marshall,
};

use crate::{
    device::{Device, Kind, Raw, short_nonce},
    error::CollectError,
    tpm::{Tpm, is_missing, read_pcrs, selection},
};
use cvm_evidence::tpm::{Reader, parse_quote, pcr_digest};

/// Where the paravisor leaves its report.
const REPORT_INDEX: u32 = 0x0140_0001;
/// Where the guest writes what is to be bound.
const USER_DATA_INDEX: u32 = 0x0140_0002;
/// The attestation key that the paravisor made.
const KEY: u32 = 0x8100_0003;
/// All registers of the SHA-256 bank.
const PCRS: u8 = 24;
/// A report of 2600 bytes is usual.
const MAX_REPORT_BYTES: usize = 64 * 1024;
/// How long the paravisor may take to make a new report. Three seconds are usual.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(250);
/// How often a quote is made again because registers changed meanwhile.
const TRIES: u32 = 3;
const NAME: &str = "Azure's vTPM";

/// Azure's vTPM.
pub struct Azure {
    tpm: Tpm,
    patience: Duration,
}

impl Azure {
    /// Uses this TPM if it is Azure's: if it has the paravisor's report.
    ///
    /// # Errors
    /// [`CollectError::Absent`] for another TPM.
    pub fn open(mut tpm: Tpm) -> Result<Self, CollectError> {
        report(&mut tpm.context)?;
        Ok(Self { tpm, patience: PATIENCE })
    }

    /// Changes how long to wait for a new report: for tests.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Writes what is to be bound and waits for the report that binds it.
    fn bound_report(&mut self, report_data: &[u8; 64]) -> Result<Vec<u8>, CollectError> {
        let context = &mut self.tpm.context;
        write_user_data(context, report_data).map_err(|e| refused("take the report data", &e))?;
        let end = Instant::now() + self.patience;
        loop {
            let report = report(context)?;
            match user_data(&report)? {
                // An older paravisor binds its key only; the quote binds the challenge.
                None => return Ok(report),
                Some(found) if found.eq_ignore_ascii_case(&hex(report_data)) => return Ok(report),
                Some(_) if Instant::now() < end => thread::sleep(LOOK),
                Some(_) => {
                    let problem = "the report still binds other data".into();
                    return Err(CollectError::Busy { device: NAME.into(), problem });
                }
            }
        }
    }

    /// The rest of the evidence: a quote over all registers.
    fn quote(&mut self, hcl_report: Vec<u8>, nonce: [u8; 32]) -> Result<Raw, CollectError> {
        let fail = |error: &tss_esapi::Error| refused("make a quote", error);
        let answer = |error: &dyn std::fmt::Display| CollectError::answer(NAME, error.to_string());
        let context = &mut self.tpm.context;
        let handle = PersistentTpmHandle::new(KEY).map_err(|e| fail(&e))?;
        let key = context
            .execute_without_session(|c| c.tr_from_tpm_public(TpmHandle::Persistent(handle)));
        let key = KeyHandle::from(key.map_err(|e| fail(&e))?);
        let pcrs: Vec<u8> = (0..PCRS).collect();
        for _ in 0..TRIES {
            let data = nonce.to_vec().try_into().map_err(|e| fail(&e))?;
            let selection = selection(&pcrs).map_err(|e| answer(&e))?;
            let scheme =
                SignatureScheme::RsaSsa { hash_scheme: HashScheme::new(HashingAlgorithm::Sha256) };
            let (attest, signature) = context
                .execute_with_session(Some(AuthSession::Password), |c| {
                    c.quote(key, data, scheme, selection)
                })
                .map_err(|e| fail(&e))?;
            let message = attest.marshall().map_err(|e| fail(&e))?;
            let values = read_pcrs(context, &pcrs).map_err(|e| answer(&e))?;
            let Signature::RsaSsa(signature) = signature else {
                return Err(CollectError::answer(NAME, "a signature that is not RSASSA"));
            };
            if parse_quote(&message).map_err(|e| answer(&e))?.pcr_digest == pcr_digest(&values).0 {
                let signature = signature.signature().value().to_vec();
                let pcrs = values.into_iter().map(|value| value.0).collect();
                return Ok(Raw::Azure { hcl_report, quote: message, signature, pcrs });
            }
        }
        Err(CollectError::Busy {
            device: NAME.into(),
            problem: "the PCRs changed while they were quoted".into(),
        })
    }
}

impl Device for Azure {
    fn kind(&self) -> Kind {
        Kind::Azure
    }

    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<Raw, CollectError> {
        let hcl_report = self.bound_report(report_data)?;
        self.quote(hcl_report, short_nonce(report_data))
    }
}

fn report(context: &mut Context) -> Result<Vec<u8>, CollectError> {
    let index = NvIndexTpmHandle::new(REPORT_INDEX).map_err(|e| refused("give its report", &e))?;
    let read = context.execute_with_session(Some(AuthSession::Password), |c| {
        nv::read_full(c, NvAuth::Owner, index)
    });
    let report = read.map_err(|error| match is_missing(&error) {
        true => CollectError::Absent {
            device: NAME.into(),
            problem: format!("no NV index {REPORT_INDEX:#x}"),
        },
        false => refused("give its report", &error),
    })?;
    if report.len() > MAX_REPORT_BYTES || !report.starts_with(b"HCLA") {
        return Err(CollectError::answer(
            NAME,
            format!("{} bytes that are not an HCL report", report.len()),
        ));
    }
    Ok(report)
}

fn write_user_data(context: &mut Context, data: &[u8; 64]) -> tss_esapi::Result<()> {
    let index = NvIndexTpmHandle::new(USER_DATA_INDEX)?;
    let found =
        context.execute_without_session(|c| c.tr_from_tpm_public(TpmHandle::NvIndex(index)));
    let handle = match found {
        Ok(handle) => handle.into(),
        // The first one to ask makes the index.
        Err(error) if is_missing(&error) => {
            let attributes = NvIndexAttributesBuilder::new()
                .with_owner_write(true)
                .with_owner_read(true)
                .build()?;
            let public = NvPublicBuilder::new()
                .with_nv_index(index)
                .with_index_name_algorithm(HashingAlgorithm::Sha256)
                .with_index_attributes(attributes)
                .with_data_area_size(data.len())
                .build()?;
            context.execute_with_session(Some(AuthSession::Password), |c| {
                c.nv_define_space(Provision::Owner, None, public)
            })?
        }
        Err(error) => return Err(error),
    };
    let data = MaxNvBuffer::try_from(data.to_vec())?;
    context.execute_with_session(Some(AuthSession::Password), |c| {
        c.nv_write(NvAuth::Owner, handle, data, 0)
    })
}

/// The member `user-data` of the runtime data. They follow the header (0x20 bytes), the hardware
/// report (1184) and five numbers, the last of which is their length.
fn user_data(report: &[u8]) -> Result<Option<String>, CollectError> {
    let fail = |problem: &str| CollectError::answer(NAME, format!("an HCL report {problem}"));
    let mut r = Reader::at("HCL report", report, 0x4d0);
    let length = r.u32_le().map_err(|_| fail("without runtime data"))?;
    let json = r.take(length as usize).map_err(|_| fail("whose runtime data are cut off"))?;
    let json: serde_json::Value =
        serde_json::from_slice(json).map_err(|_| fail("whose runtime data are not JSON"))?;
    Ok(json.get("user-data").and_then(serde_json::Value::as_str).map(str::to_owned))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn refused(action: &'static str, error: &tss_esapi::Error) -> CollectError {
    CollectError::refused(NAME, action, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_reports_and_broken_ones() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/vectors/evidence/azure");
        for name in
            ["snp-trustee-evidence-v0", "snp-trustee-evidence-v1", "tdx-trustee-evidence-v0"]
        {
            let report = std::fs::read(folder.join(name).join("hcl.bin")).unwrap();
            let data = user_data(&report).unwrap();
            assert!(data.is_some_and(|data| data.len() == 128), "{name}");
            assert!(user_data(&report[..0x4d8]).is_err());
            let mut endless = report.clone();
            endless[0x4d0..0x4d4].fill(0xff);
            assert!(user_data(&endless).is_err());
        }
        assert!(user_data(b"HCLA").is_err());
    }
}
