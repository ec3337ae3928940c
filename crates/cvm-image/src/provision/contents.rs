//! What the site's two volumes hold: its kit, and all that comes with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use cvm_layout::manifest::SplitKey;

use super::{
    ProvisionError,
    build::{Build, document, parts},
};
use crate::{
    WorkError,
    cc::{AgentConf, CcConfig, manager},
    memory::SecretFolder,
    stage::{
        erofs,
        kit::{self, KitRequest, SplitKit},
    },
    workload::{self, WorkloadError, docker},
};

/// p4's tree and the `site` volume's, whole.
pub(super) struct Contents {
    /// The kit's private keys, for the search in the cleartext partitions.
    pub(super) kit: SplitKit,
    /// The tree of the `site` volume; it lies in memory.
    pub(super) site_tree: PathBuf,
    /// Whose files the `site` volume holds.
    pub(super) site_owner: erofs::Owner,
}

/// Fills both trees, and checks the kit's CC manager against the NVFLARE that will run.
pub(super) fn gather(
    build: &Build,
    split_key: &SplitKey,
    secrets: &SecretFolder,
    progress: &mut dyn FnMut(&str),
) -> Result<Contents, ProvisionError> {
    let site = &build.request.site;
    let (config_tree, site_tree) = (build.path(parts::CONFIG_TREE), secrets.join("site"));
    progress("kit: verifying its signatures, keeping its private keys apart");
    let kit = split_kit(build, split_key, &config_tree, &site_tree)?;
    let agreement = build.request.ceremony.agreement.text();
    cvm_base::write_atomic(&config_tree.join("agreement.txt"), agreement.as_bytes(), 0o644)?;
    let site_owner = match site.delegate {
        Some(delegate) => delegate.install(&config_tree, &site_tree)?,
        None => erofs::Owner::Nvflare,
    };
    let names_snp = manager::names_snp_authorizer(site.kit, build.site_conf.role)?;
    if let Some(yaml) = site.agent.for_kit(names_snp).yaml() {
        cvm_base::write_atomic(&config_tree.join(AgentConf::FILE), yaml.as_bytes(), 0o644)?;
    }
    if let Some(model) = site.model {
        progress("model: its code and weights into the site volume");
        workload::seal_model(model, &site_tree)?;
    }
    let python = match site.cc_config.and_then(|config| config.docker_archive.as_deref()) {
        Some(archive) => unpack_workload(build, archive, secrets, progress)?,
        None => build.request.project.base.meta.python.clone(),
    };
    progress("CC manager: checking its issuers, verifiers and sites");
    let remarks = manager::check(&manager::ManagerCheck {
        kit: site.kit,
        role: build.site_conf.role,
        site: &build.site_conf.site,
        python: &python,
        config: site.cc_config,
        allow_untested: build.request.project.allow_untested_nvflare,
    })?;
    remarks.iter().for_each(|remark| progress(&format!("CC manager: not checked here: {remark}")));
    Ok(Contents { kit, site_tree, site_owner })
}

fn split_kit(
    build: &Build,
    split_key: &SplitKey,
    config: &Path,
    site: &Path,
) -> Result<SplitKit, ProvisionError> {
    let cc_config = build.request.site.cc_config;
    let kit = KitRequest {
        kit: build.request.site.kit,
        role: build.site_conf.role,
        site_conf: &build.site_conf,
        split_key_json: &document(split_key),
        extras: &cc_config.map(CcConfig::extras).unwrap_or_default(),
        gpu: cc_config.and_then(|config| config.gpu),
    };
    Ok(kit::split(&kit, config, site)?)
}

/// Unpacks the site's workload. Gives its NVFLARE, which runs in place of the base image's.
fn unpack_workload(
    build: &Build,
    archive: &Path,
    secrets: &SecretFolder,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<String>, ProvisionError> {
    progress(&format!("workload: unpacking {}", archive.display()));
    let scratch = secrets.join("workload");
    fs::create_dir(&scratch).map_err(WorkError::io("make", &scratch))?;
    let site = &build.request.site;
    let user_config = site.cc_config.iter().flat_map(|config| &config.user_config);
    let workload = docker::unpack(&docker::UnpackRequest {
        archive,
        site: &secrets.join("site"),
        scratch: &scratch,
        limit: site.layout.state_bytes(),
        role: build.site_conf.role,
        user_config: user_config.map(|(name, source)| (name.clone(), source.is_dir())).collect(),
        model: site.model.is_some(),
        gpus: site.cc_config.is_some_and(|config| config.gpu.is_some()),
    })
    .map_err(WorkloadError::from)?;
    fs::remove_dir_all(&scratch).map_err(WorkError::io("remove", &scratch))?;
    let docker::Workload { layers, cleared, python } = workload;
    progress(&format!(
        "workload: {layers} layers; cleared the set-id bits of {} files and the capabilities of {}",
        cleared.set_id, cleared.capabilities
    ));
    Ok(python)
}
