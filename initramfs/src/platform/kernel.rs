//! Kernel interfaces: mounts, the power, and the one ioctl that has no safe wrapper.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::Path,
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot, set_cad_enabled},
};

use super::wait;
use crate::{
    codes::{Code, Coded, Failure},
    console::PowerSwitch,
};

const NOSUID: MsFlags = MsFlags::MS_NOSUID;
const NOTHING: MsFlags = NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// What is mounted before anything else: file system, where, flags, options.
const INTERFACES: [(&str, &str, MsFlags, &str); 6] = [
    ("proc", "/proc", NOTHING, ""),
    ("sysfs", "/sys", NOTHING, ""),
    ("devtmpfs", "/dev", NOSUID.union(MsFlags::MS_NOEXEC), "mode=0755"),
    ("tmpfs", "/run", NOSUID.union(MsFlags::MS_NODEV), "mode=0755"),
    ("securityfs", "/sys/kernel/security", NOTHING, ""),
    ("tmpfs", SCRATCH, NOTHING, "mode=0700"),
];

/// RAM in which file systems are made; it is unmounted before the handoff.
pub const SCRATCH: &str = "/scratch";

/// Mounts the kernel's interfaces and a scratch file system in RAM.
pub fn mount_interfaces() -> Result<(), Failure> {
    for (kind, target, flags, options) in INTERFACES {
        fs::create_dir_all(target).code_at(Code::Interfaces, target)?;
        mount(Some(kind), target, Some(kind), flags, Some(options))
            .code_at(Code::Interfaces, target)?;
    }
    // Ctrl-Alt-Del on the host's console must not reboot a machine that holds keys.
    set_cad_enabled(false).code_at(Code::Interfaces, "Ctrl-Alt-Del")
}

/// Where the kernel has its interface for reports of TEEs.
const CONFIGFS: &str = "/sys/kernel/config";

/// Mounts configfs, if the kernel has it; its module is loaded by then.
pub fn mount_configfs() -> Result<(), Failure> {
    match Path::new(CONFIGFS).is_dir() {
        true => mount(Some("configfs"), CONFIGFS, Some("configfs"), NOTHING, None::<&str>)
            .code_at(Code::Interfaces, CONFIGFS),
        false => Ok(()),
    }
}

/// Makes the block device refuse every write until the power goes.
#[allow(unsafe_code, reason = "nix wraps no BLKROSET; the call passes one valid pointer to an int")]
pub fn set_read_only(device: &Path) -> io::Result<()> {
    // <linux/fs.h>: #define BLKROSET _IO(0x12, 93)
    nix::ioctl_write_ptr_bad!(blkroset, nix::request_code_none!(0x12, 93), nix::libc::c_int);
    let file = File::open(device)?;
    // SAFETY: BLKROSET reads one int through the pointer, which points to a live one, and keeps
    // nothing; the descriptor is open for the length of the call.
    unsafe { blkroset(file.as_raw_fd(), &1) }?;
    Ok(())
}

/// The real machine.
pub struct Power;

impl PowerSwitch for Power {
    fn close(&self) {
        nix::unistd::sync();
    }

    fn power_off(&self) {
        // Where the kernel cannot switch off, this boot must not go on either, and PID 1 must not
        // end.
        loop {
            let _ = reboot(RebootMode::RB_POWER_OFF);
            thread::sleep(wait::POLL);
        }
    }
}
