//! The four system calls without a safe wrapper: older kernels' guest devices.
//!
//! `include/uapi/linux/sev-guest.h`, `include/uapi/linux/tdx-guest.h`. Every structure that the
//! kernel is given a pointer to lives on this function's stack or in a buffer that it owns, for the
//! whole call.
#![allow(unsafe_code, reason = "nix wraps no ioctl of sev-guest or tdx-guest")]

use std::{fs::File, os::fd::AsRawFd as _};

use nix::errno::Errno;
use zeroize::Zeroizing;

/// `struct snp_report_resp`.
const SNP_RESPONSE_BYTES: usize = 4000;

#[repr(C)]
struct SnpGuestRequest {
    message_version: u8,
    request: u64,
    response: u64,
    /// Low half: the firmware's error; high half: the hypervisor's.
    exit_info: u64,
}

#[repr(C)]
struct SnpReportRequest {
    user_data: [u8; 64],
    vmpl: u32,
    reserved: [u8; 28],
}

#[repr(C)]
struct SnpExtendedRequest {
    report: SnpReportRequest,
    certificates: u64,
    certificates_length: u32,
}

/// `struct snp_derived_key_req`: `MSG_KEY_REQ` (AMD 56860, §7.2).
#[repr(C)]
struct SnpKeyRequest {
    /// 0: the VCEK, so the chip; 1: the VMRK.
    root_key: u32,
    reserved: u32,
    /// What is mixed in.
    fields: u64,
    vmpl: u32,
    guest_svn: u32,
    tcb_version: u64,
}

/// What a derived key depends on besides the chip: GUEST_POLICY, IMAGE_ID, FAMILY_ID and
/// MEASUREMENT, so exactly this image under exactly this policy. Not GUEST_SVN, which nobody sets
/// here, and not TCB_VERSION: an update of the host's firmware must not lose the image's data, and
/// refusing a rolled-back one is a policy's work (reported_tcb).
const SNP_KEY_FIELDS: u64 = 0b1111;
/// `struct snp_derived_key_resp`: status (4), reserved (28), key (32).
const SNP_KEY_RESPONSE_BYTES: usize = 64;

#[repr(C)]
struct TdxReportRequest {
    report_data: [u8; 64],
    report: [u8; 1024],
}

nix::ioctl_readwrite!(snp_get_report, b'S', 0x0, SnpGuestRequest);
nix::ioctl_readwrite!(snp_get_derived_key, b'S', 0x1, SnpGuestRequest);
nix::ioctl_readwrite!(snp_get_extended_report, b'S', 0x2, SnpGuestRequest);
nix::ioctl_readwrite!(tdx_get_report, b'T', 0x1, TdxReportRequest);

/// What the firmware or the hypervisor said, beside the system's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SnpFailure {
    pub(crate) errno: Errno,
    pub(crate) firmware: u32,
    pub(crate) hypervisor: u32,
}

/// The hypervisor has more certificates than there is room for (SNP_GUEST_VMM_ERR_INVALID_LEN).
pub(crate) const SNP_VMM_INVALID_LENGTH: u32 = 1;

/// `MSG_REPORT_RSP` for this report data at VMPL 0; with room for certificates also those.
pub(crate) fn snp_report(
    device: &File,
    report_data: &[u8; 64],
    certificates: Option<&mut [u8]>,
) -> Result<Vec<u8>, SnpFailure> {
    let mut response = vec![0_u8; SNP_RESPONSE_BYTES];
    let report = SnpReportRequest { user_data: *report_data, vmpl: 0, reserved: [0; 28] };
    let mut extended = SnpExtendedRequest { report, certificates: 0, certificates_length: 0 };
    let with_certificates = certificates.is_some();
    if let Some(room) = certificates {
        extended.certificates = room.as_mut_ptr() as u64;
        extended.certificates_length = room.len() as u32;
    }
    let mut request = SnpGuestRequest {
        message_version: 1,
        // A plain request is the extended one's beginning.
        request: &raw mut extended as u64,
        response: response.as_mut_ptr() as u64,
        exit_info: 0,
    };
    // SAFETY: the descriptor is open; `request` points to `extended`, to `response` of the size
    // that the kernel writes, and through `extended` to `room` of the stated length; all outlive
    // the call, and nothing else uses them meanwhile.
    let result = unsafe {
        if with_certificates {
            snp_get_extended_report(device.as_raw_fd(), &raw mut request)
        } else {
            snp_get_report(device.as_raw_fd(), &raw mut request)
        }
    };
    result.map(|_| response).map_err(|errno| SnpFailure::new(errno, &request))
}

/// `MSG_KEY_RSP`: secret.
pub(crate) fn snp_derived_key(
    device: &File,
) -> Result<Zeroizing<[u8; SNP_KEY_RESPONSE_BYTES]>, SnpFailure> {
    let mut response = Zeroizing::new([0_u8; SNP_KEY_RESPONSE_BYTES]);
    let key = SnpKeyRequest {
        root_key: 0,
        reserved: 0,
        fields: SNP_KEY_FIELDS,
        vmpl: 0,
        guest_svn: 0,
        tcb_version: 0,
    };
    let mut request = SnpGuestRequest {
        message_version: 1,
        request: &raw const key as u64,
        response: response.as_mut_ptr() as u64,
        exit_info: 0,
    };
    // SAFETY: the descriptor is open; `request` points to `key`, which the kernel reads, and to
    // `response` of the size that it writes; all outlive the call, and nothing else uses them
    // meanwhile.
    let result = unsafe { snp_get_derived_key(device.as_raw_fd(), &raw mut request) };
    result.map(|_| response).map_err(|errno| SnpFailure::new(errno, &request))
}

impl SnpFailure {
    fn new(errno: Errno, request: &SnpGuestRequest) -> Self {
        Self {
            errno,
            firmware: request.exit_info as u32,
            hypervisor: (request.exit_info >> 32) as u32,
        }
    }
}

/// A TDREPORT: signed with a key of this processor only, so of use to nobody elsewhere.
pub(crate) fn tdx_report(device: &File, report_data: &[u8; 64]) -> Result<[u8; 1024], Errno> {
    let mut request = TdxReportRequest { report_data: *report_data, report: [0; 1024] };
    // SAFETY: the descriptor is open, and `request` outlives the call.
    unsafe { tdx_get_report(device.as_raw_fd(), &raw mut request) }?;
    Ok(request.report)
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn structures_are_laid_out_as_in_the_kernels_headers() {
        assert_eq!(
            (size_of::<SnpGuestRequest>(), offset_of!(SnpGuestRequest, exit_info)),
            (32, 24)
        );
        assert_eq!(size_of::<SnpReportRequest>(), 96);
        assert_eq!(
            (size_of::<SnpExtendedRequest>(), offset_of!(SnpExtendedRequest, certificates)),
            (112, 96)
        );
        assert_eq!((size_of::<SnpKeyRequest>(), offset_of!(SnpKeyRequest, tcb_version)), (32, 24));
        assert_eq!(size_of::<TdxReportRequest>(), 1088);
        assert_eq!(
            nix::request_code_readwrite!(b'S', 0x0, size_of::<SnpGuestRequest>()),
            0xc020_5300
        );
        assert_eq!(
            nix::request_code_readwrite!(b'S', 0x1, size_of::<SnpGuestRequest>()),
            0xc020_5301
        );
        assert_eq!(
            nix::request_code_readwrite!(b'T', 0x1, size_of::<TdxReportRequest>()),
            0xc440_5401
        );
    }

    #[test]
    fn another_kind_of_file_refuses() {
        let null = File::open("/dev/null").unwrap();
        assert_eq!(snp_report(&null, &[0; 64], None).unwrap_err().errno, Errno::ENOTTY);
        assert_eq!(
            snp_report(&null, &[0; 64], Some(&mut [0; 64])).unwrap_err().errno,
            Errno::ENOTTY
        );
        assert_eq!(snp_derived_key(&null).unwrap_err().errno, Errno::ENOTTY);
        assert_eq!(tdx_report(&null, &[0; 64]).unwrap_err(), Errno::ENOTTY);
    }
}
