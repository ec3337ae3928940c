//! A stage's gate: checks on the finished tree, each with a stable id; one failure stops the build.

mod host_channels;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde::{Deserialize, Serialize};

use super::{StageError, driver, tree};
use crate::boot::libraries;

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
    /// Nothing takes what the host says: no unit, no module, no systemd whose ways nobody has
    /// checked.
    HostChannels,
    /// Nothing that installs software.
    NoPackageManager,
    /// The Python environment sees none of the distribution's packages.
    VenvIsolated,
    /// NVFLARE runs as its own user, behind the firewall, on the sealed partitions.
    NvflareService,
    /// Our programs are there with every library that they need, and their failure ends the
    /// machine.
    Programs,
    /// Python puts our CC manager in the place of NVFLARE's.
    CcManager,
    /// NVIDIA's driver is whole: signed modules, firmware, programs with their libraries.
    NvidiaDriver,
}

/// Programs that offer a session.
const LOGINS: [&str; 9] =
    ["agetty", "getty", "login", "su", "sudo", "sulogin", "sshd", "dropbear", "telnetd"];
/// Units that offer a session.
const SESSIONS: [&str; 6] = ["getty", "rescue", "emergency", "debug-shell", "ssh", "user@"];
/// Programs that install software.
const INSTALLERS: [&str; 8] = ["apt", "apt-get", "dpkg", "pip", "pip3", "perl", "snap", "curl"];
const PROGRAM_FOLDERS: [&str; 5] =
    ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/opt/nvflare/venv/bin"];
/// Where our own programs lie.
const OURS: &str = "/usr/libexec/flare-cvm";
const UNIT_FOLDERS: [&str; 2] = ["/usr/lib/systemd/system", "/etc/systemd/system"];

impl Check {
    /// The id.
    pub fn id(self) -> &'static str {
        match self {
            Self::NoLogin => "no-login",
            Self::NoSetuid => "no-setuid",
            Self::DefaultDeny => "default-deny",
            Self::HostChannels => "host-channels",
            Self::NoPackageManager => "no-package-manager",
            Self::VenvIsolated => "venv-isolated",
            Self::NvflareService => "nvflare-service",
            Self::Programs => "programs",
            Self::CcManager => "cc-manager",
            Self::NvidiaDriver => "nvidia-driver",
        }
    }

    fn run(self, tree: &Path) -> Result<(), String> {
        match self {
            Self::NoLogin => no_login(tree),
            Self::NoSetuid => no_setuid(tree),
            Self::DefaultDeny => default_deny(tree),
            Self::HostChannels => host_channels::check(tree),
            Self::NoPackageManager => none_of(tree, &INSTALLERS),
            Self::VenvIsolated => venv_isolated(tree),
            Self::NvflareService => nvflare_service(tree),
            Self::Programs => programs(tree),
            Self::CcManager => cc_manager(tree),
            Self::NvidiaDriver => nvidia_driver(tree),
        }
    }
}

/// What every tree must pass, whatever its `stage.yaml` leaves out.
const ALWAYS: Check = Check::HostChannels;

/// Runs the checks in order.
pub(super) fn pass(stage: &str, checks: &[Check], tree: &Path) -> Result<(), StageError> {
    for check in checks.iter().chain((!checks.contains(&ALWAYS)).then_some(&ALWAYS)) {
        check.run(tree).map_err(|problem| StageError::Gate {
            stage: stage.into(),
            id: check.id(),
            problem,
        })?;
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
        if let Some(found) = programs.iter().find(|name| exists(tree, &format!("{folder}/{name}")))
        {
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
        if fields.get(1).map(String::as_str) != Some("x")
            || !fields.get(6).is_some_and(|s| s.ends_with("/nologin"))
        {
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

/// Ours, under the name by which NVFLARE's SNP authorizer runs it.
const SNPGUEST: &str = "/host/bin/snpguest";

/// A unit must have these lines, as they stand here.
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

fn nvflare_service(tree: &Path) -> Result<(), String> {
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

fn programs(tree: &Path) -> Result<(), String> {
    let ours = ["cvm-agent", "cvm-jobs", "cvm-keyholder"].map(|name| format!("{OURS}/{name}"));
    for program in ours.into_iter().chain([SNPGUEST.into()]) {
        if !exists(tree, &program) {
            return Err(format!("{program} is missing"));
        }
    }
    for program in tree::entries(&tree::inside(tree, OURS)).map_err(|e| e.to_string())? {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        libraries::closure(tree, &program).map_err(|e| format!("{OURS}/{name}: {e}"))?;
    }
    libraries::closure(tree, &tree::inside(tree, SNPGUEST))
        .map_err(|e| format!("{SNPGUEST}: {e}"))?;
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
            "ExecStartPost=/usr/bin/systemd-tmpfiles --create --remove --boot --prefix=/opt/nvflare",
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
    )?;
    has_user(tree, "cvm-agent", 989)?;
    has_user(tree, "cvm-keyholder", 988)
}

fn cc_manager(tree: &Path) -> Result<(), String> {
    let venv = tree::inside(tree, "/opt/nvflare/venv/lib");
    let libraries = tree::entries(&venv).map_err(|e| e.to_string())?;
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

fn nvidia_driver(tree: &Path) -> Result<(), String> {
    let kernels =
        tree::entries(&tree::inside(tree, "/usr/lib/modules")).map_err(|e| e.to_string())?;
    if kernels.is_empty() {
        return Err("there is no kernel that it could belong to".into());
    }
    for kernel in kernels {
        for name in ["nvidia.ko", "nvidia-uvm.ko"] {
            let module =
                fs::read(kernel.join("updates").join(name)).map_err(|e| format!("{name}: {e}"))?;
            if !module.ends_with(driver::MARK) {
                return Err(format!("{name} is not signed: the kernel would not load it"));
            }
        }
    }
    for (drop_in, problem) in [
        ("cvm-jobs.service.d/nvidia.conf", "cvm-jobs.service does not start the driver"),
        ("cvm-agent.service.d/nvidia.conf", "cvm-agent.service cannot ask the GPUs for evidence"),
        ("nvflare.service.d/zz-gpus.conf", "nvflare.service sees no GPU"),
    ] {
        if !exists(tree, &format!("/etc/systemd/system/{drop_in}")) {
            return Err(problem.into());
        }
    }
    for program in [
        "/usr/bin/nvidia-modprobe",
        "/usr/bin/nvidia-persistenced",
        "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
        "/usr/local/nvidia/lib64/libcuda.so.1",
        "/usr/local/nvidia/lib64/libnvidia-ptxjitcompiler.so.1",
    ] {
        libraries::closure(tree, &tree::inside(tree, program))
            .map_err(|e| format!("{program}: {e}"))?;
    }
    let firmware = tree::entries(&tree::inside(tree, "/usr/lib/firmware/nvidia"))
        .map_err(|e| e.to_string())?;
    if !firmware.iter().any(|version| version.join("gsp_ga10x.bin").is_file()) {
        return Err("/usr/lib/firmware/nvidia has no gsp_ga10x.bin".into());
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
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        let packages = "opt/nvflare/venv/lib/python3.11/site-packages";
        for module in ["flare_cvm/manager.py", "flare_cvm/authorizer.py", "flare_cvm_substitute.py"]
        {
            write(&format!("{packages}/{module}"), b"");
        }
        write("usr/sbin/nft", b"");
        write("usr/lib/systemd/systemd", b"systemd.import_credentials");
        write("usr/lib/systemd/libsystemd-shared-252.so", b"");
        write("opt/nvflare/venv/bin/python3", b"");
        // Any dynamic program serves as ours, with what it needs.
        let ours = ["cvm-agent", "cvm-jobs", "cvm-keyholder"].map(|name| format!("{OURS}/{name}"));
        for program in ours.into_iter().chain([SNPGUEST.into()]) {
            write(&program, &fs::read("/bin/true").unwrap());
        }
        for (path, bytes) in libraries::closure(Path::new("/"), Path::new("/bin/true")).unwrap() {
            write(&path, &bytes);
        }
        fs::write(
            dir.path().join("opt/nvflare/venv/pyvenv.cfg"),
            "include-system-site-packages = false\n",
        )
        .unwrap();
        dir
    }

    const ALL: [Check; 9] = [
        Check::NoLogin,
        Check::NoSetuid,
        Check::DefaultDeny,
        Check::HostChannels,
        Check::NoPackageManager,
        Check::VenvIsolated,
        Check::NvflareService,
        Check::Programs,
        Check::CcManager,
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
            (Check::HostChannels, change("etc/systemd/system/a.service", "", "LoadCredential=x")),
            (Check::NoPackageManager, change("usr/bin/dpkg", "", "x")),
            (Check::VenvIsolated, change("opt/nvflare/venv/pyvenv.cfg", "false", "true")),
            (
                Check::NvflareService,
                change("etc/systemd/system/nvflare.service", "User=nvflare\n", "User=root\n"),
            ),
            (
                Check::NvflareService,
                change("etc/systemd/system/nvflare.service", " cvm-gate.service", ""),
            ),
            (
                Check::Programs,
                change(
                    "etc/systemd/system/cvm-agent.service",
                    "OnFailure=cvm-lockdown.service",
                    "",
                ),
            ),
            (
                Check::Programs,
                change("etc/systemd/system/cvm-gate.service", "Requires=cvm-jobs.service", ""),
            ),
            (
                Check::Programs,
                change("etc/systemd/system/cvm-agent.service", " cvm-jobs.service", ""),
            ),
            (
                Check::Programs,
                change("etc/systemd/system/cvm-jobs.service", " --remove --boot", ""),
            ),
            (Check::Programs, change("etc/passwd", "cvm-keyholder:x:988", "cvm-keyholder:x:990")),
            (
                Check::CcManager,
                change(
                    "opt/nvflare/venv/lib/python3.11/site-packages/flare_cvm_substitute.pth",
                    "import",
                    "# import",
                ),
            ),
        ];
        for (check, dir) in cases {
            let error = pass("test", &ALL, dir.path()).unwrap_err();
            assert!(
                matches!(error, StageError::Gate { id, .. } if id == check.id()),
                "{check:?}: {error}"
            );
        }
        // A stage of a project's own cannot leave it out.
        let dir = change("etc/systemd/system/a.service", "", "LoadCredential=x");
        assert!(matches!(
            pass("test", &[], dir.path()),
            Err(StageError::Gate { id: "host-channels", .. })
        ));

        let dir = overlays();
        let library =
            tree::resolve(dir.path(), Path::new("/lib/x86_64-linux-gnu/libc.so.6")).unwrap();
        fs::remove_file(library).unwrap();
        let error = pass("test", &[Check::Programs], dir.path()).unwrap_err().to_string();
        assert!(error.contains("cvm-agent") && error.contains("libc.so.6"), "{error}");

        let dir = overlays();
        let error = pass("test", &[Check::NvidiaDriver], dir.path()).unwrap_err().to_string();
        assert!(error.contains("no kernel"), "{error}");
        let updates = dir.path().join("usr/lib/modules/1/updates");
        fs::create_dir_all(&updates).unwrap();
        for (name, end) in [("nvidia.ko", driver::MARK), ("nvidia-uvm.ko", &[])] {
            fs::write(updates.join(name), [&b"\x7fELF"[..], end].concat()).unwrap();
        }
        let error = pass("test", &[Check::NvidiaDriver], dir.path()).unwrap_err().to_string();
        assert!(error.contains("nvidia-uvm.ko is not signed"), "{error}");
        fs::copy(updates.join("nvidia.ko"), updates.join("nvidia-uvm.ko")).unwrap();
        let units =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../stages/nvidia_cc_base/nvidia/rootfs");
        tree::overlay(&units, dir.path()).unwrap();
        // What is still missing is the driver's own programs; before them each unit is asked for.
        for (gone, expected) in [
            (None, "/usr/bin/nvidia-modprobe"),
            (Some("nvflare.service.d/zz-gpus.conf"), "nvflare.service sees no GPU"),
            (Some("cvm-agent.service.d/nvidia.conf"), "cvm-agent.service cannot ask"),
            (Some("cvm-jobs.service.d/nvidia.conf"), "cvm-jobs.service does not start"),
        ] {
            if let Some(unit) = gone {
                fs::remove_file(dir.path().join("etc/systemd/system").join(unit)).unwrap();
            }
            let error = pass("test", &[Check::NvidiaDriver], dir.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }

        let dir = overlays();
        let file = dir.path().join("usr/sbin/nft");
        fs::set_permissions(file, fs::Permissions::from_mode(0o4755)).unwrap();
        assert!(pass("test", &[Check::NoSetuid], dir.path()).is_err());
    }
}
