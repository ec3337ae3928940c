//! Whether a `cc_config` can be sealed here: its files, the base image, and what is not built yet.

use std::path::Path;

use super::{CcConfig, CcConfigError, GpuMechanism};
use crate::stage::{StageMeta, kit::Extra};

impl CcConfig {
    /// What only the file system and the base image can tell.
    pub fn check_surroundings(&self, base: &StageMeta) -> Result<(), CcConfigError> {
        let refused = |key: &str, found: String, reason, instead| {
            Err(CcConfigError::Refused { key: key.into(), found, reason, instead })
        };
        if let Some(archive) = &self.docker_archive {
            exists("docker_archive", archive)?;
        }
        if let Some(profile) = self.additions.profile.as_ref().filter(|profile| **profile != base.profile) {
            return Err(CcConfigError::Contradiction {
                first: "flare_cvm.profile".into(),
                second: "flare_cvm.base_image".into(),
                problem: format!("the image goes back to {}, not to {profile}", base.profile),
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
                    "add it to requirements.in of stages/nvflare_cc_base, run its lock.py, and build the stages again",
                );
            }
        }
        let has_driver = || base.packages.iter().any(|package| package.starts_with("nvidia-"));
        if self.gpu == Some(GpuMechanism::NvidiaCc) && !has_driver() {
            return refused(
                "cc_gpu_mechanism",
                "nvidia_cc".into(),
                "the base image holds no NVIDIA driver, so no GPU could be attested or used; NVIDIA's packages come from \
                 developer.download.nvidia.com, which no profile's sources name yet",
                "give a base image whose stage 1 lists nvidia-open (570 or later, from NVIDIA's repository, built for the \
                 image's kernel) and nvidia-persistenced, or leave cc_gpu_mechanism out",
            );
        }
        self.extras().iter().try_for_each(|extra| exists(&extra.place.display().to_string(), &extra.source))
    }

    /// What the file adds to p4: `user_config/NAME` and `policies/NAME.rego`.
    pub fn extras(&self) -> Vec<Extra> {
        let user = self.user_config.iter().map(|(name, source)| (format!("user_config/{name}"), source));
        let policies = &self.additions.policies;
        let policies = [("policies/self.rego", &policies.self_check), ("policies/cross.rego", &policies.cross)];
        let policies = policies.into_iter().filter_map(|(place, source)| Some((place.to_owned(), source.as_ref()?)));
        user.chain(policies).map(|(place, source)| Extra { place: place.into(), source: source.clone() }).collect()
    }
}

fn exists(key: &str, path: &Path) -> Result<(), CcConfigError> {
    if path.exists() {
        return Ok(());
    }
    Err(CcConfigError::NoFile { key: key.into(), path: path.into(), problem: "not there" })
}
