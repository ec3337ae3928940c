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
            return refused(
                "docker_archive",
                archive.display().to_string(),
                "sealing a container's archive is not built yet",
                "put the workload's wheels into requirements.in of stages/nvflare_cc_base, and leave docker_archive out",
            );
        }
        if let Some(profile) = self.additions.profile.as_ref().filter(|profile| **profile != base.profile) {
            return Err(CcConfigError::Contradiction {
                first: "flare_cvm.profile".into(),
                second: "flare_cvm.base_image".into(),
                problem: format!("the image goes back to {}, not to {profile}", base.profile),
            });
        }
        let has_driver = || base.packages.iter().any(|package| package.starts_with("nvidia-"));
        if self.gpu == Some(GpuMechanism::NvidiaCc) && !has_driver() {
            return refused(
                "cc_gpu_mechanism",
                "nvidia_cc".into(),
                "the base image holds no NVIDIA driver, so no GPU could be attested or used",
                "build the stages with a profile that has NVIDIA's open driver, or leave cc_gpu_mechanism out",
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
