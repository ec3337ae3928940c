//! SNP reports on kernels before 6.7: `/dev/sev-guest`.

use std::{fs::File, path::Path};

use super::{
    CollectError, Device, Kind, Raw, SNP_REPORT_BYTES,
    certificates::{MAX_TABLE_BYTES, parse_certificate_table},
    check_bound,
    ioctl::{SNP_VMM_INVALID_LENGTH, snp_report},
};

/// Where the kernel has it.
pub(super) const DEVICE: &str = "/dev/sev-guest";

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
        let response = response.map_err(|failure| {
            let problem = format!(
                "{}, firmware error {:#x}, hypervisor error {:#x}",
                failure.errno, failure.firmware, failure.hypervisor
            );
            CollectError::refused(&self.name, "make a report", problem)
        })?;
        let report = report(&response).map_err(|problem| CollectError::answer(&self.name, problem))?;
        check_bound(&self.name, Kind::Snp, report, report_data)?;
        Ok(Raw::Snp { report: report.to_vec(), certificates: parse_certificate_table(&table)? })
    }
}

/// The report in a `MSG_REPORT_RSP` (AMD 56860, table 25): status, size, 24 reserved bytes, report.
fn report(response: &[u8]) -> Result<&[u8], String> {
    let u32_at = |at: usize| response.get(at..).and_then(<[u8]>::first_chunk).map(|v| u32::from_le_bytes(*v));
    match (u32_at(0), u32_at(4)) {
        (Some(0), Some(size)) if size as usize == SNP_REPORT_BYTES => {
            response.get(32..32 + SNP_REPORT_BYTES).ok_or_else(|| "a response that is cut off".into())
        }
        (Some(0), Some(size)) => Err(format!("a report of {size} bytes, expected {SNP_REPORT_BYTES}")),
        (Some(status), _) => Err(format!("firmware status {status:#x}")),
        _ => Err("a response that is cut off".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
