//! The checks of the gate, by name.

use serde::{Deserialize, Serialize};

/// A check. Its id in `stage.yaml` and in `stage.json` is its name in lowercase with dashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// No password matches, no account has a shell, and no program or unit offers a session.
    NoLogin,
    /// No file has a set-user-id or set-group-id bit.
    NoSetuid,
    /// nftables drops by default in all directions, from the start on.
    DefaultDeny,
    /// Nothing takes what the host says: no unit, no module, no systemd whose ways nobody has
    /// checked.
    HostChannels,
    /// Nothing that installs software.
    NoPackageManager,
    /// The Python environment sees none of the distribution's packages.
    VenvIsolated,
    /// NVFLARE runs as its own user, behind the firewall, on the sealed partitions.
    NvflareService,
    /// Our programs are there with every library that they need, and their failure ends the
    /// machine.
    Programs,
    /// Python puts our CC manager in the place of NVFLARE's.
    CcManager,
    /// NVIDIA's driver is whole: signed modules, firmware, programs with their libraries.
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
