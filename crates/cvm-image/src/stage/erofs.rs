//! erofs images, made and unpacked with erofs-utils.

use std::{fs, path::Path, process::Command};

use cvm_base::Bytes16;

use super::StageError;
use crate::{WorkError, tool};

/// Who owns the files of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Root owns all of them.
    Root,
    /// The service (uid and gid 990) owns all of them.
    Nvflare,
    /// The service owns all of them but the folder of this name: that belongs to the key holder
    /// (988), who shares it with nobody.
    NvflareAndKeyHolder(&'static str),
}

/// The service's user and group id in the guest.
const NVFLARE_ID: u32 = 990;
/// The delegated key holder's.
const KEY_HOLDER_ID: u32 = 988;

/// Makes an uncompressed erofs of `tree` at `out`, and gives its length, a multiple of 4096.
///
/// The same tree and id give the same bytes: times are 1970-01-01. Each file's content lies in one
/// piece and uncompressed, so that the search for secrets sees what a reader of the disk would see.
pub fn make(tree: &Path, out: &Path, owner: Owner, id: &Bytes16) -> Result<u64, StageError> {
    let mut command = tool::command("mkfs.erofs");
    command.args(["-E", "noinline_data"]);
    match owner {
        Owner::Root => command.arg("--all-root"),
        Owner::Nvflare => command
            .arg(format!("--force-uid={NVFLARE_ID}"))
            .arg(format!("--force-gid={NVFLARE_ID}")),
        Owner::NvflareAndKeyHolder(folder) => {
            return make_with_two_owners(tree, folder, command, out, id);
        }
    };
    finish(command, tree, out, id)
}

/// mkfs.erofs takes the owners from the files, and only root may give files away: fakeroot pretends
/// it.
fn make_with_two_owners(
    tree: &Path,
    folder: &str,
    make: Command,
    out: &Path,
    id: &Bytes16,
) -> Result<u64, StageError> {
    let scratch = tool::Scratch::new()?;
    let state = scratch.join("owners");
    fs::write(&state, "").map_err(WorkError::io("write", &state))?;
    for (owner, path) in [(NVFLARE_ID, tree.to_owned()), (KEY_HOLDER_ID, tree.join(folder))] {
        let mut command = fakeroot(&state);
        command.args(["chown", "-R", &format!("{owner}:{owner}")]).arg(path);
        tool::run("fakeroot", "giving files their owners", command)?;
    }
    let mut command = fakeroot(&state);
    command.arg(make.get_program()).args(make.get_args());
    finish(command, tree, out, id)
}

/// fakeroot, which remembers in `state` what it pretended before.
fn fakeroot(state: &Path) -> Command {
    let mut command = tool::command("fakeroot");
    command.arg("-i").arg(state).arg("-s").arg(state).arg("--");
    command
}

/// Makes a compressed erofs of `tree` at `out`, with the files' own owners. `small` spends seconds
/// to save space.
pub(super) fn make_compressed(
    tree: &Path,
    out: &Path,
    small: bool,
    id: &Bytes16,
) -> Result<u64, StageError> {
    let mut command = tool::command("mkfs.erofs");
    command.args(if small { ["-zlz4hc,9", "-C32768"] } else { ["-zlz4", "-C4096"] });
    finish(command, tree, out, id)
}

fn finish(mut command: Command, tree: &Path, out: &Path, id: &Bytes16) -> Result<u64, StageError> {
    command.args(["--quiet", "-T0", "-x-1", "-U", &tool::uuid(id)]).arg(out).arg(tree);
    tool::run("mkfs.erofs", "packing a file system", command)?;
    let length = fs::metadata(out).map_err(WorkError::io("measure", out))?.len();
    let padded = length.next_multiple_of(4096);
    if padded != length {
        let file =
            fs::OpenOptions::new().write(true).open(out).map_err(WorkError::io("open", out))?;
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
    fn the_key_holders_folder_is_its_own_and_the_rest_the_services() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, image) = (dir.path().join("tree"), dir.path().join("image"));
        for folder in ["keys", "keyholder/ek-roots"] {
            fs::create_dir_all(tree.join(folder)).unwrap();
            fs::write(tree.join(folder).join("file"), "x").unwrap();
        }
        let bytes = make(&tree, &image, Owner::NvflareAndKeyHolder("keyholder"), &id()).unwrap();
        assert!(bytes.is_multiple_of(4096));
        let owner = |path: &str| {
            let output = Command::new("dump.erofs")
                .arg(format!("--path={path}"))
                .arg(&image)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let line = text
                .lines()
                .find(|line| line.starts_with("Uid:"))
                .unwrap_or_else(|| panic!("{text}"));
            line.split_whitespace()
                .filter_map(|word| word.parse().ok())
                .take(2)
                .collect::<Vec<u32>>()
        };
        for path in ["/", "/keys", "/keys/file"] {
            assert_eq!(owner(path), [NVFLARE_ID, NVFLARE_ID], "{path}");
        }
        for path in ["/keyholder", "/keyholder/ek-roots", "/keyholder/ek-roots/file"] {
            assert_eq!(owner(path), [KEY_HOLDER_ID, KEY_HOLDER_ID], "{path}");
        }
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
