//! The unified kernel image: systemd's stub, the kernel, the initramfs, the OS release text and the
//! one command line it can ever be started with.
//!
//! PCR 11 measures the sections `.linux`, `.osrel`, `.cmdline`, `.initrd` in this order, each as
//! its name with a NUL and then its bytes (systemd-stub 252).

use std::fs;

use cvm_base::{Bytes32, read_bounded, write_atomic};
use object::{LittleEndian, Object as _, ObjectSection as _, read::pe::PeFile64};

use super::{BootError, secure_boot::boot_program};
use crate::{
    WorkError, host,
    tool::{self, Scratch},
};

const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
/// Sections are mapped on page borders.
const PAGE: u64 = 4096;

/// What the image is made of.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The kernel's `vmlinuz` (a bzImage with its EFI stub).
    pub kernel: &'a [u8],
    /// The compressed initramfs.
    pub initrd: &'a [u8],
    /// The content of the base's `/etc/os-release`.
    pub os_release: &'a str,
    /// The result of [`cmdline`].
    pub cmdline: &'a str,
}

/// What the kernel's command line says besides the manifest's digest and the switches against the
/// host.
///
/// The hardening switches are those of the stage's list. `panic=-1` reboots at once, which
/// `-no-reboot` turns into the end of the VM; `systemd.gpt_auto=0` keeps systemd from mounting
/// partitions that it recognises; an inner kernel log stays off the console (`loglevel=3`);
/// `no_timer_check` leaves out a test of the timer that a machine on a busy host fails with a
/// panic.
const FIXED: &str = "console=ttyS0 panic=-1 loglevel=3 lockdown=integrity init_on_alloc=1 \
                     init_on_free=1 slab_nomerge page_alloc.shuffle=1 randomize_kstack_offset=on \
                     vsyscall=none debugfs=off module.sig_enforce=1 systemd.gpt_auto=0 \
                     no_timer_check";

/// The kernel's command line for the image whose `manifest.json` has this SHA-256.
pub fn cmdline(manifest_sha256: &Bytes32) -> String {
    format!("flare_cvm.manifest={manifest_sha256} {FIXED} {}", host::SWITCHES)
}

/// Joins the parts into one EFI program, not yet signed. The same parts give the same bytes.
pub fn build(parts: &Parts) -> Result<Vec<u8>, BootError> {
    let stub = boot_program(STUB, "systemd's stub")?;
    if parts.kernel.get(0x202..0x206) != Some(b"HdrS") {
        return Err(BootError::Efi { what: "the kernel", problem: "it is not a bzImage".into() });
    }
    if let Some(switch) = host::missing_switch(parts.cmdline) {
        let problem = format!("must say {switch} once, and nothing else of the kind");
        return Err(BootError::HostChannel { what: "the kernel's command line", problem });
    }
    let scratch = Scratch::new()?;
    let mut command = tool::command("objcopy");
    // The header's date stays the stub's; without this objcopy writes the time of the build there.
    command.arg("--preserve-dates");
    let mut address = first_free_address(&stub)?;
    // The kernel comes last: its own decompressor may use the memory after its section.
    for (name, content) in [
        (".osrel", parts.os_release.as_bytes()),
        (".cmdline", parts.cmdline.as_bytes()),
        (".initrd", parts.initrd),
        (".linux", parts.kernel),
    ] {
        let file = scratch.join(name);
        write_atomic(&file, content, 0o600)?;
        let mut section = std::ffi::OsString::from(format!("{name}="));
        section.push(&file);
        command.arg("--add-section").arg(section);
        command.arg("--set-section-flags").arg(format!("{name}=data,readonly"));
        command.arg("--change-section-vma").arg(format!("{name}={address:#x}"));
        address = (address + content.len() as u64).next_multiple_of(PAGE);
    }
    let image = scratch.join("uki.efi");
    fs::write(&image, &stub).map_err(WorkError::io("write", &image))?;
    command.arg(&image);
    tool::run("objcopy", "joining the kernel image", command)?;
    let uki = read_bounded(&image, 256 << 20)?;
    for (name, content) in [
        (".linux", parts.kernel),
        (".cmdline", parts.cmdline.as_bytes()),
        (".initrd", parts.initrd),
    ] {
        if section(&uki, name)? != content {
            return Err(BootError::Efi {
                what: "the kernel image",
                problem: format!("objcopy damaged {name}"),
            });
        }
    }
    Ok(uki)
}

/// A section's bytes, without the padding after them: what PCR 11 measures.
pub fn section<'a>(uki: &'a [u8], name: &str) -> Result<&'a [u8], BootError> {
    let refuse = |problem: String| BootError::Efi { what: "the kernel image", problem };
    let file = PeFile64::parse(uki).map_err(|e| refuse(e.to_string()))?;
    let section =
        file.section_by_name(name).ok_or_else(|| refuse(format!("it has no section {name}")))?;
    let size = section.pe_section().virtual_size.get(LittleEndian) as usize;
    let data = section.data().map_err(|e| refuse(e.to_string()))?;
    data.get(..size).ok_or_else(|| refuse(format!("{name} is cut off")))
}

/// The address of the first page after the stub's own sections.
fn first_free_address(stub: &[u8]) -> Result<u64, BootError> {
    let refuse = |problem: String| BootError::Efi { what: "systemd's stub", problem };
    let file = PeFile64::parse(stub).map_err(|e| refuse(e.to_string()))?;
    let end = file.sections().map(|section| section.address() + section.size()).max();
    Ok(end.ok_or_else(|| refuse("it has no sections".into()))?.next_multiple_of(PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> Vec<u8> {
        let mut kernel = vec![0x90; 10_001];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel
    }

    #[test]
    fn the_sections_are_the_parts_and_the_image_is_the_same_each_time() {
        let (kernel, initrd) = (kernel(), vec![3; 5_003]);
        let cmdline = cmdline(&cvm_base::sha256(b"manifest"));
        let parts = Parts {
            kernel: &kernel,
            initrd: &initrd,
            os_release: "ID=debian\n",
            cmdline: &cmdline,
        };
        let uki = build(&parts).unwrap();
        for (name, content) in [
            (".linux", &kernel[..]),
            (".initrd", &initrd),
            (".osrel", b"ID=debian\n"),
            (".cmdline", cmdline.as_bytes()),
        ] {
            assert_eq!(section(&uki, name).unwrap(), content, "{name}");
        }
        let file = PeFile64::parse(&*uki).unwrap();
        let mut extents: Vec<_> =
            file.sections().map(|s| (s.address(), s.address() + s.size())).collect();
        extents.sort();
        assert!(
            extents.windows(2).all(|pair| pair[0].1 <= pair[1].0),
            "no section lies over another: {extents:x?}"
        );
        let date = |program: &[u8]| {
            PeFile64::parse(program)
                .unwrap()
                .nt_headers()
                .file_header
                .time_date_stamp
                .get(LittleEndian)
        };
        assert_eq!(date(&uki), date(&fs::read(STUB).unwrap()), "not the time of the build");
        assert!(build(&parts).unwrap() == uki, "deterministic");
        assert!(section(&uki, ".absent").is_err());
    }

    #[test]
    fn the_command_line_names_the_manifest_first() {
        let line = cmdline(&cvm_base::sha256(b"manifest"));
        assert!(line.starts_with("flare_cvm.manifest=") && !line.contains("  ") && line.is_ascii());
        assert!(line.len() < 2048, "the kernel's limit");
    }

    #[test]
    fn attack_a_command_line_that_lets_the_host_speak_is_refused() {
        let (kernel, cmdline) = (kernel(), cmdline(&cvm_base::sha256(b"manifest")));
        for cmdline in [
            cmdline.replace(" systemd.import_credentials=no", ""),
            cmdline + " systemd.import_credentials=1",
        ] {
            let parts = Parts { kernel: &kernel, initrd: &[], os_release: "", cmdline: &cmdline };
            let error = build(&parts).unwrap_err();
            assert!(
                cvm_base::Explain::code(&error) == "BOOT-014"
                    && error.to_string().contains("credentials"),
                "{error}"
            );
        }
    }

    #[test]
    fn bytes_that_are_not_a_kernel_are_refused() {
        let parts = Parts { kernel: b"MZ", initrd: &[], os_release: "", cmdline: "" };
        assert!(matches!(build(&parts), Err(BootError::Efi { what: "the kernel", .. })));
    }
}
