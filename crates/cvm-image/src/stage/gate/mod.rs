//! A stage's gate: checks on the finished tree, each with a stable id. One failure stops the build.

mod distribution;
mod files;
mod host_channels;
mod nvidia;
mod services;

use std::path::Path;

use super::{StageError, check::Check};

/// Every tree must pass this check, whether or not its `stage.yaml` names it.
const ALWAYS: Check = Check::HostChannels;

/// Runs the checks in order.
pub(super) fn pass(stage: &str, checks: &[Check], tree: &Path) -> Result<(), StageError> {
    for check in checks.iter().chain((!checks.contains(&ALWAYS)).then_some(&ALWAYS)) {
        run(*check, tree).map_err(|problem| StageError::Gate {
            stage: stage.into(),
            id: check.id(),
            problem,
        })?;
    }
    Ok(())
}

fn run(check: Check, tree: &Path) -> Result<(), String> {
    match check {
        Check::NoLogin => distribution::no_login(tree),
        Check::NoSetuid => distribution::no_setuid(tree),
        Check::DefaultDeny => distribution::default_deny(tree),
        Check::HostChannels => host_channels::check(tree),
        Check::NoPackageManager => distribution::no_package_manager(tree),
        Check::VenvIsolated => services::venv_isolated(tree),
        Check::NvflareService => services::nvflare_service(tree),
        Check::Programs => services::programs(tree),
        Check::CcManager => services::cc_manager(tree),
        Check::NvidiaDriver => nvidia::nvidia_driver(tree),
    }
}

#[cfg(test)]
mod tests;
