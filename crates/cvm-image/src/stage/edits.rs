//! The edits of a tree: everything between the unpacked packages and the packed file system.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use super::StageError;
use crate::{
    WorkError,
    tree::{entries, inside, walk},
};

/// Deletes what matches the guest's absolute `patterns`; a pattern may match nothing.
pub(super) fn remove(tree: &Path, patterns: &[String]) -> Result<(), StageError> {
    for pattern in patterns {
        let whole = format!("{}{pattern}", glob::Pattern::escape(&tree.to_string_lossy()));
        let bad = |problem: String| StageError::Tree { path: pattern.clone(), problem };
        let matches: Vec<PathBuf> = glob::glob(&whole)
            .map_err(|e| bad(e.to_string()))?
            .collect::<Result<_, _>>()
            .map_err(|e| bad(e.to_string()))?;
        for path in matches {
            delete(&path)?;
        }
    }
    Ok(())
}

/// Deletes a file, link or folder; it may be gone already.
fn delete(path: &Path) -> Result<(), WorkError> {
    let Ok(metadata) = path.symlink_metadata() else { return Ok(()) };
    let done = if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    done.map_err(WorkError::io("remove", path))
}

/// Leaves only the named entries in each folder.
pub(super) fn keep_only(
    tree: &Path,
    folders: &BTreeMap<String, Vec<String>>,
) -> Result<(), StageError> {
    for (folder, names) in folders {
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let path = inside(tree, folder);
        for entry in entries(&path)? {
            if !entry
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| names.contains(name))
            {
                delete(&entry)?;
            }
        }
        if let Some(missing) = names.iter().find(|name| path.join(name).symlink_metadata().is_err())
        {
            return Err(StageError::Tree {
                path: format!("{folder}/{missing}"),
                problem: "is to be kept, but is not there".into(),
            });
        }
    }
    Ok(())
}

/// Removes the named settings from every unit in each folder, whatever their values.
pub(super) fn without_settings(
    tree: &Path,
    folders: &BTreeMap<String, Vec<String>>,
) -> Result<(), StageError> {
    for (folder, settings) in folders {
        walk(&inside(tree, folder), &mut |path, metadata| {
            if !metadata.is_file() {
                return Ok(());
            }
            let text = fs::read_to_string(path).map_err(WorkError::io("read", path))?;
            let is_kept = |line: &&str| {
                line.split_once('=')
                    .is_none_or(|(setting, _)| settings.iter().all(|name| name != setting.trim()))
            };
            let kept: String = text.split_inclusive('\n').filter(is_kept).collect();
            if kept != text {
                fs::write(path, kept).map_err(WorkError::io("write", path))?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Copies an overlay over the tree: files with 0644 or 0755, folders with 0755, links as they are.
/// All of them belong to the user who builds.
pub(super) fn overlay(source: &Path, tree: &Path) -> Result<(), StageError> {
    for from in entries(source)? {
        let name = from.file_name().unwrap_or_default();
        let to = tree.join(name);
        let kind = from.symlink_metadata().map_err(WorkError::io("look at", &from))?;
        if kind.is_dir() {
            if to.symlink_metadata().is_ok_and(|old| old.is_symlink()) {
                let problem = "the overlay has a folder where the tree has a link".into();
                return Err(StageError::Tree { path: to.display().to_string(), problem });
            }
            make_folder(&to)?;
            overlay(&from, &to)?;
            continue;
        }
        delete(&to)?;
        if kind.is_symlink() {
            let target = fs::read_link(&from).map_err(WorkError::io("read the link", &from))?;
            symlink(target, &to).map_err(WorkError::io("make the link", &to))?;
        } else {
            fs::copy(&from, &to).map_err(WorkError::io("write", &to))?;
            let mode = if kind.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
            fs::set_permissions(&to, Permissions::from_mode(mode))
                .map_err(WorkError::io("set the mode of", &to))?;
        }
    }
    Ok(())
}

/// Makes the folders and sets the modes that a stage asks for.
pub(super) fn finish(
    tree: &Path,
    directories: &[String],
    modes: &BTreeMap<String, String>,
) -> Result<(), StageError> {
    for directory in directories {
        let mut path = tree.to_owned();
        for part in directory.split('/').filter(|part| !part.is_empty()) {
            path.push(part);
            if path.symlink_metadata().is_err() {
                make_folder(&path)?;
            }
        }
    }
    for (name, mode) in modes {
        let path = inside(tree, name);
        let mode = Permissions::from_mode(parse_mode(mode).unwrap_or(0));
        fs::set_permissions(&path, mode).map_err(WorkError::io("set the mode of", &path))?;
    }
    Ok(())
}

/// An octal permission without set-id bits.
pub(super) fn parse_mode(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777)
}

fn make_folder(path: &Path) -> Result<(), WorkError> {
    fs::create_dir_all(path).map_err(WorkError::io("make", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .map_err(WorkError::io("set the mode of", path))
}

/// Removes links below `folder` whose target is gone: removed units leave such links.
pub(super) fn prune_links(tree: &Path, folder: &str) -> Result<(), WorkError> {
    walk(&inside(tree, folder), &mut |path, metadata| {
        if metadata.is_symlink() {
            let target = fs::read_link(path).map_err(WorkError::io("read the link", path))?;
            let parent = path.parent().unwrap_or(tree);
            let target = if target.is_absolute() {
                inside(tree, &target.to_string_lossy())
            } else {
                parent.join(target)
            };
            // What a site adds later is not there yet.
            let is_sites = target.starts_with(tree.join("opt/nvflare/site"));
            if !is_sites && target != Path::new("/dev/null") && target.symlink_metadata().is_err() {
                return delete(path);
            }
        }
        Ok(())
    })
}

/// Clears every set-user-id and set-group-id bit: nothing in the guest needs one.
pub(super) fn strip_set_id(tree: &Path) -> Result<(), WorkError> {
    walk(tree, &mut |path, metadata| {
        let mode = metadata.permissions().mode();
        if !metadata.is_symlink() && mode & 0o6000 != 0 {
            let mode = Permissions::from_mode(mode & 0o1777);
            fs::set_permissions(path, mode).map_err(WorkError::io("set the mode of", path))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in
            ["etc/a.conf", "etc/b.conf", "usr/bin/x", "usr/lib/units/keep", "usr/lib/units/go"]
        {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        dir
    }

    #[test]
    fn only_what_is_named_stays() {
        let dir = tree();
        remove(dir.path(), &["/etc/a*".into(), "/none".into()]).unwrap();
        assert!(!dir.path().join("etc/a.conf").exists() && dir.path().join("etc/b.conf").exists());
        let folders = |names: &[&str]| {
            [("/usr/lib/units".to_owned(), names.iter().map(|n| (*n).to_owned()).collect())].into()
        };
        keep_only(dir.path(), &folders(&["keep"])).unwrap();
        assert_eq!(entries(&dir.path().join("usr/lib/units")).unwrap().len(), 1);
        let error = keep_only(dir.path(), &folders(&["keep", "gone"])).unwrap_err().to_string();
        assert!(error.contains("/usr/lib/units/gone"), "{error}");
    }

    #[test]
    fn settings_are_taken_out_of_the_units_of_a_folder_and_of_no_others() {
        let dir = tree();
        let unit = dir.path().join("usr/lib/units/keep");
        fs::write(
            &unit,
            "[Service]\nExecStart=x\nLoadCredential=a\n LoadCredential = b\nLoadCredentials=c\n",
        )
        .unwrap();
        fs::write(dir.path().join("etc/a.conf"), "LoadCredential=a").unwrap();
        let folders = [("/usr/lib/units".to_owned(), vec!["LoadCredential".to_owned()])].into();
        without_settings(dir.path(), &folders).unwrap();
        assert_eq!(
            fs::read_to_string(unit).unwrap(),
            "[Service]\nExecStart=x\nLoadCredentials=c\n"
        );
        assert_eq!(fs::read_to_string(dir.path().join("etc/a.conf")).unwrap(), "LoadCredential=a");
    }

    #[test]
    fn an_overlay_replaces_files_and_links_with_fixed_modes() {
        let (dir, over) = (tree(), tempfile::tempdir().unwrap());
        let path = |name: &str| over.path().join(name);
        fs::create_dir(path("etc")).unwrap();
        fs::write(path("etc/a.conf"), "new").unwrap();
        fs::set_permissions(path("etc/a.conf"), Permissions::from_mode(0o6777)).unwrap();
        symlink("/run/hosts", path("etc/hosts")).unwrap();
        overlay(over.path(), dir.path()).unwrap();
        let file = dir.path().join("etc/a.conf");
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_link(dir.path().join("etc/hosts")).unwrap(), Path::new("/run/hosts"));
    }

    #[test]
    fn an_overlay_never_writes_through_a_link_of_the_tree() {
        let (dir, over, outside) =
            (tree(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(outside.path(), dir.path().join("opt")).unwrap();
        fs::create_dir(over.path().join("opt")).unwrap();
        fs::write(over.path().join("opt/x"), "x").unwrap();
        assert!(overlay(over.path(), dir.path()).is_err());
        assert_eq!(entries(outside.path()).unwrap().len(), 0);
    }

    #[test]
    fn set_id_bits_and_dangling_links_go() {
        let dir = tree();
        let file = dir.path().join("usr/bin/x");
        fs::set_permissions(&file, Permissions::from_mode(0o4755)).unwrap();
        strip_set_id(dir.path()).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o755);

        symlink("/usr/bin/x", dir.path().join("usr/lib/units/good")).unwrap();
        symlink("../gone", dir.path().join("usr/lib/units/bad")).unwrap();
        symlink("/opt/nvflare/site/unit", dir.path().join("usr/lib/units/site")).unwrap();
        prune_links(dir.path(), "/usr/lib").unwrap();
        assert!(dir.path().join("usr/lib/units/good").symlink_metadata().is_ok());
        assert!(dir.path().join("usr/lib/units/site").symlink_metadata().is_ok());
        assert!(dir.path().join("usr/lib/units/bad").symlink_metadata().is_err());
    }
}
