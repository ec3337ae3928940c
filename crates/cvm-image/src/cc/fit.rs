//! Whether a `cc_config` can be sealed here: its files, and the base image.

use std::path::Path;

use super::{CcConfig, CcConfigError, CpuMechanism, GpuMechanism};
use crate::stage::{StageMeta, kit::Extra};

impl CcConfig {
    /// Checks what only the file system and the base image can tell.
    pub fn check_surroundings(&self, base: &StageMeta) -> Result<(), CcConfigError> {
        let refused = |key: &str, found: String, reason, instead| {
            Err(CcConfigError::Refused { key: key.into(), found, reason, instead })
        };
        if let Some(archive) = &self.docker_archive {
            exists("docker_archive", archive)?;
        }
        if let Some(profile) =
            self.additions.profile.as_ref().filter(|profile| **profile != base.profile)
        {
            return Err(CcConfigError::Contradiction {
                first: "flare_cvm.profile".into(),
                second: "flare_cvm.base_image".into(),
                problem: format!("the image is built from {}, not from {profile}", base.profile),
            });
        }
        // A workload brings its own Python.
        let monitors = self.additions.monitors.iter().filter(|_| self.docker_archive.is_none());
        for monitor in monitors {
            let wanted = format!("{}==", monitor.package);
            if !base.python.iter().any(|package| package.starts_with(&wanted)) {
                return refused(
                    &format!("flare_cvm.monitors.{}", monitor.key),
                    format!("the package {}", monitor.package),
                    "the base image's Python does not have it, so nothing would be reported",
                    "add it to requirements.in of stages/nvflare_cc_base, run its lock.py, and \
                     build the stages again",
                );
            }
        }
        if self.gpu == Some(GpuMechanism::NvidiaCc) && base.driver.is_none() {
            return refused(
                "cc_gpu_mechanism",
                "nvidia_cc".into(),
                "the base image holds no NVIDIA driver, so no GPU could attest and the job store \
                 would never open",
                "build the three stages with it: flare-cvm build nvidia_cc_base --profile \
                 debian-12-nvidia, the other two on its image, and give the last image as the base \
                 image; or leave cc_gpu_mechanism out",
            );
        }
        if self.cpu == Some(CpuMechanism::IntelTdx) && !extends_rtmr3(&base.kernel) {
            return refused(
                "cc_cpu_mechanism",
                "intel_tdx".into(),
                "the base image's kernel cannot extend RTMR3 (Linux 6.16 and later can), so no TD \
                 could prove where its boot ended, and none would boot",
                "build the three stages with a later kernel: flare-cvm build nvidia_cc_base \
                 --profile debian-12-tdx, the other two on its image, and give the last image as \
                 the base image",
            );
        }
        self.extras()
            .iter()
            .try_for_each(|extra| exists(&extra.place.display().to_string(), &extra.source))
    }

    /// What the file adds to p4: `user_config/NAME`, `policies/NAME.rego` and `collateral.pub`.
    pub fn extras(&self) -> Vec<Extra> {
        let user =
            self.user_config.iter().map(|(name, source)| (format!("user_config/{name}"), source));
        let policies = &self.additions.policies;
        let policies = [
            ("policies/self.rego", &policies.self_check),
            ("policies/cross.rego", &policies.cross),
            ("collateral.pub", &self.additions.collector),
        ];
        let policies = policies
            .into_iter()
            .filter_map(|(place, source)| Some((place.to_owned(), source.as_ref()?)));
        user.chain(policies)
            .map(|(place, source)| Extra { place: place.into(), source: source.clone() })
            .collect()
    }
}

/// Whether this kernel release, as `uname -r` says it, is Linux 6.16 or later.
fn extends_rtmr3(release: &str) -> bool {
    let mut numbers = release.split(['.', '-', '+']).map_while(|word| word.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(16))
}

fn exists(key: &str, path: &Path) -> Result<(), CcConfigError> {
    if path.exists() {
        return Ok(());
    }
    Err(CcConfigError::NoFile { key: key.into(), path: path.into(), problem: "not there" })
}
