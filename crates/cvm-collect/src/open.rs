//! Which TEE this guest has.

use std::path::Path;

use crate::{
    device::Device,
    error::CollectError,
    sev_guest::{self, SevGuest},
    tdx_guest::{self, QgsAddress, TdxGuest},
    tsm::{TSM_REPORTS, Tsm},
};

/// The guest's own TEE, by the newest interface that its kernel has: configfs, then the older
/// devices.
///
/// # Errors
/// [`CollectError::Absent`] when this is not an SNP or TDX guest; any other error of the device
/// that was found.
pub fn open() -> Result<Box<dyn Device>, CollectError> {
    match Tsm::open(Path::new(TSM_REPORTS)) {
        Ok(tsm) => return Ok(Box::new(tsm)),
        Err(CollectError::Absent { .. }) => {}
        Err(other) => return Err(other),
    }
    open_devices()
}

/// The guest's own TEE for a program that is not root: through the devices, whose group udev or
/// systemd can set. All that configfs makes belongs to root, even in a folder that another user
/// made.
///
/// # Errors
/// As [`open`].
pub fn open_devices() -> Result<Box<dyn Device>, CollectError> {
    match SevGuest::open(Path::new(sev_guest::DEVICE)) {
        Ok(device) => return Ok(Box::new(device)),
        Err(CollectError::Absent { .. }) => {}
        Err(other) => return Err(other),
    }
    match TdxGuest::open(Path::new(tdx_guest::DEVICE), QgsAddress::default()) {
        Ok(device) => Ok(Box::new(device)),
        Err(CollectError::Absent { .. }) => Err(CollectError::Absent {
            device: "SNP or TDX guest device".into(),
            problem: format!("neither {} nor {}", sev_guest::DEVICE, tdx_guest::DEVICE),
        }),
        Err(other) => Err(other),
    }
}
