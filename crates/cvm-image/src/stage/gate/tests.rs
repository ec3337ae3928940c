use std::{fs, os::unix::fs::PermissionsExt as _};

use super::{
    services::{OURS, SNPGUEST},
    *,
};
use crate::{
    boot::libraries,
    stage::{StageSpec, driver, edits},
    tree,
};

/// What stages 1 and 2 lay over the distribution, which is all that the checks ask for.
fn overlays() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let stages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../stages");
    for stage in ["nvidia_cc_base", "nvflare_cc_base"] {
        edits::overlay(&stages.join(stage).join("rootfs"), dir.path()).unwrap();
        let spec = StageSpec::read(&stages.join(stage)).unwrap();
        edits::finish(dir.path(), &spec.directories, &Default::default()).unwrap();
    }
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let packages = "opt/nvflare/venv/lib/python3.11/site-packages";
    for module in ["flare_cvm/manager.py", "flare_cvm/authorizer.py", "flare_cvm_substitute.py"] {
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

/// The overlays with `from` replaced by `to` in one file, which is made if it is missing.
fn changed(path: &str, from: &str, to: &str) -> tempfile::TempDir {
    let dir = overlays();
    let path = dir.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = fs::read_to_string(&path).unwrap_or_default();
    assert!(text.contains(from), "{}", path.display());
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
    dir
}

/// A check, and the change that it must find: a file, a text in it, and what takes its place.
const CHANGES: [(Check, &str, &str, &str); 16] = [
    (Check::NoLogin, "etc/shadow", "root:!*", "root:"),
    (Check::NoLogin, "etc/passwd", "/root:/usr/sbin/nologin", "/root:/bin/bash"),
    (Check::NoLogin, "usr/sbin/agetty", "", "x"),
    (Check::NoLogin, "etc/systemd/system/getty@tty1.service", "", "x"),
    (
        Check::DefaultDeny,
        "etc/nftables.conf",
        "hook output priority filter; policy drop",
        "hook output priority filter; policy accept",
    ),
    (Check::HostChannels, "etc/systemd/system/a.service", "", "LoadCredential=x"),
    (Check::NoPackageManager, "usr/bin/dpkg", "", "x"),
    (Check::VenvIsolated, "opt/nvflare/venv/pyvenv.cfg", "false", "true"),
    (Check::NvflareService, "etc/systemd/system/nvflare.service", "User=nvflare\n", "User=root\n"),
    (Check::NvflareService, "etc/systemd/system/nvflare.service", " cvm-gate.service", ""),
    (Check::Programs, "etc/systemd/system/cvm-agent.service", "OnFailure=cvm-lockdown.service", ""),
    (Check::Programs, "etc/systemd/system/cvm-gate.service", "Requires=cvm-jobs.service", ""),
    (Check::Programs, "etc/systemd/system/cvm-agent.service", " cvm-jobs.service", ""),
    (Check::Programs, "etc/systemd/system/cvm-jobs.service", " --remove --boot", ""),
    (Check::Programs, "etc/passwd", "cvm-keyholder:x:988", "cvm-keyholder:x:990"),
    (
        Check::CcManager,
        "opt/nvflare/venv/lib/python3.11/site-packages/flare_cvm_substitute.pth",
        "import",
        "# import",
    ),
];

#[test]
fn the_repositorys_overlays_pass_and_each_change_fails_its_own_check() {
    pass("test", &ALL, overlays().path()).unwrap();
    for (check, path, from, to) in CHANGES {
        let dir = changed(path, from, to);
        let error = pass("test", &ALL, dir.path()).unwrap_err();
        assert!(
            matches!(error, StageError::Gate { id, .. } if id == check.id()),
            "{check:?}: {error}"
        );
    }
    let dir = overlays();
    let file = dir.path().join("usr/sbin/nft");
    fs::set_permissions(file, fs::Permissions::from_mode(0o4755)).unwrap();
    assert!(pass("test", &[Check::NoSetuid], dir.path()).is_err());
}

#[test]
fn a_stage_cannot_leave_host_channels_out() {
    let dir = changed("etc/systemd/system/a.service", "", "LoadCredential=x");
    assert!(matches!(
        pass("test", &[], dir.path()),
        Err(StageError::Gate { id: "host-channels", .. })
    ));
}

#[test]
fn a_missing_library_is_named_with_its_program() {
    let dir = overlays();
    let library = tree::resolve(dir.path(), Path::new("/lib/x86_64-linux-gnu/libc.so.6")).unwrap();
    fs::remove_file(library).unwrap();
    let error = pass("test", &[Check::Programs], dir.path()).unwrap_err().to_string();
    assert!(error.contains("cvm-agent") && error.contains("libc.so.6"), "{error}");
}

#[test]
fn nvidias_driver_is_signed_and_every_unit_that_needs_it_says_so() {
    let dir = overlays();
    let refused = || pass("test", &[Check::NvidiaDriver], dir.path()).unwrap_err().to_string();
    let error = refused();
    assert!(error.contains("no kernel"), "{error}");
    let updates = dir.path().join("usr/lib/modules/1/updates");
    fs::create_dir_all(&updates).unwrap();
    for (name, end) in [("nvidia.ko", driver::MARK), ("nvidia-uvm.ko", &[])] {
        fs::write(updates.join(name), [&b"\x7fELF"[..], end].concat()).unwrap();
    }
    let error = refused();
    assert!(error.contains("nvidia-uvm.ko is not signed"), "{error}");
    fs::copy(updates.join("nvidia.ko"), updates.join("nvidia-uvm.ko")).unwrap();
    let units =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../stages/nvidia_cc_base/nvidia/rootfs");
    edits::overlay(&units, dir.path()).unwrap();
    // What is still missing are the driver's own programs, and each unit is checked before them.
    for (gone, expected) in [
        (None, "/usr/bin/nvidia-modprobe"),
        (Some("nvflare.service.d/zz-gpus.conf"), "nvflare.service sees no GPU"),
        (Some("cvm-agent.service.d/nvidia.conf"), "cvm-agent.service cannot ask"),
        (Some("cvm-jobs.service.d/nvidia.conf"), "cvm-jobs.service does not start"),
    ] {
        if let Some(unit) = gone {
            fs::remove_file(dir.path().join("etc/systemd/system").join(unit)).unwrap();
        }
        let error = refused();
        assert!(error.contains(expected), "{error}");
    }
}
