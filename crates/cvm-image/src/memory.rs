//! A folder in memory, for what a build must not write to a disk.
//!
//! Tools read files, so a kit's private keys and a delegate's secrets must lie in files for a
//! while. On a disk, deleting a file leaves its blocks, and a killed build leaves the file. So
//! these files lie in a tmpfs or ramfs, whose pages must not be swapped to a disk in the clear. A
//! power cut leaves nothing. What a killed build leaves in memory, the next build removes.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use cvm_base::{
    Explain,
    interrupt::{PathGuard, guard_path},
};
use nix::sys::{
    resource::{Resource, setrlimit},
    statfs::{FsType, TMPFS_MAGIC, statfs},
};
use tempfile::TempDir;

use crate::WorkError;

/// Memory that never swaps; `linux/magic.h`.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
/// How the names of builds' folders begin: the next build looks for them by it.
const PREFIX: &str = ".flare-cvm-secrets-";

/// A folder's files would not stay in memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The folder is missing, or on another file system.
    #[error("{} does not lie in memory (tmpfs): secrets may lie nowhere else", .0.display())]
    OnDisk(PathBuf),
    /// The memory can be swapped to a disk in the clear.
    #[error("what lies in {} can be swapped to {device}, which is not encrypted", folder.display())]
    Swapped {
        /// The folder.
        folder: PathBuf,
        /// The swap area.
        device: String,
    },
    /// The operating system failed.
    #[error(transparent)]
    Work(#[from] WorkError),
}

impl Explain for MemoryError {
    fn code(&self) -> &'static str {
        match self {
            Self::OnDisk(_) => "MEM-001",
            Self::Swapped { .. } => "MEM-002",
            Self::Work(error) => error.code(),
        }
    }

    fn help(&self) -> String {
        match self {
            Self::OnDisk(_) => "use a folder below /dev/shm, or mount one: `mount -t tmpfs -o \
                size=8G,mode=700,noswap tmpfs FOLDER`; a delegate's folder is made there with \
                `flare-cvm ceremony init`"
                .into(),
            Self::Swapped { .. } => "switch it off (`swapoff -a`), encrypt it (dm-crypt), use a \
                tmpfs mounted with `noswap`, or accept it: --allow-swap"
                .into(),
            Self::Work(error) => error.help(),
        }
    }
}

/// A folder in memory, checked.
#[derive(Debug, Clone)]
pub struct Memory {
    folder: PathBuf,
    allow_swap: bool,
}

impl Memory {
    /// The tmpfs that every Linux has.
    pub const DEFAULT: &str = "/dev/shm";

    /// Checks a folder for the secrets of builds.
    ///
    /// # Errors
    /// [`MemoryError::OnDisk`]; [`MemoryError::Swapped`] unless `allow_swap`.
    pub fn at(folder: &Path, allow_swap: bool) -> Result<Self, MemoryError> {
        let memory = Self { folder: folder.to_owned(), allow_swap };
        memory.check(folder)?;
        Ok(memory)
    }

    /// Checks that another folder lies in memory as well, under the same rule.
    pub fn check(&self, folder: &Path) -> Result<(), MemoryError> {
        let fail =
            |e: nix::Error| WorkError::io("look at the file system of", folder)(io::Error::from(e));
        let kind = match statfs(folder) {
            Err(nix::Error::ENOENT) => return Err(MemoryError::OnDisk(folder.to_owned())),
            result => result.map_err(fail)?.filesystem_type(),
        };
        if kind == RAMFS_MAGIC {
            return Ok(());
        }
        if kind != TMPFS_MAGIC {
            return Err(MemoryError::OnDisk(folder.to_owned()));
        }
        if self.allow_swap || never_swaps(folder)? {
            return Ok(());
        }
        match in_the_clear(&read_text("/proc/swaps")?, &is_encrypted) {
            Some(device) => Err(MemoryError::Swapped { folder: folder.to_owned(), device }),
            None => Ok(()),
        }
    }

    /// A build's own folder. It is removed with this value, or when the user interrupts. Folders of
    /// builds that were killed are removed now.
    pub(crate) fn folder(&self) -> Result<SecretFolder, WorkError> {
        // A crash of this program or of a tool must not write its memory to a disk either.
        let limit =
            |e: nix::Error| WorkError::io("forbid core dumps in", &self.folder)(io::Error::from(e));
        setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(limit)?;
        self.sweep();
        loop {
            let folder = tempfile::Builder::new()
                .prefix(PREFIX)
                // Everybody can read the folder above it.
                .permissions(fs::Permissions::from_mode(0o700))
                .tempdir_in(&self.folder)
                .map_err(WorkError::io("make a folder in", &self.folder))?;
            let lock = File::open(folder.path()).and_then(|lock| lock.lock().map(|()| lock));
            match lock {
                // Another build may have swept it away before it was locked.
                Ok(lock) if folder.path().exists() => {
                    return Ok(SecretFolder {
                        _guard: guard_path(folder.path()),
                        folder,
                        _lock: lock,
                    });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(WorkError::io("lock", folder.path())(error)),
            }
        }
    }

    /// Removes what killed builds left: nobody holds its lock any more.
    fn sweep(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for path in entries
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()))
        {
            let path = path.path();
            // Another user's folder does not open, and stays.
            if let Ok(lock) = File::open(&path)
                && lock.try_lock().is_ok()
            {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
}

/// A folder in memory for one build.
pub(crate) struct SecretFolder {
    folder: TempDir,
    _guard: PathGuard,
    /// Held until the build ends, however it ends.
    _lock: File,
}

impl SecretFolder {
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn read_text(path: &str) -> Result<String, WorkError> {
    match fs::read_to_string(path) {
        // A kernel without swap has no such file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => result.map_err(WorkError::io("read", path)),
    }
}

/// Whether the tmpfs is mounted with `noswap`.
fn never_swaps(folder: &Path) -> Result<bool, WorkError> {
    let device = fs::metadata(folder).map_err(WorkError::io("look at", folder))?.dev();
    let device = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    Ok(mounted_without_swap(&read_text("/proc/self/mountinfo")?, &device))
}

/// proc_pid_mountinfo(5): the third field is the device, the last the file system's own options.
fn mounted_without_swap(mountinfo: &str, device: &str) -> bool {
    let mut lines = mountinfo.lines().filter(|line| line.split(' ').nth(2) == Some(device));
    lines.any(|line| {
        line.rsplit(' ').next().unwrap_or_default().split(',').any(|option| option == "noswap")
    })
}

/// The first swap area that is neither in memory nor on an encrypted device.
fn in_the_clear(swaps: &str, is_encrypted: &dyn Fn(&str) -> bool) -> Option<String> {
    let areas = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    areas
        .filter(|area| !area.starts_with("/dev/zram") && !is_encrypted(area))
        .map(str::to_owned)
        .next()
}

/// Whether it is a device of dm-crypt.
fn is_encrypted(area: &str) -> bool {
    let Some(name) = area.strip_prefix("/dev/").filter(|name| !name.contains('/')) else {
        return false;
    };
    fs::read_to_string(format!("/sys/block/{name}/dm/uuid"))
        .is_ok_and(|uuid| uuid.starts_with("CRYPT-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> (tempfile::TempDir, Memory) {
        let dir = tempfile::tempdir_in(Memory::DEFAULT).unwrap();
        let memory = Memory::at(dir.path(), true).unwrap();
        (dir, memory)
    }

    #[test]
    fn attack_secrets_on_a_disk() {
        let on_disk = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(Memory::at(on_disk, true).unwrap_err().code(), "MEM-001");
        assert_eq!(Memory::at(Path::new("/nonexistent"), true).unwrap_err().code(), "MEM-001");
        let (_dir, memory) = memory();
        assert_eq!(memory.check(on_disk).unwrap_err().code(), "MEM-001");
    }

    #[test]
    fn attack_secrets_that_are_swapped_to_a_disk() {
        let header = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        let line = |name: &str| {
            format!("{name}                               partition\t4194300\t\t0\t\t-2\n")
        };
        let clear = |names: &[&str]| {
            let text = format!("{header}{}", names.iter().copied().map(line).collect::<String>());
            in_the_clear(&text, &|area| area == "/dev/dm-0")
        };
        assert_eq!(clear(&[]), None);
        assert_eq!(clear(&["/dev/zram0", "/dev/dm-0"]), None);
        assert_eq!(clear(&["/dev/zram0", "/dev/sda5"]).as_deref(), Some("/dev/sda5"));
        assert_eq!(clear(&["/swapfile"]).as_deref(), Some("/swapfile"));
        assert_eq!(in_the_clear("", &|_| false), None, "a kernel without swap");
        let folder = PathBuf::from("/dev/shm");
        assert_eq!(MemoryError::Swapped { folder, device: "/dev/sda5".into() }.code(), "MEM-002");
    }

    #[test]
    fn a_tmpfs_without_swap_is_told_by_its_options() {
        let mounts = "24 31 0:22 / /dev/shm rw,nosuid - tmpfs tmpfs rw,size=4G\n\
                      25 31 0:23 / /secret rw - tmpfs tmpfs rw,size=4G,noswap\n";
        assert!(!mounted_without_swap(mounts, "0:22"));
        assert!(mounted_without_swap(mounts, "0:23"));
        assert!(!mounted_without_swap(mounts, "0:2"));
    }

    #[test]
    fn a_builds_folder_goes_with_it_and_the_next_removes_what_a_killed_one_left() {
        let (dir, memory) = memory();
        let left = dir.path().join(format!("{PREFIX}killed"));
        fs::create_dir(&left).unwrap();
        fs::write(left.join("server.key"), "secret").unwrap();
        let running = memory.folder().unwrap();
        assert!(!left.exists(), "the killed one's");
        fs::write(running.join("server.key"), "secret").unwrap();
        let mode = fs::metadata(running.folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "nobody else's");
        let second = memory.folder().unwrap();
        assert!(running.join("server.key").exists(), "a running one's stays");
        drop((running, second));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
