//! The checks of the gate, by name.

use serde::{Deserialize, Serialize};

/// A check of the gate. Its id in `stage.yaml` and `stage.json` is its name in lower case with
/// dashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// No password matches, no account has a shell, and no program or unit offers a session.
    NoLogin,
    /// No file has a set-user-id or set-group-id bit.
    NoSetuid,
    /// nftables drops packets by default in all directions, from the start of the boot.
    DefaultDeny,
    /// Nothing takes in what the host says: no unit and no module. The systemd is a version that
    /// was checked for it.
    HostChannels,
    /// No program installs software.
    NoPackageManager,
    /// The Python environment sees none of the distribution's packages.
    VenvIsolated,
    /// NVFLARE runs as its own user, behind the firewall, on the sealed partitions.
    NvflareService,
    /// Our programs are there with every library that they need, and their failure powers the
    /// machine off.
    Programs,
    /// Python loads our CC manager instead of NVFLARE's.
    CcManager,
    /// NVIDIA's driver is complete: signed modules, firmware, programs with their libraries.
    NvidiaDriver,
}

impl Check {
    /// The id.
    pub fn id(self) -> &'static str {
        match self {
            Self::NoLogin => "no-login",
            Self::NoSetuid => "no-setuid",
            Self::DefaultDeny => "default-deny",
            Self::HostChannels => "host-channels",
            Self::NoPackageManager => "no-package-manager",
            Self::VenvIsolated => "venv-isolated",
            Self::NvflareService => "nvflare-service",
            Self::Programs => "programs",
            Self::CcManager => "cc-manager",
            Self::NvidiaDriver => "nvidia-driver",
        }
    }
}
