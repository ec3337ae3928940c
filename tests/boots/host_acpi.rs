//! BadAML: the kernel runs the code in the host's ACPI tables with its own rights, before PID 1.
//! Nothing in the guest stops it; what the parties' policies say of it decides.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use cvm_image::stage::StageImage;
use cvm_lab::{
    run,
    scene::{Scene, text},
};

/// Compiled from the `.dsl` beside it.
const TABLE: &[u8] = include_bytes!("../vectors/host-acpi/writes-kernel-memory.aml");
/// Where `console_printk` lies in the kernel that it was written for.
const OFFSET: u32 = 0x1cc_c340;
/// AML's prefix of a 32-bit constant.
const DWORD: u8 = 0x0c;

/// The table for a kernel that has `console_printk` at `offset`.
fn table(offset: u32) -> Vec<u8> {
    let constant = |offset: u32| [&[DWORD][..], &offset.to_le_bytes()].concat();
    let (old, mut table) = (constant(OFFSET), TABLE.to_vec());
    let at = table.windows(old.len()).position(|bytes| bytes == old).expect("the constant");
    table[at..at + old.len()].copy_from_slice(&constant(offset));
    // The ninth byte brings the sum to zero.
    table[9] = 0;
    table[9] = table.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    table
}

/// Where the image's kernel has `console_printk`, from its base: as it says itself, booted
/// directly.
fn offset(kernel: &[u8], folder: &Path) -> Result<u32> {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("proc"))?;
    fs::copy("/bin/busybox", tree.join("busybox")).context("Debian's busybox-static")?;
    let init = "#!/busybox sh\n/busybox mount -t proc proc /proc\n\
                /busybox grep -E ' (_text|console_printk)$' /proc/kallsyms\n/busybox poweroff -f\n";
    fs::write(tree.join("init"), init)?;
    fs::write(folder.join("vmlinuz"), kernel)?;
    run(Command::new("chmod").arg("0755").arg(tree.join("init")))?;
    run(Command::new("sh")
        .current_dir(&tree)
        .args(["-c", "find . | cpio --quiet -o -H newc >../initramfs"]))?;
    let mut qemu = Command::new("timeout");
    // As launch_vm.sh says.
    qemu.args([
        "240",
        "qemu-system-x86_64",
        "-machine",
        "q35",
        "-cpu",
        "max,-cx16",
        "-m",
        "1G",
        "-nographic",
    ]);
    qemu.args([
        "-no-reboot",
        "-nic",
        "none",
        "-append",
        "console=ttyS0 panic=-1 loglevel=3 no_timer_check",
        "-kernel",
    ]);
    qemu.arg(folder.join("vmlinuz")).arg("-initrd").arg(folder.join("initramfs"));
    let console = run(&mut qemu)?;
    let address = |symbol: &str| {
        // The firmware's escapes may stand in front of a line.
        let line =
            console.lines().map(str::trim).find(|line| line.ends_with(&format!(" {symbol}")));
        let word = line.and_then(|line| line.split_whitespace().nth_back(2)).unwrap_or_default();
        let word = word.get(word.len().saturating_sub(16)..).unwrap_or_default();
        u64::from_str_radix(word, 16)
            .with_context(|| format!("no {symbol} on the console:\n{console}"))
    };
    Ok(u32::try_from(address("console_printk")? - address("_text")?)?)
}

#[test]
fn attack_acpi_code_of_the_host_writes_kernel_memory() {
    let scene =
        Scene::new("acpi", 17_463, "small.yaml", |line| eprintln!("{line}")).refusing_host_acpi();
    for old in ["parties", "exchange", "builder", "bundles", "machines"] {
        let _ = fs::remove_dir_all(scene.root.join(old));
    }
    let (pristine, tpm) = scene.sealed().expect("the scene");
    let machine = pristine.twin(&scene.root.join("machines/attacked")).expect("a machine");
    let image = StageImage::open(&scene.image("nvcc_image.qcow2")).expect("the first stage");
    let folder = machine.folder.join("host");
    let kernel = image.read_file("vmlinuz").expect("the kernel");
    let offset = offset(&kernel, &folder).expect("console_printk");
    let path = folder.join("table.aml");
    fs::write(&path, table(offset)).expect("the table");
    machine.attach(&["-acpitable".into(), format!("file={}", text(&path))]).expect("the script");

    let mut holders = scene.holders().expect("both key holders");
    let refusal = machine.refused(&tpm).expect("a refused boot");
    // The kernel was told to say nothing below an error; the host's code made it say everything.
    let written = refusal.console.lines().any(|line| line.contains("Run /init as init process"));
    assert!(written, "the table does not do what it did:\n{}", refusal.console);
    // Its firmware measured none of it, and so every register is the image's: what refuses is that
    // this is known.
    assert_eq!(refusal.code.as_deref(), Some("FC-403"), "{}", refusal.console);
    assert!(!refusal.console.contains("p3: opened"), "{}", refusal.console);
    let log: String = holders.processes.iter_mut().map(|holder| holder.text()).collect();
    assert!(
        log.contains("reason=policy") && log.contains("acpi was not checked"),
        "the log names the reason:\n{log}"
    );
}
