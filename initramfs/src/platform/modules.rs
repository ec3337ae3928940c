//! Kernel modules: exactly those of `modules.list`, in its order.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::{errno::Errno, kmod};

use super::sysctl::Applied;
use crate::{
    codes::{Code, Coded, Failure},
    console::step,
};

/// The list, compiled in, so that the measured binary says what may be loaded.
const LIST: &str = include_str!("../../modules.list");
/// Where the kernel's modules lie in the initramfs.
const FOLDER: &str = "/lib/modules";
/// How deep the folders of one kernel's modules may be.
const DEPTH: usize = 8;

/// What became of the list.
#[derive(Debug, Default, PartialEq, Eq)]
struct Loaded {
    /// How many modules this boot loaded.
    loaded: usize,
    /// How many are compiled into the kernel: the initramfs has no file of that name.
    built_in: usize,
    /// Drivers of accelerators that this CPU lacks; others do their work.
    without_hardware: Vec<&'static str>,
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} loaded, {} built in", self.loaded, self.built_in)?;
        if !self.without_hardware.is_empty() {
            write!(f, ", not on this CPU: {}", self.without_hardware.join(", "))?;
        }
        Ok(())
    }
}

/// The names of a module list: `#` starts a comment, and `?` ends a name that the kernel may lack.
pub fn names(list: &str) -> impl Iterator<Item = &str> {
    list.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim().trim_end_matches('?'))
        .filter(|name| !name.is_empty())
}

/// Loads the list, after the kernel's settings: a network card begins with their defaults. A
/// refused module is a failure; an accelerator that an old CPU lacks is not.
pub fn load(_settings: Applied) -> Result<(), Failure> {
    step("modules", load_list()?);
    Ok(())
}

fn load_list() -> Result<Loaded, Failure> {
    let mut files = BTreeMap::new();
    find(Path::new(FOLDER), DEPTH, &mut files).code_at(Code::Module, FOLDER)?;
    let mut result = Loaded::default();
    for name in names(LIST) {
        let Some(path) = files.get(&key(name)) else {
            result.built_in += 1;
            continue;
        };
        let file = File::open(path).code_at(Code::Module, path.display())?;
        match kmod::finit_module(&file, c"", kmod::ModuleInitFlags::empty()) {
            Ok(()) => result.loaded += 1,
            Err(Errno::EEXIST) => result.built_in += 1,
            Err(Errno::ENODEV) => result.without_hardware.push(name),
            Err(e) => return Err(Failure::new(Code::Module, format_args!("{name}: {e}"))),
        }
    }
    Ok(result)
}

/// The kernel writes a module's name with `-` in some places and `_` in others.
fn key(name: &str) -> String {
    name.replace('-', "_")
}

fn find(folder: &Path, depth: usize, files: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() && depth > 0 {
            find(&path, depth - 1, files)?;
        } else if let Some(name) =
            entry.file_name().to_str().and_then(|name| name.strip_suffix(".ko"))
        {
            files.insert(key(name), path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_list_holds_no_name_twice_and_says_why_each_is_there() {
        let mut seen = BTreeSet::new();
        for line in LIST.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (name, why) = line.split_once('#').unwrap_or_else(|| panic!("{line}: no reason"));
            assert!(seen.insert(key(name.trim())), "{line}: twice");
            assert!(!why.trim().is_empty(), "{line}: no reason");
        }
        assert_eq!(names(LIST).count(), seen.len());
    }

    #[test]
    fn files_are_found_at_any_depth_under_either_spelling() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("6.1/kernel/drivers/md");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("dm-mod.ko"), "").unwrap();
        fs::write(deep.join("modules.dep"), "").unwrap();
        let mut files = BTreeMap::new();
        find(folder.path(), DEPTH, &mut files).unwrap();
        assert_eq!(
            files.into_iter().collect::<Vec<_>>(),
            [("dm_mod".into(), deep.join("dm-mod.ko"))]
        );
    }
}
