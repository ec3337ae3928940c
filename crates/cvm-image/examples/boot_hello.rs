//! Makes a bundle that boots any dynamically linked program as PID 1, to try the boot chain alone:
//! `cargo run --release -p cvm-image --example boot_hello -- KERNEL_ROOT INIT MODULES_LIST OUTPUT`.
//! `KERNEL_ROOT` holds `boot/vmlinuz-*` and `usr/lib/modules/*`; `OUTPUT` gets what launch_vm.sh needs.

use std::{error::Error, fs, path::PathBuf};

use cvm_base::{sha256, write_atomic};
use cvm_image::boot::{self, disk, fat, initramfs, secure_boot, uki};
use cvm_layout::layout::{Contents, Layout, verity_data_room};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [kernel_root, init, list, output] = &arguments[..] else {
        return Err("expected KERNEL_ROOT INIT MODULES_LIST OUTPUT".into());
    };
    boot::require_tools()?;
    fs::create_dir_all(output)?;
    let modules = kernel_root.join("usr/lib/modules");
    let release = fs::read_dir(&modules)?.next().ok_or("no kernel modules")??.file_name();
    let release = release.to_str().ok_or("a kernel release in UTF-8")?;
    let kernel = fs::read(kernel_root.join(format!("boot/vmlinuz-{release}")))?;

    let initrd = initramfs::build(&initramfs::Sources {
        init,
        kernel_release: release,
        modules: &fs::read_to_string(list)?,
        kernel_file: &|path| fs::read(modules.join(release).join(path)).map_err(|e| format!("{path}: {e}")),
        builder_public: &[0; 32],
    })?;
    print!("{initrd}");
    println!("{:>9} compressed", initrd.archive.len());

    let keys = secure_boot::Keys::open_or_create(&output.join("secure-boot"))?;
    let cmdline = uki::cmdline(&sha256(b"{}"));
    let parts = uki::Parts { kernel: &kernel, initrd: &initrd.archive, os_release: "ID=hello\n", cmdline: &cmdline };
    let signed = keys.sign("the kernel image", &uki::build(&parts)?)?;
    let loader = keys.signed_loader()?;
    let firmware = keys.firmware()?;
    for (name, bytes) in [
        ("uki.efi", &signed),
        ("loader.efi", &loader),
        ("initrd", &initrd.archive),
        ("OVMF_CODE.fd", &firmware.code),
        ("OVMF_VARS.fd", &firmware.variables),
        ("pk.esl", &firmware.databases.pk),
        ("kek.esl", &firmware.databases.kek),
        ("db.esl", &firmware.databases.db),
        ("dbx.esl", &firmware.databases.dbx),
    ] {
        write_atomic(&output.join(name), bytes, 0o644)?;
    }
    write_atomic(&output.join("launch_vm.sh"), boot::LAUNCH_VM.as_bytes(), 0o755)?;

    let layout = Layout::parse(include_str!("../../../partitions/small.yaml"))?;
    let placement = layout.place(&Contents::default())?;
    print!("{placement}");
    let image = "00112233445566778899aabbccddeeff".parse()?;
    let p1 = fat::Files::from([
        (boot::LOADER_PATH.to_owned(), loader),
        (boot::LOADER_CONF_PATH.to_owned(), boot::LOADER_CONF.into()),
        ("flare-cvm/manifest.json".to_owned(), b"{}".to_vec()),
    ]);
    let p1 = fat::make(placement.partitions[0].length, "ESP", &p1)?;
    let p2 = fat::Files::from([(boot::UKI_PATH.to_owned(), signed)]);
    let p2 = fat::make(verity_data_room(placement.partitions[1].length), "BOOT", &p2)?;
    let p6 = output.join("data.ext4");
    disk::empty_ext4(&p6, placement.partitions[5].length, &image)?;
    use disk::Content::{Bytes, File, Nothing};
    let contents = [Bytes(&p1), Bytes(&p2), Nothing, Nothing, Nothing, File(&p6)];
    disk::build(&output.join("disk.qcow2"), &placement, &image, contents)?;
    Ok(())
}
