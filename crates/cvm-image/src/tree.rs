//! Reading a tree: a folder on this machine that will be, or was, another machine's root.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use crate::WorkError;

/// Calls `visit` for everything below `folder`, links not followed, in the order of names.
pub(crate) fn walk(
    folder: &Path,
    visit: &mut dyn FnMut(&Path, &fs::Metadata) -> Result<(), WorkError>,
) -> Result<(), WorkError> {
    for path in entries(folder)? {
        let metadata = path.symlink_metadata().map_err(WorkError::io("look at", &path))?;
        visit(&path, &metadata)?;
        if metadata.is_dir() && path.symlink_metadata().is_ok() {
            walk(&path, visit)?;
        }
    }
    Ok(())
}

/// The sorted entries of a folder; none where there is no such folder.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, WorkError> {
    let fail = || WorkError::io("list", folder);
    let listing = match fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        listing => listing.map_err(fail())?,
    };
    let mut paths: Vec<PathBuf> =
        listing.map(|entry| Ok(entry?.path())).collect::<Result<_, _>>().map_err(fail())?;
    paths.sort();
    Ok(paths)
}

/// The file that `path` is for a program whose root is `root`: links are followed, but never out of
/// the tree.
pub(crate) fn resolve(root: &Path, path: &Path) -> Option<PathBuf> {
    const LINKS: usize = 40; // as Linux
    let mut links = 0;
    let mut ahead: Vec<OsString> =
        path.components().rev().map(|part| part.as_os_str().to_owned()).collect();
    let mut found = PathBuf::new();
    while let Some(part) = ahead.pop() {
        match part.to_str() {
            Some("/") => found = PathBuf::new(),
            Some(".") => {}
            Some("..") => drop(found.pop()),
            _ => {
                let Ok(target) = fs::read_link(root.join(&found).join(&part)) else {
                    found.push(part);
                    continue;
                };
                links += 1;
                if links > LINKS {
                    return None;
                }
                ahead.extend(target.components().rev().map(|part| part.as_os_str().to_owned()));
            }
        }
    }
    Some(root.join(found)).filter(|path| path.is_file())
}

/// The guest's absolute `path` in the tree.
pub(crate) fn inside(tree: &Path, path: &str) -> PathBuf {
    tree.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_inside_the_tree_only() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["etc/b.conf", "usr/bin/x", "usr/lib/keep"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let link = |target: &str, name: &str| symlink(target, dir.path().join(name)).unwrap();
        link("usr/bin", "bin");
        link("/bin/x", "etc/x");
        link("../../../../../../etc/b.conf", "usr/lib/b");
        link("/etc/hostname", "etc/outside");
        link("loop", "loop");
        let found = |path: &str| resolve(dir.path(), Path::new(path));
        assert_eq!(found("/etc/x"), Some(dir.path().join("usr/bin/x")));
        assert_eq!(found("/bin/../lib/b"), Some(dir.path().join("etc/b.conf")));
        assert_eq!((found("/etc/outside"), found("/loop"), found("/usr")), (None, None, None));
    }
}
