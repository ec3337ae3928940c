//! A real guest: `examples/guest_check.rs` as `/init` under QEMU, with Debian's kernel.
//!
//! Needs `FLARE_CVM_TEST_KERNEL`: an unpacked kernel package (`boot/vmlinuz-*`,
//! `usr/lib/modules/*`). `make test` sets it. Without it the test says so and passes. `cargo test
//! --test it` alone does not build the example: add `--example guest_check`.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use cvm_base::sha256;
use cvm_layout::manifest::{RootPartition, Volume};
use cvm_seal::{DiskKey, MacKey, luks, verity};

const TOOLS: [&str; 2] = ["/sbin/mke2fs", "/sbin/e2fsck"];

#[test]
fn a_guest_makes_opens_and_defends_its_disks() {
    let Some(kernel) = std::env::var_os("FLARE_CVM_TEST_KERNEL").map(PathBuf::from) else {
        println!("skipped: FLARE_CVM_TEST_KERNEL is not set");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let disks = [("vda", 10 << 30), ("vdb", 100 << 20)].map(|(name, bytes)| {
        let path = dir.path().join(name);
        File::create(&path).unwrap().set_len(bytes).unwrap();
        path
    });
    let sealed = seal_area(dir.path());
    let initramfs = initramfs(dir.path(), &kernel);
    let boot = |which| {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args([
            "-machine",
            "q35",
            "-cpu",
            // As launch_vm.sh says.
            "max,-cx16",
            "-m",
            "1G",
            "-nographic",
            "-no-reboot",
            "-nic",
            "none",
            "-kernel",
        ]);
        qemu.arg(only(&kernel.join("boot"), "vmlinuz-")).arg("-initrd").arg(&initramfs);
        qemu.args(["-append", &format!("console=ttyS0 panic=-1 loglevel=3 {which}")]);
        for disk in disks.iter().chain([&sealed]) {
            qemu.arg("-drive").arg(format!("file={},format=raw,if=virtio", disk.display()));
        }
        let output = Command::new("timeout")
            .arg("240")
            .arg(qemu.get_program())
            .args(qemu.get_args())
            .output()
            .unwrap();
        let console = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{which} boot:\n{console}");
        assert!(console.contains("guest check: passed"), "{which} boot failed");
        console
    };
    let (first, second) = (boot("first"), boot("second"));
    for name in ["large", "small"] {
        let digest = |console: &str| {
            let line = console
                .lines()
                .find(|line| line.starts_with(&format!("{name}: header")))
                .unwrap()
                .trim();
            line.to_owned()
        };
        assert_eq!(digest(&first), digest(&second), "the header changed between the boots");
    }
}

/// vdc: two volumes with their trees in one sealed area, and something else after it.
fn seal_area(dir: &Path) -> PathBuf {
    let volumes = [("system", 800), ("site", 3)].map(|(name, blocks)| {
        let path = dir.join(name);
        let data: Vec<u8> =
            (0..blocks * 128u64).flat_map(|n| sha256(format!("{name}{n}").as_bytes()).0).collect();
        fs::write(&path, &data).unwrap();
        fs::write(dir.join(format!("{name}.plain")), &data).unwrap();
        (
            verity::format(&path, data.len() as u64, sha256(name.as_bytes())).unwrap(),
            fs::read(path).unwrap(),
        )
    });
    let [(system, mut plain), (site, site_bytes)] = volumes;
    plain.extend(site_bytes);
    let area = dir.join("vdc");
    let keys = (DiskKey::new(&[7; 32]), MacKey::new(&[8; 32]));
    let sealed =
        luks::seal(&mut plain.as_slice(), plain.len() as u64, &area, 0, &keys.0, &keys.1).unwrap();
    File::options().append(true).open(&area).unwrap().write_all(&[0xee; 1 << 20]).unwrap();
    let root = RootPartition {
        sealed_bytes: sealed.total_bytes,
        site: Volume { offset: system.total_bytes, verity: site },
        system: Volume { offset: 0, verity: system },
        state_offset: sealed.total_bytes,
    };
    fs::write(dir.join("root.json"), serde_json::to_vec(&root).unwrap()).unwrap();
    area
}

/// `/init`, the tools, their libraries, the modules in load order, and what the area must hold.
fn initramfs(dir: &Path, kernel: &Path) -> PathBuf {
    let init = std::env::current_exe().unwrap().parent().unwrap().join("../examples/guest_check");
    let modules = only(&kernel.join("usr/lib/modules"), "");
    let list = modules_in(&modules);
    let mut files = vec![(init.clone(), "init".to_owned())];
    files.extend(list.iter().map(|name| (modules.join(name), name.clone())));
    files.extend(
        ["root.json", "system.plain", "site.plain"].map(|name| (dir.join(name), name.to_owned())),
    );
    let mut libraries = BTreeSet::new();
    for program in TOOLS.map(PathBuf::from).into_iter().chain([init]) {
        let output = Command::new("ldd").arg(program).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        libraries.extend(
            text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned),
        );
    }
    files.extend(
        libraries
            .iter()
            .map(String::as_str)
            .chain(TOOLS)
            .map(|path| (path.into(), path[1..].to_owned())),
    );
    let tree = dir.join("tree");
    for (from, to) in files {
        let to = tree.join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&from, to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    }
    fs::write(tree.join("modules"), list.join("\n")).unwrap();
    let archive = dir.join("initramfs");
    let pack = "find . -print0 | cpio --null --create --format=newc --quiet";
    let mut shell = Command::new("sh");
    shell
        .args(["-c", pack])
        .current_dir(&tree)
        .stdout(Stdio::from(File::create(&archive).unwrap()));
    assert!(shell.status().unwrap().success());
    archive
}

/// The paths of `initramfs/modules.list`'s modules, in its order; a module without a file is built
/// in.
fn modules_in(folder: &Path) -> Vec<String> {
    let index = fs::read_to_string(folder.join("modules.dep")).unwrap();
    let paths: Vec<_> =
        index.lines().filter_map(|line| line.split_once(':')).map(|(path, _)| path).collect();
    let names = include_str!("../../../../initramfs/modules.list").lines();
    let names = names
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|name| !name.is_empty());
    names
        .filter_map(|name| paths.iter().find(|path| path.ends_with(&format!("/{name}.ko"))))
        .map(|p| (*p).into())
        .collect()
}

/// The one entry of a folder whose name starts so.
fn only(folder: &Path, prefix: &str) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut found =
        entries.map(|e| e.unwrap()).filter(|e| e.file_name().to_string_lossy().starts_with(prefix));
    found.next().unwrap_or_else(|| panic!("nothing like {prefix}* in {}", folder.display())).path()
}
