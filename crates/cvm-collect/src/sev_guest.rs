//! SNP reports on kernels before 6.7: `/dev/sev-guest`.

use std::{fmt, fs::File, path::Path};

use zeroize::Zeroizing;

use cvm_evidence::{certificate_table::MAX_TABLE_BYTES, tpm::Reader};

use crate::{
    bound::{SNP_REPORT_BYTES, check_bound, host_certificates},
    device::{Device, Kind, Raw},
    error::CollectError,
    ioctl::{SNP_VMM_INVALID_LENGTH, SnpFailure, snp_derived_key, snp_report},
};

/// Where the kernel has it.
pub(crate) const DEVICE: &str = "/dev/sev-guest";

/// `/dev/sev-guest`.
#[derive(Debug)]
pub struct SevGuest {
    name: String,
    device: File,
}

impl SevGuest {
    /// Opens the device.
    ///
    /// # Errors
    /// [`CollectError::Absent`] where there is none.
    pub fn open(path: &Path) -> Result<Self, CollectError> {
        let name = path.display().to_string();
        let device = File::options().read(true).write(true).open(path);
        let device = device.map_err(|error| CollectError::io(&name, "be opened", &error))?;
        Ok(Self { name, device })
    }
}

impl Device for SevGuest {
    fn kind(&self) -> Kind {
        Kind::Snp
    }

    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<Raw, CollectError> {
        let mut table = vec![0; MAX_TABLE_BYTES];
        let response = snp_report(&self.device, report_data, Some(&mut table)).or_else(|failure| {
            // A host with more certificates than fit: the report without them.
            table.clear();
            if failure.hypervisor == SNP_VMM_INVALID_LENGTH {
                snp_report(&self.device, report_data, None)
            } else {
                Err(failure)
            }
        });
        let response = response
            .map_err(|failure| CollectError::refused(&self.name, "make a report", failure))?;
        let report =
            report(&response).map_err(|problem| CollectError::answer(&self.name, problem))?;
        check_bound(&self.name, Kind::Snp, report, report_data)?;
        Ok(Raw::Snp { report: report.to_vec(), certificates: host_certificates(&table)? })
    }

    fn derived_key(&mut self) -> Result<Option<Zeroizing<[u8; 32]>>, CollectError> {
        let response = snp_derived_key(&self.device);
        let response = response
            .map_err(|failure| CollectError::refused(&self.name, "derive a key", failure))?;
        key(&response).map(Some).map_err(|problem| CollectError::answer(&self.name, problem))
    }
}

impl fmt::Display for SnpFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { errno, firmware, hypervisor } = self;
        write!(f, "{errno}, firmware error {firmware:#x}, hypervisor error {hypervisor:#x}")
    }
}

/// The key in a `MSG_KEY_RSP` (AMD 56860, §7.2): status, 28 reserved bytes, key.
fn key(response: &[u8; 64]) -> Result<Zeroizing<[u8; 32]>, String> {
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&response[32..]);
    match response.first_chunk().map(|status| u32::from_le_bytes(*status)) {
        // A hypervisor that answers in the firmware's place has no key, and zeros are everybody's.
        Some(0) if key.iter().any(|byte| *byte != 0) => Ok(key),
        Some(0) => Err("a derived key of zeros".into()),
        status => Err(format!("firmware status {:#x}", status.unwrap_or_default())),
    }
}

/// The report in a `MSG_REPORT_RSP` (AMD 56860, table 25): status, size, 24 reserved bytes, report.
fn report(response: &[u8]) -> Result<&[u8], String> {
    let cut_off = |_| "a response that is cut off".to_owned();
    let mut r = Reader::new("response", response);
    let status = r.u32_le().map_err(cut_off)?;
    if status != 0 {
        return Err(format!("firmware status {status:#x}"));
    }
    let size = r.u32_le().map_err(cut_off)?;
    if size as usize != SNP_REPORT_BYTES {
        return Err(format!("a report of {size} bytes, expected {SNP_REPORT_BYTES}"));
    }
    r.take(24).and_then(|_reserved| r.take(SNP_REPORT_BYTES)).map_err(cut_off)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_firmware() {
        let mut response = [0; 64];
        response[32..].fill(7);
        assert_eq!(*key(&response).unwrap(), [7; 32]);
        response[0] = 0x16;
        assert!(key(&response).unwrap_err().contains("0x16"));
        assert!(key(&[0; 64]).unwrap_err().contains("zeros"));
    }

    #[test]
    fn responses_of_the_firmware() {
        let mut response = vec![0; 4000];
        response[4..8].copy_from_slice(&1184_u32.to_le_bytes());
        response[32..36].copy_from_slice(&5_u32.to_le_bytes());
        assert_eq!(report(&response).unwrap()[..4], [5, 0, 0, 0]);
        response[4] = 0;
        assert!(report(&response).unwrap_err().contains("expected 1184"));
        response[0] = 0x16;
        assert!(report(&response).unwrap_err().contains("0x16"));
        assert!(report(&response[..6]).is_err() && report(&[]).is_err());
    }
}
