//! A stage's gate: checks on the finished tree, each with a stable id; one failure stops the build.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde::{Deserialize, Serialize};

use super::{StageError, tree};

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
    /// Nothing that installs software.
    NoPackageManager,
    /// The Python environment sees none of the distribution's packages.
    VenvIsolated,
    /// NVFLARE runs as its own user, behind the firewall, on the sealed partitions.
    NvflareService,
}

/// Programs that offer a session.
const LOGINS: [&str; 9] = ["agetty", "getty", "login", "su", "sudo", "sulogin", "sshd", "dropbear", "telnetd"];
/// Units that offer a session.
const SESSIONS: [&str; 6] = ["getty", "rescue", "emergency", "debug-shell", "ssh", "user@"];
/// Programs that install software.
const INSTALLERS: [&str; 8] = ["apt", "apt-get", "dpkg", "pip", "pip3", "perl", "snap", "curl"];
const PROGRAM_FOLDERS: [&str; 5] =
    ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/opt/nvflare/venv/bin"];
const UNIT_FOLDERS: [&str; 2] = ["/usr/lib/systemd/system", "/etc/systemd/system"];

impl Check {
    /// The id.
    pub fn id(self) -> &'static str {
        match self {
            Self::NoLogin => "no-login",
            Self::NoSetuid => "no-setuid",
            Self::DefaultDeny => "default-deny",
            Self::NoPackageManager => "no-package-manager",
            Self::VenvIsolated => "venv-isolated",
            Self::NvflareService => "nvflare-service",
        }
    }

    fn run(self, tree: &Path) -> Result<(), String> {
        match self {
            Self::NoLogin => no_login(tree),
            Self::NoSetuid => no_setuid(tree),
            Self::DefaultDeny => default_deny(tree),
            Self::NoPackageManager => none_of(tree, &INSTALLERS),
            Self::VenvIsolated => venv_isolated(tree),
            Self::NvflareService => nvflare_service(tree),
        }
    }
}

/// Runs the checks in order.
pub(super) fn pass(stage: &str, checks: &[Check], tree: &Path) -> Result<(), StageError> {
    for check in checks {
        check.run(tree).map_err(|problem| StageError::Gate { stage: stage.into(), id: check.id(), problem })?;
    }
    Ok(())
}

fn read(tree: &Path, path: &str) -> Result<String, String> {
    fs::read_to_string(tree::inside(tree, path)).map_err(|e| format!("{path} cannot be read: {e}"))
}

fn exists(tree: &Path, path: &str) -> bool {
    tree::inside(tree, path).symlink_metadata().is_ok()
}

fn none_of(tree: &Path, programs: &[&str]) -> Result<(), String> {
    for folder in PROGRAM_FOLDERS {
        if let Some(found) = programs.iter().find(|name| exists(tree, &format!("{folder}/{name}"))) {
            return Err(format!("{folder}/{found} is there"));
        }
    }
    Ok(())
}

fn no_login(tree: &Path) -> Result<(), String> {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    for line in read(tree, "/etc/shadow")?.lines() {
        if !fields(line).get(1).is_some_and(|password| password.starts_with(['!', '*'])) {
            return Err(format!("/etc/shadow leaves {} unlocked", fields(line).concat()));
        }
    }
    for line in read(tree, "/etc/passwd")?.lines() {
        let fields = fields(line);
        if fields.get(1).map(String::as_str) != Some("x") || !fields.get(6).is_some_and(|s| s.ends_with("/nologin")) {
            return Err(format!("/etc/passwd: {line:?} has a password field or a shell"));
        }
    }
    none_of(tree, &LOGINS)?;
    for folder in UNIT_FOLDERS {
        for path in tree::entries(&tree::inside(tree, folder)).map_err(|e| e.to_string())? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let masked = fs::read_link(&path).is_ok_and(|target| target == Path::new("/dev/null"));
            if !masked && SESSIONS.iter().any(|session| name.contains(session)) {
                return Err(format!("{folder}/{name} offers a session"));
            }
        }
    }
    Ok(())
}

fn no_setuid(tree: &Path) -> Result<(), String> {
    let mut found = None;
    tree::walk(tree, &mut |path, metadata| {
        if !metadata.is_symlink() && metadata.permissions().mode() & 0o6000 != 0 {
            found = Some(format!("{} is set-id", path.display()));
        }
        Ok(())
    })
    .map_err(|e| e.to_string())?;
    found.map_or(Ok(()), Err)
}

fn default_deny(tree: &Path) -> Result<(), String> {
    let rules = read(tree, "/etc/nftables.conf")?;
    for hook in ["input", "forward", "output"] {
        let line = rules.lines().find(|line| line.contains(&format!("hook {hook} ")));
        if !line.is_some_and(|line| line.contains("policy drop;")) {
            return Err(format!("/etc/nftables.conf does not drop by default at the hook {hook}"));
        }
    }
    if !exists(tree, "/etc/systemd/system/sysinit.target.wants/nftables.service") {
        return Err("nftables.service is not started with sysinit.target".into());
    }
    if !exists(tree, "/usr/sbin/nft") {
        return Err("/usr/sbin/nft is missing".into());
    }
    Ok(())
}

fn venv_isolated(tree: &Path) -> Result<(), String> {
    let config = read(tree, "/opt/nvflare/venv/pyvenv.cfg")?;
    if !config.lines().any(|line| line.replace(' ', "") == "include-system-site-packages=false") {
        return Err("/opt/nvflare/venv/pyvenv.cfg lets the distribution's packages in".into());
    }
    if !exists(tree, "/opt/nvflare/venv/bin/python3") {
        return Err("/opt/nvflare/venv/bin/python3 is missing".into());
    }
    Ok(())
}

fn nvflare_service(tree: &Path) -> Result<(), String> {
    let unit = read(tree, "/etc/systemd/system/nvflare.service")?;
    let wanted = [
        "User=nvflare",
        "Requires=nftables.service",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "BindPaths=/opt/nvflare/jobs:/tmp/nvflare",
    ];
    if let Some(missing) = wanted.iter().find(|wanted| !unit.lines().any(|line| line == **wanted)) {
        return Err(format!("nvflare.service lacks {missing}"));
    }
    if !read(tree, "/etc/passwd")?.lines().any(|line| line.starts_with("nvflare:x:990:990:")) {
        return Err("there is no user nvflare with the ids 990:990".into());
    }
    for folder in ["config", "data", "jobs", "logs", "site", "state", "workspace"] {
        if !tree::inside(tree, "/opt/nvflare").join(folder).is_dir() {
            return Err(format!("/opt/nvflare/{folder} is missing"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stages 1 and 2 lay over the distribution, which is all that the checks ask for.
    fn overlays() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let stages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../stages");
        for stage in ["nvidia_cc_base", "nvflare_cc_base"] {
            tree::overlay(&stages.join(stage).join("rootfs"), dir.path()).unwrap();
            let spec = crate::stage::spec::StageSpec::read(&stages.join(stage)).unwrap();
            tree::finish(dir.path(), &spec.directories, &Default::default()).unwrap();
        }
        for program in ["usr/sbin/nft", "opt/nvflare/venv/bin/python3"] {
            let path = dir.path().join(program);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::write(dir.path().join("opt/nvflare/venv/pyvenv.cfg"), "include-system-site-packages = false\n").unwrap();
        dir
    }

    const ALL: [Check; 6] = [
        Check::NoLogin,
        Check::NoSetuid,
        Check::DefaultDeny,
        Check::NoPackageManager,
        Check::VenvIsolated,
        Check::NvflareService,
    ];

    #[test]
    fn the_repositorys_overlays_pass_and_each_change_fails_its_own_check() {
        let good = overlays();
        pass("test", &ALL, good.path()).unwrap();
        let change = |path: &str, from: &str, to: &str| {
            let dir = overlays();
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = fs::read_to_string(&path).unwrap_or_default();
            assert!(text.contains(from), "{}", path.display());
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
            dir
        };
        let cases = [
            (Check::NoLogin, change("etc/shadow", "root:!*", "root:")),
            (Check::NoLogin, change("etc/passwd", "/root:/usr/sbin/nologin", "/root:/bin/bash")),
            (Check::NoLogin, change("usr/sbin/agetty", "", "x")),
            (Check::NoLogin, change("etc/systemd/system/getty@tty1.service", "", "x")),
            (
                Check::DefaultDeny,
                change(
                    "etc/nftables.conf",
                    "hook output priority filter; policy drop",
                    "hook output priority filter; policy accept",
                ),
            ),
            (Check::NoPackageManager, change("usr/bin/dpkg", "", "x")),
            (Check::VenvIsolated, change("opt/nvflare/venv/pyvenv.cfg", "false", "true")),
            (Check::NvflareService, change("etc/systemd/system/nvflare.service", "User=nvflare\n", "User=root\n")),
        ];
        for (check, dir) in cases {
            let error = pass("test", &ALL, dir.path()).unwrap_err();
            assert!(matches!(error, StageError::Gate { id, .. } if id == check.id()), "{check:?}: {error}");
        }
        let dir = overlays();
        let file = dir.path().join("usr/sbin/nft");
        fs::set_permissions(file, fs::Permissions::from_mode(0o4755)).unwrap();
        assert!(pass("test", &[Check::NoSetuid], dir.path()).is_err());
    }
}
