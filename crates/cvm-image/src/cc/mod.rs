//! NVFLARE's confidential computing, seen from the build: the `cc_config` file of a site
//! ([`CcConfig`]), and the CC manager that NVFLARE configured in its startup kit ([`manager`]).
//!
//! Nothing is silently ignored. A key either has its effect, or is refused with a reason and a
//! stable code. A kit whose CC manager would fail or prove nothing at run time is refused too.

mod additions;
mod agent;
mod config;
mod error;
mod fit;
pub mod manager;
mod monitors;
mod paths;
mod section;

pub use additions::{Additions, KeyHolder, Policies};
pub use agent::{AgentConf, SnpReports};
pub use config::{CcConfig, ComputeEnv, CpuMechanism, Issuer, MAX_BYTES};
pub use cvm_layout::manifest::GpuMechanism;
pub use error::CcConfigError;
pub use monitors::{Monitor, Port};
pub use paths::{BASE_DIR_VARIABLE, Surroundings};

/// Reads any `bytes`: the fuzz target, which a unit test drives as well.
///
/// # Panics
/// If a configuration is accepted that contradicts itself.
pub fn fuzz(bytes: &[u8]) {
    let surroundings = Surroundings { home: Some("/home/x".into()), base_dir: None };
    if let Ok(config) = CcConfig::parse(bytes, &surroundings) {
        assert!(
            config.issuers.iter().all(|issuer| issuer.token_expiration < config.check_frequency)
        );
        assert!(config.docker_archive.iter().chain(&config.kit).all(|path| path.is_absolute()));
        let site = "site-1".to_owned().try_into().expect("a name");
        let _ = config.site_conf(site);
    }
}

#[cfg(test)]
mod tests;
