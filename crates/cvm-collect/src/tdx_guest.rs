//! TDX quotes on kernels before 6.7: `/dev/tdx_guest` and the host's quote generation service over
//! vsock.
//!
//! The device itself gives only a TDREPORT, which only this processor can check. The service's
//! enclave turns it into a quote. The configfs interface does both in the kernel, and is always
//! preferred.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use nix::sys::{
    socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, setsockopt, socket, sockopt},
    time::{TimeVal, TimeValLike as _},
};

use crate::{
    bound::check_bound,
    device::{Device, Kind, Raw},
    error::CollectError,
    ioctl::tdx_report,
    qgs::quote_over,
};

/// Where the kernel has it.
pub(crate) const DEVICE: &str = "/dev/tdx_guest";
/// How long one read or write may take, in seconds.
const PATIENCE: i64 = 30;

/// Where the host's quote generation service listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QgsAddress {
    /// The context: 2 is the host.
    pub cid: u32,
    /// The port: 4050 unless the host was told otherwise.
    pub port: u32,
}

impl Default for QgsAddress {
    fn default() -> Self {
        Self { cid: 2, port: 4050 }
    }
}

/// `/dev/tdx_guest`.
#[derive(Debug)]
pub struct TdxGuest {
    name: String,
    device: File,
    service: QgsAddress,
}

impl TdxGuest {
    /// Opens the device; the service is asked only for evidence.
    ///
    /// # Errors
    /// [`CollectError::Absent`] where there is none.
    pub fn open(path: &Path, service: QgsAddress) -> Result<Self, CollectError> {
        let name = path.display().to_string();
        let device = File::options().read(true).write(true).open(path);
        let device = device.map_err(|error| CollectError::io(&name, "be opened", &error))?;
        Ok(Self { name, device, service })
    }
}

impl Device for TdxGuest {
    fn kind(&self) -> Kind {
        Kind::Tdx
    }

    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<Raw, CollectError> {
        let report = tdx_report(&self.device, report_data);
        let report =
            report.map_err(|errno| CollectError::refused(&self.name, "make a TD report", errno))?;
        let mut stream = dial(self.service).map_err(|error| {
            let QgsAddress { cid, port } = self.service;
            let device = format!("quote generation service at vsock {cid}:{port}");
            let problem = format!("{error}; a kernel with configfs-tsm (6.7) needs none");
            CollectError::Absent { device, problem }
        })?;
        let quote = quote_over(&mut stream, &report)?;
        check_bound(&self.name, Kind::Tdx, &quote, report_data)?;
        Ok(Raw::Tdx { quote })
    }
}

fn dial(service: QgsAddress) -> io::Result<File> {
    let socket: OwnedFd =
        socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let limit = TimeVal::seconds(PATIENCE);
    setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
    setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    // The kernel bounds the connection itself (two seconds).
    connect(socket.as_raw_fd(), &VsockAddr::new(service.cid, service.port))?;
    Ok(File::from(socket))
}
