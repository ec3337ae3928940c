//! erofs images, made and unpacked with erofs-utils.

use std::{fs, path::Path, process::Command};

use cvm_base::Bytes16;

use super::StageError;
use crate::{WorkError, tool};

/// Whose files an image holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Root's, all of them.
    Root,
    /// The service's (uid and gid 990), all of them.
    Nvflare,
}

/// The service's user and group id in the guest.
const NVFLARE_ID: u32 = 990;

/// Makes an uncompressed erofs of `tree` at `out`, and gives its length, a multiple of 4096.
///
/// The same tree and id give the same bytes: times are 1970-01-01. Each file's content lies in one
/// piece and as it is, so that the search for secrets sees what a reader of the disk would see.
pub fn make(tree: &Path, out: &Path, owner: Owner, id: &Bytes16) -> Result<u64, StageError> {
    let mut command = tool::command("mkfs.erofs");
    command.args(["-E", "noinline_data"]);
    match owner {
        Owner::Root => command.arg("--all-root"),
        Owner::Nvflare => command.arg(format!("--force-uid={NVFLARE_ID}")).arg(format!("--force-gid={NVFLARE_ID}")),
    };
    finish(command, tree, out, id)
}

/// Makes an erofs of `tree` at `out`, owners as they are; `small` spends seconds to save space.
pub(super) fn make_compressed(tree: &Path, out: &Path, small: bool, id: &Bytes16) -> Result<u64, StageError> {
    let mut command = tool::command("mkfs.erofs");
    command.args(if small { ["-zlz4hc,9", "-C32768"] } else { ["-zlz4", "-C4096"] });
    finish(command, tree, out, id)
}

fn finish(mut command: Command, tree: &Path, out: &Path, id: &Bytes16) -> Result<u64, StageError> {
    let hex = id.to_string();
    let uuid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    command.args(["--quiet", "-T0", "-x-1", "-U", &uuid]).arg(out).arg(tree);
    tool::run("mkfs.erofs", "packing a file system", command)?;
    let length = fs::metadata(out).map_err(WorkError::io("measure", out))?.len();
    let padded = length.next_multiple_of(4096);
    if padded != length {
        let file = fs::OpenOptions::new().write(true).open(out).map_err(WorkError::io("open", out))?;
        file.set_len(padded).map_err(WorkError::io("pad", out))?;
    }
    Ok(padded)
}

/// Unpacks the erofs `image` into the new folder `to`, owners and permissions as they were where
/// the user is root.
pub(super) fn extract(image: &Path, to: &Path) -> Result<(), StageError> {
    fs::create_dir_all(to).map_err(WorkError::io("make", to))?;
    let mut command = tool::command("fsck.erofs");
    let mut flag = std::ffi::OsString::from("--extract=");
    flag.push(to);
    command.arg(flag).arg("--overwrite").arg(image);
    tool::run("fsck.erofs", "unpacking a file system", command)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn id() -> Bytes16 {
        "000102030405060708090a0b0c0d0e0f".parse().unwrap()
    }

    #[test]
    fn a_tree_comes_back_and_the_image_is_the_same_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/key"), vec![7; 5000]).unwrap();
        fs::set_permissions(tree.join("a/b/key"), fs::Permissions::from_mode(0o400)).unwrap();
        std::os::unix::fs::symlink("a/b/key", tree.join("link")).unwrap();
        for small in [false, true] {
            let (first, second) = (dir.path().join("1"), dir.path().join("2"));
            let length = make_compressed(&tree, &first, small, &id()).unwrap();
            make_compressed(&tree, &second, small, &id()).unwrap();
            assert_eq!(length % 4096, 0);
            assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "deterministic");
            let out = dir.path().join(format!("out-{small}"));
            extract(&first, &out).unwrap();
            assert_eq!(fs::read(out.join("a/b/key")).unwrap(), vec![7; 5000]);
            assert_eq!(out.join("a/b/key").metadata().unwrap().permissions().mode() & 0o777, 0o400);
            assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("a/b/key"));
        }
    }

    #[test]
    fn an_uncompressed_image_shows_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(&tree).unwrap();
        let secret: Vec<u8> = (0..9001_u32).map(|i| (i * 7 % 251) as u8).collect();
        fs::write(tree.join("secret"), &secret).unwrap();
        let image = dir.path().join("image");
        make(&tree, &image, Owner::Root, &id()).unwrap();
        assert!(fs::read(&image).unwrap().windows(secret.len()).any(|window| window == secret));
    }
}
