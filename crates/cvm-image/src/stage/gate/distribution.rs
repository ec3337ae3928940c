//! What is left of the distribution: no login, no set-id bit, no installer, closed ports.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::files::{exists, list, name, read};
use crate::tree;

/// Programs that offer a session.
const LOGINS: [&str; 9] =
    ["agetty", "getty", "login", "su", "sudo", "sulogin", "sshd", "dropbear", "telnetd"];
/// Units that offer a session.
const SESSIONS: [&str; 6] = ["getty", "rescue", "emergency", "debug-shell", "ssh", "user@"];
/// Programs that install software.
const INSTALLERS: [&str; 8] = ["apt", "apt-get", "dpkg", "pip", "pip3", "perl", "snap", "curl"];
const PROGRAM_FOLDERS: [&str; 5] =
    ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/opt/nvflare/venv/bin"];
const UNIT_FOLDERS: [&str; 2] = ["/usr/lib/systemd/system", "/etc/systemd/system"];

pub(super) fn no_login(tree: &Path) -> Result<(), String> {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    for line in read(tree, "/etc/shadow")?.lines() {
        if !fields(line).get(1).is_some_and(|password| password.starts_with(['!', '*'])) {
            return Err(format!("/etc/shadow leaves {} unlocked", fields(line).concat()));
        }
    }
    for line in read(tree, "/etc/passwd")?.lines() {
        let fields = fields(line);
        if fields.get(1).map(String::as_str) != Some("x")
            || !fields.get(6).is_some_and(|s| s.ends_with("/nologin"))
        {
            return Err(format!("/etc/passwd: {line:?} has a password field or a shell"));
        }
    }
    none_of(tree, &LOGINS)?;
    for folder in UNIT_FOLDERS {
        for path in list(tree, folder)? {
            let name = name(&path);
            let masked = fs::read_link(&path).is_ok_and(|target| target == Path::new("/dev/null"));
            if !masked && SESSIONS.iter().any(|session| name.contains(session)) {
                return Err(format!("{folder}/{name} offers a session"));
            }
        }
    }
    Ok(())
}

pub(super) fn no_setuid(tree: &Path) -> Result<(), String> {
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

pub(super) fn default_deny(tree: &Path) -> Result<(), String> {
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

/// Nothing installs software.
pub(super) fn no_package_manager(tree: &Path) -> Result<(), String> {
    none_of(tree, &INSTALLERS)
}

fn none_of(tree: &Path, programs: &[&str]) -> Result<(), String> {
    for folder in PROGRAM_FOLDERS {
        if let Some(found) = programs.iter().find(|name| exists(tree, &format!("{folder}/{name}")))
        {
            return Err(format!("{folder}/{found} is there"));
        }
    }
    Ok(())
}
