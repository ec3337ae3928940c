//! Whether a tree lets a host speak to the running guest: by systemd, by a unit, or by a module of
//! the kernel.

use std::{fs, path::Path};

use super::files::{list, name, read};
use crate::{WorkError, host, tree};

/// Every folder from which systemd takes units, drop-ins and its own settings.
const SYSTEMD: [&str; 3] = ["/usr/lib/systemd", "/etc/systemd", "/usr/local/lib/systemd"];
/// Folders of programs that make units from what they find: consoles, labels of disks, the command
/// line.
const GENERATORS: [&str; 2] = ["system-generators", "system-environment-generators"];
/// Settings by which a unit takes in, or depends on, what the host says.
const SETTINGS: [&str; 9] = [
    "LoadCredential",
    "LoadCredentialEncrypted",
    "SetCredential",
    "SetCredentialEncrypted",
    "ImportCredential",
    "ConditionCredential",
    "AssertCredential",
    "ConditionFirmware",
    "AssertFirmware",
];
/// Values by which a unit uses the host, or any disk that has a certain label.
const VALUES: [&str; 7] =
    ["vsock:", "vsock-stream:", "LABEL=", "UUID=", "/dev/disk/", "virtiofs", "9p"];
/// The settings whose values these are.
const REACHING: [&str; 6] =
    ["ListenStream", "ListenDatagram", "ListenSequentialPacket", "What", "Type", "FileSystem"];
/// The version of systemd whose source was searched for channels: another may have more.
const CHECKED: &str = "252";
/// What only later versions have: the host's units, drop-ins and socket, by credential.
const LATER: [&str; 3] = ["systemd.extra-unit.", "systemd.unit-dropin.", "vmm.notify_socket"];
/// How names of units and of drop-ins end.
const UNITS: [&str; 10] =
    ["conf", "service", "socket", "mount", "automount", "swap", "target", "path", "timer", "slice"];
/// The switch by which PID 1 imports no credentials.
const SWITCH: &str = "systemd.import_credentials";

pub(super) fn check(tree: &Path) -> Result<(), String> {
    systemd(tree)?;
    for folder in SYSTEMD {
        for generators in GENERATORS {
            let folder = format!("{folder}/{generators}");
            if let Some(found) = list(tree, &folder)?.first() {
                return Err(format!("{folder}/{} makes units of what it finds", name(found)));
            }
        }
    }
    for folder in SYSTEMD {
        units(tree, folder)?;
    }
    modules(tree)
}

/// The tree has one systemd, of the version whose channels are known, and it has the switch.
fn systemd(tree: &Path) -> Result<(), String> {
    let mut folders = vec!["/usr/lib/systemd".to_owned()];
    // Debian's folder of libraries is the architecture's.
    let architectures =
        list(tree, "/usr/lib")?.into_iter().filter(|path| path.join("systemd").is_dir());
    folders.extend(architectures.map(|path| format!("/usr/lib/{}/systemd", name(&path))));
    let mut programs = vec![tree::inside(tree, "/usr/lib/systemd/systemd")];
    let mut versions = Vec::new();
    for folder in folders {
        for library in list(tree, &folder)? {
            let name = name(&library);
            if let Some(version) = name.strip_prefix("libsystemd-shared-") {
                versions.push(
                    version
                        .split(|c: char| !c.is_ascii_digit())
                        .next()
                        .unwrap_or_default()
                        .to_owned(),
                );
            }
            if name.starts_with("libsystemd-shared-") || name.starts_with("libsystemd-core-") {
                programs.push(library);
            }
        }
    }
    if versions != [CHECKED] {
        let found = if versions.is_empty() { "none".into() } else { versions.join(", ") };
        return Err(format!(
            "nobody has checked what systemd {found} takes from a host, expected {CHECKED}"
        ));
    }
    let mut has_switch = false;
    for program in programs {
        let bytes = fs::read(&program).map_err(|e| format!("{}: {e}", program.display()))?;
        let has = |text: &str| bytes.windows(text.len()).any(|at| at == text.as_bytes());
        if let Some(later) = LATER.into_iter().find(|later| has(later)) {
            return Err(format!("{} takes {later} from a host's credentials", name(&program)));
        }
        has_switch |= has(SWITCH);
    }
    if has_switch { Ok(()) } else { Err(format!("this systemd does not know {SWITCH}=no")) }
}

/// No unit or drop-in below `folder` has such a setting.
fn units(tree: &Path, folder: &str) -> Result<(), String> {
    let mut found = Ok(());
    tree::walk(&tree::inside(tree, folder), &mut |path, metadata| {
        let inside = Path::new("/").join(path.strip_prefix(tree).unwrap_or(path));
        // A link to another unit is read where it leads. What a site adds later is not there yet.
        let file = tree::resolve(tree, &inside).filter(|file| file.is_file());
        if metadata.is_symlink() && leads_to_folder(tree, path) {
            found = Err(format!(
                "{} is a link to a folder, whose units nobody reads",
                inside.display()
            ));
        }
        let is_unit = path.extension().is_some_and(|kind| UNITS.iter().any(|unit| kind == *unit));
        let Some(file) = file.filter(|_| is_unit && !metadata.is_dir()) else { return Ok(()) };
        let bytes = fs::read(&file).map_err(WorkError::io("read", &file))?;
        // As systemd does: only the line that is not text is lost, not the whole unit.
        if let Some(line) = String::from_utf8_lossy(&bytes).lines().find(|line| reaches(line)) {
            found = Err(format!("{} says {:?}", inside.display(), line.trim()));
        }
        Ok(())
    })
    .map_err(|e| e.to_string())?;
    found
}

/// Whether a link's target is a folder of the tree.
fn leads_to_folder(tree: &Path, link: &Path) -> bool {
    let target = fs::read_link(link).unwrap_or_default();
    match target.strip_prefix("/") {
        Ok(inside) => tree.join(inside).is_dir(),
        Err(_) => link.with_file_name("").join(target).is_dir(),
    }
}

/// Whether a line of a unit lets the host in. An empty value does not: it takes earlier ones back.
fn reaches(line: &str) -> bool {
    let Some((setting, value)) = line.split_once('=') else { return false };
    let (setting, value) = (setting.trim(), value.trim());
    !value.is_empty()
        && (SETTINGS.contains(&setting)
            || REACHING.contains(&setting) && VALUES.iter().any(|start| value.starts_with(start)))
}

/// No kernel of the tree has a channel as a module, or built in without being switched off.
fn modules(tree: &Path) -> Result<(), String> {
    for kernel in list(tree, "/usr/lib/modules")? {
        let release = name(&kernel);
        let mut found = None;
        tree::walk(&kernel, &mut |path, _| {
            let name = name(path);
            if let Some(brings) =
                name.split_once(".ko").and_then(|(module, _)| host::channel(module))
            {
                found = Some(format!("{name} of kernel {release} brings {brings} to programs"));
            }
            Ok(())
        })
        .map_err(|e| e.to_string())?;
        let builtin = read(tree, &format!("/usr/lib/modules/{release}/modules.builtin"))?;
        for line in builtin.lines() {
            let module = line.rsplit('/').next().unwrap_or(line).trim_end_matches(".ko");
            if let Some(brings) = host::open_channel(module) {
                found = Some(format!(
                    "kernel {release} has {module} built in, which brings {brings} to programs"
                ));
            }
        }
        if let Some(problem) = found {
            return Err(problem);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree that passes: systemd 252, a unit, a kernel.
    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("usr/lib/systemd/systemd", ""),
            ("usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-252.so", ""),
            (
                "usr/lib/x86_64-linux-gnu/systemd/libsystemd-core-252.so",
                "\0systemd.import_credentials\0",
            ),
            (
                "usr/lib/systemd/system/a.service",
                "[Service]\nExecStart=/bin/true\nLoadCredential=\n# SetCredential=x\n",
            ),
            ("etc/systemd/system/tmp.mount", "[Mount]\nWhat=tmpfs\nType=tmpfs\n"),
            ("usr/lib/modules/6/kernel/net/nfs.ko", ""),
            (
                "usr/lib/modules/6/modules.builtin",
                "kernel/drivers/firmware/dmi-sysfs.ko\nkernel/fs/fuse/virtiofs.ko\n",
            ),
        ] {
            put(dir.path(), path, content);
        }
        dir
    }

    fn put(tree: &Path, path: &str, content: &str) {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A file, its content, and what the refusal must say.
    const WAYS_BACK: &[(&str, &str, &str)] = &[
        // Units, as distributions have them, and in other forms that systemd accepts.
        (
            "usr/lib/systemd/system/a.service",
            "[Service]\nLoadCredential=tmpfiles.extra\n",
            "tmpfiles.extra",
        ),
        (
            "usr/lib/systemd/system/a.service",
            "[Service]\n  LoadCredentialEncrypted = x\n",
            "LoadCredentialEncrypted",
        ),
        (
            "etc/systemd/system/a.service.d/x.conf",
            "[Service]\nImportCredential=*\n",
            "a.service.d/x.conf",
        ),
        ("usr/local/lib/systemd/system/b.service", "[Service]\nSetCredential=a:b\n", "b.service"),
        (
            "etc/systemd/system/c.service",
            "[Unit]\nConditionFirmware=smbios-field(sys_vendor=x)\n",
            "smbios-field",
        ),
        ("etc/systemd/system/d.socket", "[Socket]\nListenStream=vsock::22\n", "vsock"),
        ("etc/systemd/system/data.mount", "[Mount]\nWhat=LABEL=data\n", "LABEL=data"),
        ("etc/systemd/system/data.mount", "[Mount]\nWhat=/dev/disk/by-label/data\n", "by-label"),
        ("etc/systemd/system/data.mount", "[Mount]\nWhat=share\nType=virtiofs\n", "virtiofs"),
        // A console that the host chooses becomes a login.
        ("usr/lib/systemd/system-generators/systemd-getty-generator", "", "getty-generator"),
        ("etc/systemd/system-generators/own", "", "own"),
        // A later systemd, under its own name or another.
        ("usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so", "", "252, 257"),
        ("usr/lib/systemd/libsystemd-shared-260.1-2.so", "", "260"),
        (
            "usr/lib/x86_64-linux-gnu/systemd/libsystemd-core-252.so",
            "systemd.import_credentials systemd.extra-unit.",
            "extra-unit",
        ),
        ("usr/lib/systemd/systemd", "vmm.notify_socket", "notify_socket"),
        ("usr/lib/x86_64-linux-gnu/systemd/libsystemd-core-252.so", "", "does not know"),
        // Modules, compressed ones and those that a driver's package brings, and a kernel with
        // one built in.
        ("usr/lib/modules/6/kernel/drivers/firmware/qemu_fw_cfg.ko", "", "qemu_fw_cfg"),
        (
            "usr/lib/modules/6/kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko.xz",
            "",
            "vmw_vsock",
        ),
        ("usr/lib/modules/6/updates/usb-storage.ko", "", "usb-storage"),
        ("usr/lib/modules/6/kernel/fs/efivarfs/efivarfs.ko.zst", "", "efivarfs"),
        (
            "usr/lib/modules/6/modules.builtin",
            "kernel/drivers/firmware/qemu_fw_cfg.ko\n",
            "built in",
        ),
        ("usr/lib/modules/6/modules.builtin", "kernel/net/9p/9pnet_virtio.ko\n", "9pnet_virtio"),
    ];

    #[test]
    fn attack_each_way_by_which_a_host_gets_back_to_programs() {
        check(tree().path()).unwrap();
        for (path, content, expected) in WAYS_BACK {
            let dir = tree();
            put(dir.path(), path, content);
            let problem = check(dir.path()).unwrap_err();
            assert!(problem.contains(expected), "{path}: {problem} should say {expected}");
        }
    }

    #[test]
    fn a_link_to_a_unit_elsewhere_is_read_where_it_leads() {
        let dir = tree();
        put(dir.path(), "opt/own.service", "[Service]\nLoadCredential=x\n");
        std::os::unix::fs::symlink(
            "/opt/own.service",
            dir.path().join("etc/systemd/system/own.service"),
        )
        .unwrap();
        assert!(check(dir.path()).unwrap_err().contains("own.service"));

        let dir = tree();
        put(dir.path(), "opt/own.d/x.conf", "[Service]\n");
        std::os::unix::fs::symlink("/opt/own.d", dir.path().join("etc/systemd/system/a.service.d"))
            .unwrap();
        assert!(check(dir.path()).unwrap_err().contains("link to a folder"));
    }

    #[test]
    fn attack_a_unit_with_a_line_that_is_not_text() {
        let dir = tree();
        let unit = dir.path().join("etc/systemd/system/own.service");
        fs::write(unit, b"# \xff\n[Service]\nLoadCredential=x\n").unwrap();
        assert!(check(dir.path()).unwrap_err().contains("own.service"));
    }

    #[test]
    fn a_tree_without_systemd_or_a_kernel_that_names_no_modules_is_refused() {
        let empty = tempfile::tempdir().unwrap();
        assert!(check(empty.path()).unwrap_err().contains("none"));
        let dir = tree();
        fs::remove_file(dir.path().join("usr/lib/modules/6/modules.builtin")).unwrap();
        assert!(check(dir.path()).unwrap_err().contains("modules.builtin"));
    }
}
