//! Whether the host could speak to the programs of the running system. The image's gate keeps every
//! such channel out (`crates/cvm-image/src/host.rs`). This looks at what the kernel itself shows: a
//! later kernel may open a channel by itself.

use std::{fs, path::Path};

use crate::{
    codes::{Code, Coded, Failure},
    console::step,
};

/// Where SMBIOS, fw_cfg, EFI variables, VSOCK, folders of the host's and USB devices would be.
const ABSENT: [&str; 7] = [
    "/sys/firmware/dmi",
    "/sys/class/dmi",
    "/sys/firmware/qemu_fw_cfg",
    "/sys/firmware/efi/vars",
    "/sys/module/vsock",
    "/sys/module/9pnet",
    "/sys/bus/usb",
];
/// File systems that the kernel must not know.
const FILE_SYSTEMS: [&str; 3] = ["efivarfs", "virtiofs", "9p"];
/// Settings and the values that they must have: the console's SysRq, and how much of a hardware
/// generator's output counts as random.
const SETTINGS: [(&str, &str); 2] =
    [("/proc/sys/kernel/sysrq", "0"), ("/sys/module/rng_core/parameters/default_quality", "0")];
/// PID 1's switch against credentials; systemd believes the last of several.
const SWITCH: &str = "systemd.import_credentials";

/// Looks at what the kernel shows, once the modules are loaded.
pub fn is_silent() -> Result<(), Failure> {
    check(Path::new("/"))?;
    step(
        "host",
        "no program sees SMBIOS, fw_cfg, EFI variables, VSOCK, USB or a folder of the host's",
    );
    Ok(())
}

fn check(root: &Path) -> Result<(), Failure> {
    let open = |what: String| Err(Failure::new(Code::HostChannel, what));
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    let read = |path: &str| fs::read_to_string(inside(path)).code_at(Code::HostChannel, path);
    if let Some(path) = ABSENT.into_iter().find(|path| inside(path).symlink_metadata().is_ok()) {
        return open(format!("{path} is there"));
    }
    let known = read("/proc/filesystems")?;
    if let Some(kind) =
        FILE_SYSTEMS.into_iter().find(|kind| known.split_whitespace().any(|word| word == *kind))
    {
        return open(format!("the kernel mounts {kind}"));
    }
    for (path, expected) in SETTINGS {
        let found = read(path)?;
        if found.trim() != expected {
            return open(format!("{path} says {}, expected {expected}", found.trim()));
        }
    }
    let cmdline = read("/proc/cmdline")?;
    let said: Vec<&str> =
        cmdline.split_whitespace().filter_map(|word| word.strip_prefix(SWITCH)).collect();
    if said == ["=no"] {
        Ok(())
    } else {
        open(format!("the command line does not say {SWITCH}=no, once"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, content: &str) {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A kernel as the image starts it.
    fn silent() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "/proc/filesystems", "nodev\tsysfs\n\text4\nnodev\tfuse\n");
        put(root.path(), "/proc/cmdline", "console=ttyS0 systemd.import_credentials=no panic=-1\n");
        SETTINGS.iter().for_each(|(path, value)| put(root.path(), path, &format!("{value}\n")));
        root
    }

    #[test]
    fn attack_a_kernel_that_shows_programs_what_the_host_says_gets_no_keys() {
        check(silent().path()).unwrap();
        let switch = SWITCH;
        let cases = ABSENT.map(|path| (format!("{path}/x"), String::new(), path.to_owned()));
        for (path, content, expected) in cases.into_iter().chain([
            ("/proc/filesystems".into(), "nodev\tefivarfs\n".into(), "efivarfs".into()),
            ("/proc/filesystems".into(), "nodev\t9p\n".into(), "9p".into()),
            ("/proc/sys/kernel/sysrq".into(), "438\n".into(), "438".into()),
            (SETTINGS[1].0.into(), "1024\n".into(), "1024".into()),
            ("/proc/cmdline".into(), "quiet\n".into(), switch.into()),
            ("/proc/cmdline".into(), format!("{switch}=no {switch}=yes\n"), switch.into()),
        ]) {
            let root = silent();
            put(root.path(), &path, &content);
            let failure = check(root.path()).unwrap_err();
            assert!(
                failure.code == Code::HostChannel && failure.detail.contains(&expected),
                "{path}: {failure}"
            );
        }
    }
}
