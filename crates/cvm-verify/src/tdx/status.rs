//! What collateral says about a platform, in one word.

use serde::{Deserialize, Serialize};

/// What collateral says about a platform (Intel PCS API v4, `tcbStatus`; the TD relaunch ones from
/// Intel's quote verification library).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TcbStatus {
    /// All known mitigations are in place.
    UpToDate,
    /// Up to date, if the software that runs holds mitigations too; only its owner knows.
    SWHardeningNeeded,
    /// The platform's configuration may expose it.
    ConfigurationNeeded,
    /// Both of the above.
    ConfigurationAndSWHardeningNeeded,
    /// Security updates are missing.
    OutOfDate,
    /// Security updates are missing, and the configuration may expose it.
    OutOfDateConfigurationNeeded,
    /// TDX 1.5: the TD was launched on an older TCB than the platform's present one.
    TDRelaunchAdvised,
    /// The above, and the configuration may expose it.
    TDRelaunchAdvisedConfigurationNeeded,
    /// The platform's keys are compromised: never accepted.
    Revoked,
}

impl std::fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

impl TcbStatus {
    /// Joins a platform's status with that of its quoting enclave or TDX module: only a component
    /// that is out of date or revoked makes it worse.
    pub(super) fn with_component(self, component: Self) -> Self {
        match (component, self) {
            (Self::Revoked, _) => Self::Revoked,
            (Self::OutOfDate, Self::UpToDate | Self::SWHardeningNeeded) => Self::OutOfDate,
            (
                Self::OutOfDate,
                Self::ConfigurationNeeded | Self::ConfigurationAndSWHardeningNeeded,
            ) => Self::OutOfDateConfigurationNeeded,
            _ => self,
        }
    }

    /// TDX 1.5: `self` is the status of the TCB at launch, `current` that of the present one.
    pub(super) fn with_current(self, current: Self) -> Self {
        use TcbStatus::{
            ConfigurationAndSWHardeningNeeded, ConfigurationNeeded, OutOfDate,
            OutOfDateConfigurationNeeded,
        };
        let fresh = !matches!(current, OutOfDate | OutOfDateConfigurationNeeded);
        let configuration = |status| {
            matches!(
                status,
                ConfigurationNeeded
                    | ConfigurationAndSWHardeningNeeded
                    | OutOfDateConfigurationNeeded
            )
        };
        match self {
            OutOfDate | OutOfDateConfigurationNeeded if fresh => {
                if configuration(self) || configuration(current) {
                    Self::TDRelaunchAdvisedConfigurationNeeded
                } else {
                    Self::TDRelaunchAdvised
                }
            }
            _ => self,
        }
    }
}
