//! The kernel: what goes to the initramfs and what stays in the running system.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::StageError;
use crate::{WorkError, tool, tree};

/// The release of the one kernel in a tree.
pub(super) fn release(tree_folder: &Path) -> Result<String, StageError> {
    let releases = tree::entries(&tree_folder.join("usr/lib/modules"))?;
    let [folder] = releases.as_slice() else {
        let problem = format!("has {} kernels, expected one", releases.len());
        return Err(StageError::Tree { path: "/usr/lib/modules".into(), problem });
    };
    Ok(folder.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// Puts the kernel, the modules that an initramfs may need and `os-release` into `files`; leaves
/// only `system_modules`, and what they need, in the tree. Gives the kernel's release.
pub(super) fn split(
    tree_folder: &Path,
    files: &Path,
    boot_modules: &[String],
    system_modules: &[String],
) -> Result<String, StageError> {
    let release = release(tree_folder)?;
    let folder = &tree_folder.join("usr/lib/modules").join(&release);
    decompress(&folder.join("kernel"))?;
    depmod(tree_folder, &release)?;

    let out = files.join("lib/modules").join(&release);
    // Since 2026, Debian's kernels are in the folder of their modules.
    let beside = ["vmlinuz", "System.map", "config"].map(|name| folder.join(name));
    let older = tree_folder.join("boot").join(format!("vmlinuz-{release}"));
    copy(if beside[0].exists() { &beside[0] } else { &older }, &files.join("vmlinuz"))?;
    for file in beside.iter().filter(|file| file.exists()) {
        fs::remove_file(file).map_err(WorkError::io("remove", file))?;
    }
    copy(&tree_folder.join("usr/lib/os-release"), &files.join("os-release"))?;
    for name in ["modules.dep", "modules.builtin"] {
        copy(&folder.join(name), &out.join(name))?;
    }
    for module in boot_modules {
        let from = folder.join("kernel").join(module);
        let to = out.join("kernel").join(module);
        if from.is_file() {
            copy(&from, &to)?;
            continue;
        }
        let mut count = 0;
        tree::walk(&from, &mut |path, metadata| {
            count += 1;
            let below = path.strip_prefix(&from).unwrap_or(path);
            if metadata.is_file() { copy(path, &to.join(below)) } else { Ok(()) }
        })?;
        if count == 0 {
            let problem =
                "is neither a folder nor a file of this kernel's modules (boot_modules)".into();
            return Err(StageError::Tree { path: module.clone(), problem });
        }
    }

    let dep = fs::read_to_string(folder.join("modules.dep"))
        .map_err(WorkError::io("read", folder.join("modules.dep")))?;
    let keep = closure(&dep, system_modules)?;
    tree::walk(&folder.join("kernel"), &mut |path, metadata| {
        let below = path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned();
        if metadata.is_file() && !keep.contains(&below) {
            fs::remove_file(path).map_err(WorkError::io("remove", path))?;
        }
        Ok(())
    })?;
    depmod(tree_folder, &release)?;
    Ok(release)
}

/// Decompresses modules that are compressed one by one: the images that they go to are compressed
/// as a whole, and `cvm-init` has no decompressor. A module's signature covers its plain bytes.
fn decompress(kernel: &Path) -> Result<(), StageError> {
    let mut compressed = Vec::new();
    tree::walk(kernel, &mut |path, _| {
        if path.extension().is_some_and(|extension| extension == "xz") {
            compressed.push(path.to_owned());
        }
        Ok(())
    })?;
    if !compressed.is_empty() {
        let mut command = tool::command("xz");
        command.args(["--decompress", "--"]).args(compressed);
        tool::run("xz", "unpacking the kernel's modules", command)?;
    }
    Ok(())
}

fn depmod(tree: &Path, release: &str) -> Result<(), StageError> {
    let mut command = tool::command("depmod");
    command.arg("-b").arg(tree).arg(release);
    tool::run("depmod", "listing the kernel's modules", command)?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), WorkError> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(WorkError::io("make", parent))?;
    }
    fs::copy(from, to).map(drop).map_err(WorkError::io("copy", from))
}

/// The files of the named modules and of all that they need, from `modules.dep` (`FILE: FILE…`
/// lines, where depmod lists every dependency, not only direct ones).
fn closure(dep: &str, names: &[String]) -> Result<BTreeSet<String>, StageError> {
    let key = |file: &str| {
        let name = PathBuf::from(file);
        let name = name.file_name().unwrap_or_default().to_string_lossy();
        name.split('.').next().unwrap_or_default().replace('-', "_")
    };
    let table: BTreeMap<String, (&str, &str)> = dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needs)| (key(file), (file, needs)))
        .collect();
    let mut files = BTreeSet::new();
    for name in names {
        let (file, needs) = table.get(&name.replace('-', "_")).ok_or_else(|| StageError::Tree {
            path: name.clone(),
            problem: "is not a module of this kernel (system_modules)".into(),
        })?;
        files.insert((*file).to_owned());
        files.extend(needs.split_whitespace().map(str::to_owned));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_with_what_it_needs() {
        let dep = "kernel/net/nf-tables.ko: kernel/lib/crc.ko \
            kernel/net/nfnetlink.ko\nkernel/lib/crc.ko:\nkernel/x.ko.xz:\n";
        let files = closure(dep, &["nf_tables".into(), "x".into()]).unwrap();
        assert_eq!(
            files.into_iter().collect::<Vec<_>>(),
            [
                "kernel/lib/crc.ko",
                "kernel/net/nf-tables.ko",
                "kernel/net/nfnetlink.ko",
                "kernel/x.ko.xz"
            ]
        );
        assert!(closure(dep, &["gone".into()]).unwrap_err().to_string().contains("gone"));
    }
}
