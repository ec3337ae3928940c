//! The ways by which a host could speak to a running guest without being measured: strings in
//! SMBIOS and fw_cfg, EFI variables, VSOCK, shared folders, devices that nobody asked for. The
//! stage's gate keeps them out of a tree, and `boot` out of what starts it. `cvm-init` checks once
//! more (`initramfs/src/platform/host.rs`).

/// What the command line of every image says, among other things.
///
/// `systemd.import_credentials=no`: PID 1 takes no credentials from SMBIOS, fw_cfg or an initramfs
/// (systemd 251 and later; the command line overrules the EFI variable `SystemdOptions`).
/// `initcall_blacklist`: kernels have these [built in](SWITCHED_OFF); without them no program sees
/// an SMBIOS table (`dmi_init`, `dmi_id_init`, `dmi_sysfs_init`) or can mount a folder of the
/// host's. `rng_core.default_quality=0` and `random.trust_bootloader=off`: the random bytes of the
/// host's device and firmware are mixed in, and count for nothing.
pub(crate) const SWITCHES: &str = "systemd.import_credentials=no \
     initcall_blacklist=dmi_init,dmi_id_init,dmi_sysfs_init,virtio_fs_init \
     rng_core.default_quality=0 random.trust_bootloader=off";

/// Modules that bring a host's words or devices to programs, by what they bring. A `*` stands for
/// any end of a name.
const MODULES: [(&str, &[&str]); 6] = [
    ("SMBIOS and fw_cfg", &["dmi_sysfs", "qemu_fw_cfg", "iscsi_ibft"]),
    ("EFI variables", &["efivarfs", "efivars", "efi_pstore", "efi_test"]),
    ("sockets to the host", &["vsock*", "vmw_vsock*", "vhost*", "vmw_vmci", "hv_sock"]),
    ("folders of the host's", &["9p*", "virtiofs", "vboxsf", "vmhgfs"]),
    (
        "devices that somebody plugs in",
        &["usbcore", "usb_storage", "uas", "usbhid", "xhci*", "firewire*", "thunderbolt"],
    ),
    ("a hypervisor's keys and orders", &["virtio_input", "hv_utils", "vboxguest"]),
];
/// Those of them that kernels have built in, and that the command line switches off.
const SWITCHED_OFF: [&str; 2] = ["dmi_sysfs", "virtiofs"];
/// The end of the SMBIOS names under which boot programs look for a host's command line:
/// `io.systemd.stub.…` (systemd 254), `io.systemd.boot.…`.
const COMMAND_LINE_OF_HOST: &[u8] = b".kernel-cmdline-extra";

/// What a module brings from the host, if anything. Its name is the file's or the kernel's.
pub(crate) fn channel(module: &str) -> Option<&'static str> {
    let name = module.replace('-', "_");
    let is_named = |named: &&str| match named.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == **named,
    };
    MODULES.into_iter().find(|(_, modules)| modules.iter().any(&is_named)).map(|(brings, _)| brings)
}

/// The same for a module that the kernel has built in.
pub(crate) fn open_channel(builtin: &str) -> Option<&'static str> {
    channel(builtin).filter(|_| !SWITCHED_OFF.contains(&builtin.replace('-', "_").as_str()))
}

/// The first of [`SWITCHES`] that a command line lacks, or contradicts with another word.
pub(crate) fn missing_switch(cmdline: &str) -> Option<&'static str> {
    SWITCHES.split(' ').find(|switch| {
        let name = switch.split_inclusive('=').next().unwrap_or(switch);
        let said: Vec<&str> = cmdline.split(' ').filter(|word| word.starts_with(name)).collect();
        said != [*switch]
    })
}

/// Whether an EFI program of systemd appends text from SMBIOS to the kernel's command line.
pub(crate) fn takes_command_line(program: &[u8]) -> bool {
    let wide: Vec<u8> = COMMAND_LINE_OF_HOST.iter().flat_map(|byte| [*byte, 0]).collect();
    [COMMAND_LINE_OF_HOST, &wide]
        .into_iter()
        .any(|text| program.windows(text.len()).any(|at| at == text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_known_by_either_spelling_and_by_how_they_begin() {
        for module in [
            "qemu_fw_cfg",
            "qemu-fw-cfg",
            "vsock_loopback",
            "vmw_vsock_virtio_transport",
            "9pnet_virtio",
        ] {
            assert!(channel(module).is_some() && open_channel(module).is_some(), "{module}");
        }
        for module in ["virtio_net", "nfsv4", "evdev", "button", "fuse"] {
            assert_eq!(channel(module), None, "{module}");
        }
        assert!(
            channel("dmi-sysfs").is_some()
                && open_channel("dmi-sysfs").is_none()
                && open_channel("virtiofs").is_none()
        );
    }

    #[test]
    fn a_command_line_without_a_switch_or_with_another_beside_it_is_found_out() {
        assert_eq!(missing_switch(&format!("quiet {SWITCHES} panic=-1")), None);
        assert_eq!(missing_switch("quiet"), Some("systemd.import_credentials=no"));
        let doubled = format!("{SWITCHES} systemd.import_credentials=yes");
        assert_eq!(missing_switch(&doubled), Some("systemd.import_credentials=no"));
        assert_eq!(
            missing_switch(&SWITCHES.replace("off", "on")),
            Some("random.trust_bootloader=off")
        );
    }

    #[test]
    fn a_boot_program_that_takes_a_command_line_from_smbios_is_found_out() {
        assert!(takes_command_line(b"MZ..io.systemd.stub.kernel-cmdline-extra\0"));
        let wide: Vec<u8> =
            b"io.systemd.boot.kernel-cmdline-extra".iter().flat_map(|b| [*b, 0]).collect();
        assert!(takes_command_line(&wide));
        for program in ["linuxx64.efi.stub", "systemd-bootx64.efi"] {
            let program = std::fs::read(format!("/usr/lib/systemd/boot/efi/{program}")).unwrap();
            assert!(!takes_command_line(&program), "Debian 12's does not");
        }
    }
}
