//! What this repository lays over the distribution: its programs, units and Python package.

use std::{fs, path::Path};

use super::files::{exists, list, name, read};
use crate::{boot::libraries, tree};

/// The folder of our own programs.
pub(super) const OURS: &str = "/usr/libexec/flare-cvm";
/// Our `snpguest`, at the place where NVFLARE's SNP authorizer looks for it.
pub(super) const SNPGUEST: &str = "/host/bin/snpguest";

pub(super) fn venv_isolated(tree: &Path) -> Result<(), String> {
    let config = read(tree, "/opt/nvflare/venv/pyvenv.cfg")?;
    if !config.lines().any(|line| line.replace(' ', "") == "include-system-site-packages=false") {
        return Err("/opt/nvflare/venv/pyvenv.cfg lets the distribution's packages in".into());
    }
    if !exists(tree, "/opt/nvflare/venv/bin/python3") {
        return Err("/opt/nvflare/venv/bin/python3 is missing".into());
    }
    Ok(())
}

pub(super) fn nvflare_service(tree: &Path) -> Result<(), String> {
    unit_says(
        tree,
        "nvflare.service",
        &[
            "User=nvflare",
            "Requires=nftables.service cvm-gate.service",
            "After=nftables.service cvm-gate.service systemd-tmpfiles-setup.service",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "BindPaths=/opt/nvflare/jobs/nvflare:/tmp/nvflare",
            "InaccessiblePaths=-/opt/nvflare/jobs/keyholder -/opt/nvflare/site/keyholder",
        ],
    )?;
    has_user(tree, "nvflare", 990)?;
    for folder in ["config", "data", "jobs", "logs", "site", "state", "workspace"] {
        if !tree::inside(tree, "/opt/nvflare").join(folder).is_dir() {
            return Err(format!("/opt/nvflare/{folder} is missing"));
        }
    }
    Ok(())
}

pub(super) fn programs(tree: &Path) -> Result<(), String> {
    let ours = ["cvm-agent", "cvm-jobs", "cvm-keyholder"].map(|name| format!("{OURS}/{name}"));
    for program in ours.into_iter().chain([SNPGUEST.into()]) {
        if !exists(tree, &program) {
            return Err(format!("{program} is missing"));
        }
    }
    for program in list(tree, OURS)? {
        libraries::closure(tree, &program)
            .map_err(|e| format!("{OURS}/{}: {e}", name(&program)))?;
    }
    libraries::closure(tree, &tree::inside(tree, SNPGUEST))
        .map_err(|e| format!("{SNPGUEST}: {e}"))?;
    units_end_in_lockdown(tree)?;
    has_user(tree, "cvm-agent", 989)?;
    has_user(tree, "cvm-keyholder", 988)
}

/// Our units start in order; a failure of the agent, of the jobs' opener or of the gate powers the
/// machine off.
fn units_end_in_lockdown(tree: &Path) -> Result<(), String> {
    let ends_in_lockdown = "OnFailure=cvm-lockdown.service";
    // Nobody looks for what is on `state` or p5 before cvm-jobs had its chance to open both.
    let after_jobs = "After=nftables.service systemd-tmpfiles-setup.service cvm-jobs.service";
    let agent = ["User=cvm-agent", "RestartPreventExitStatus=70", after_jobs, ends_in_lockdown];
    unit_says(tree, "cvm-agent.service", &agent)?;
    unit_says(
        tree,
        "cvm-jobs.service",
        &[
            "ConditionPathIsMountPoint=!/opt/nvflare/jobs",
            "ExecStartPost=/usr/bin/systemd-tmpfiles --create --remove --boot \
             --prefix=/opt/nvflare",
            ends_in_lockdown,
        ],
    )?;
    unit_says(
        tree,
        "cvm-gate.service",
        &["User=cvm-agent", "Requires=cvm-jobs.service", ends_in_lockdown],
    )?;
    unit_says(tree, "cvm-lockdown.service", &["FailureAction=poweroff-immediate"])?;
    unit_says(
        tree,
        "cvm-keyholder.service",
        &["User=cvm-keyholder", "Requires=nftables.service cvm-gate.service"],
    )
}

pub(super) fn cc_manager(tree: &Path) -> Result<(), String> {
    let libraries = list(tree, "/opt/nvflare/venv/lib")?;
    let [python] = libraries.as_slice() else {
        return Err(format!(
            "/opt/nvflare/venv/lib has {} entries, expected one Python's",
            libraries.len()
        ));
    };
    let packages = python.join("site-packages");
    for file in ["flare_cvm/manager.py", "flare_cvm/authorizer.py", "flare_cvm_substitute.py"] {
        if !packages.join(file).is_file() {
            return Err(format!("the Python environment has no {file}"));
        }
    }
    // Python runs each line of a .pth file that begins with `import`.
    match fs::read_to_string(packages.join("flare_cvm_substitute.pth")) {
        Ok(line) if line == "import flare_cvm_substitute\n" => Ok(()),
        _ => Err("flare_cvm_substitute.pth does not import flare_cvm_substitute: NVFLARE's own \
                manager would run"
            .into()),
    }
}

/// Fails unless the unit `name` has each of the lines `wanted`, exactly as written.
fn unit_says(tree: &Path, name: &str, wanted: &[&str]) -> Result<(), String> {
    let unit = read(tree, &format!("/etc/systemd/system/{name}"))?;
    match wanted.iter().find(|wanted| !unit.lines().any(|line| line == **wanted)) {
        Some(missing) => Err(format!("{name} lacks {missing}")),
        None => Ok(()),
    }
}

fn has_user(tree: &Path, name: &str, id: u32) -> Result<(), String> {
    if read(tree, "/etc/passwd")?
        .lines()
        .any(|line| line.starts_with(&format!("{name}:x:{id}:{id}:")))
    {
        return Ok(());
    }
    Err(format!("there is no user {name} with the ids {id}:{id}"))
}
