//! From the initramfs to the running system: files for it, mounts, `chroot`, `exec`.

use std::{
    convert::Infallible,
    fs, io,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

use cvm_base::write_atomic;
use cvm_layout::site_conf::SiteConf;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{chdir, chroot, sethostname},
};
use serde_json::Value;

use crate::{
    attest::HandoffMeasured,
    codes::{Code, Coded, Failure},
    manifest::VerifiedImage,
    net::{card::Card, files, lease::Lease},
    platform::kernel::SCRATCH,
    release::Ended,
    root::OpenRoot,
    tpm,
};

const OURS: &str = "/run/flare-cvm";
/// What is public of this image and this boot.
const IMAGE: &str = "/run/flare-cvm/image";
/// The group of the running system's agent (`/etc/group` of stage nvflare_cc_base).
const AGENT_GROUP: u32 = 989;
const NETWORKD: &str = "/run/systemd/network";
/// Kernel interfaces that move into the running system.
const MOVED: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];
/// The running system's first program: systemd.
const INIT: &str = "/sbin/init";
/// How deep the folders of the initramfs may be.
const DEPTH: usize = 16;

/// The resolver's settings, for the initramfs itself.
pub fn write_resolver(lease: &Lease) -> Result<(), Failure> {
    fs::create_dir_all("/etc").code(Code::NetworkSetup)?;
    write_atomic(Path::new("/etc/resolv.conf"), files::resolv_conf(lease).as_bytes(), 0o644)
        .code(Code::NetworkSetup)
}

/// The files in `/run` by which the running system knows its name and network.
pub fn write_settings(conf: &SiteConf, card: &Card, lease: &Lease) -> Result<(), Failure> {
    sethostname(conf.site.as_str()).code_at(Code::SwitchRoot, "host name")?;
    for folder in [OURS, "/run/systemd", NETWORKD] {
        match fs::DirBuilder::new().mode(0o755).create(folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(e).code_at(Code::SwitchRoot, folder);
            }
            _ => fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
                .code_at(Code::SwitchRoot, folder)?,
        }
    }
    let settings = [
        (OURS, "hosts", files::hosts(&conf.site, &conf.hosts_entries)),
        (OURS, "resolv.conf", files::resolv_conf(lease)),
        (NETWORKD, "10-site.network", files::networkd(&card.name, &conf.network, lease)),
    ];
    for (folder, name, text) in settings {
        write_atomic(&Path::new(folder).join(name), text.as_bytes(), 0o644)
            .code(Code::SwitchRoot)?;
    }
    Ok(())
}

/// What the agent proves this machine with: the signed documents as the builder wrote them, which
/// anybody may read; the firmware's log, which the kernel shows to root only; and what the key
/// holders stated of its attestation key.
pub fn write_image(verified: &VerifiedImage, attestation_keys: &[Value]) -> Result<(), Failure> {
    let event_log = tpm::event_log()?;
    let attestation_keys = serde_json::to_vec(attestation_keys).code(Code::SwitchRoot)?;
    let documents = &verified.documents;
    let public = [
        ("manifest.json", documents.manifest.as_deref()),
        ("manifest.sig", documents.manifest_signature.as_deref()),
        ("reference.json", documents.reference.as_deref()),
        ("reference.sig", documents.reference_signature.as_deref()),
        ("builder.pub", Some(verified.builder.as_bytes().as_slice())),
        ("ak_certificates.json", Some(attestation_keys.as_slice())),
        ("collateral.json", documents.collateral.as_deref()),
    ];
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(IMAGE)
        .code_at(Code::SwitchRoot, IMAGE)?;
    for (name, bytes) in public.into_iter().filter_map(|(name, bytes)| Some((name, bytes?))) {
        write_atomic(&Path::new(IMAGE).join(name), bytes, 0o644).code(Code::SwitchRoot)?;
    }
    let log = Path::new(IMAGE).join("event_log");
    write_atomic(&log, &event_log, 0o640).code(Code::SwitchRoot)?;
    chown(&log, None, Some(AGENT_GROUP)).code_at(Code::SwitchRoot, log.display())
}

/// Makes the system volume the root and starts its init. Returns only on failure. The handoff was
/// measured and the secrets were wiped before, which the arguments prove.
pub fn switch_root(
    root: OpenRoot,
    _measured: HandoffMeasured,
    _ended: Ended,
) -> Result<Infallible, Failure> {
    umount2(SCRATCH, MntFlags::MNT_DETACH).code_at(Code::SwitchRoot, SCRATCH)?;
    for path in MOVED {
        root.move_mount(Path::new(path), path)?;
    }
    chdir(root.path()).code_at(Code::SwitchRoot, root.path().display())?;
    // The initramfs stays in RAM for as long as its files exist.
    let device = fs::metadata("/").code(Code::SwitchRoot)?.dev();
    empty(Path::new("/"), device, DEPTH);
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .code_at(Code::SwitchRoot, "/")?;
    chroot(".").code(Code::SwitchRoot)?;
    chdir("/").code(Code::SwitchRoot)?;
    Err(Failure::new(
        Code::SwitchRoot,
        format_args!("{INIT}: {}", Command::new(INIT).env_clear().exec()),
    ))
}

/// Deletes what lies on `device`, except mounts. What cannot be deleted costs memory and nothing
/// else.
fn empty(folder: &Path, device: u64, depth: usize) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() {
            if depth > 0 {
                empty(&path, device, depth - 1);
            }
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initramfs_is_emptied_and_other_file_systems_and_links_targets_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        fs::create_dir_all(folder.path().join("lib/modules")).unwrap();
        fs::write(folder.path().join("lib/modules/x.ko"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
        let device = fs::metadata(folder.path()).unwrap().dev();
        empty(folder.path(), device + 1, DEPTH);
        assert!(folder.path().join("lib/modules/x.ko").exists());
        empty(folder.path(), device, DEPTH);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(outside.path().join("kept").exists());
    }
}
