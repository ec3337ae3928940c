//! Runs `mkfs.ext4` from the verified system volume: the initramfs has none of its own.
//!
//! The running system, where the system volume is `/`, does the same.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Instant,
};

use cvm_seal::guest::mkfs;

use crate::platform::wait;

/// Debian's and Ubuntu's folder of libraries, the dynamic linker among them.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";
const LINKER: &str = "ld-linux-x86-64.so.2";
const MKFS: &str = "/usr/sbin/mkfs.ext4";
const SETTINGS: &str = "/etc/mke2fs.conf";
/// The guest's user and group `nvflare`.
const OWNER: (u32, u32) = (990, 990);
/// What is kept of the tool's complaints.
const COMPLAINT_BYTES: u64 = 300;

/// Makes an ext4 in the sparse file `image`, with the tools of the system volume at `root`.
///
/// The tool and its libraries come from the mounted system volume, through its own dynamic linker:
/// the tool must see the scratch file, so no `chroot`, and nothing of it may come from elsewhere.
pub fn ext4(root: &Path, image: &Path) -> io::Result<()> {
    let length = fs::metadata(image)?.len();
    let libraries = within(root, LIBRARIES);
    let child = Command::new(libraries.join(LINKER))
        .arg("--library-path")
        .arg(&libraries)
        .arg(program(within(root, MKFS)))
        .args(mkfs::arguments(image, length, OWNER))
        .env_clear()
        .envs(mkfs::ENVIRONMENT.iter().copied())
        .env("MKE2FS_CONFIG", within(root, SETTINGS))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    end_of(child)
}

fn within(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// The program itself: `mkfs.ext4` is a link. On some systems it is absolute, and would lead out of
/// the volume.
fn program(path: PathBuf) -> PathBuf {
    match fs::read_link(&path) {
        Ok(target) => path.with_file_name(target.file_name().unwrap_or_default()),
        Err(_) => path,
    }
}

/// Waits for a bounded time, and returns the tool's own words when it fails.
fn end_of(mut child: Child) -> io::Result<()> {
    let deadline = Instant::now() + wait::MKFS;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("not done after {} s", wait::MKFS.as_secs()),
            ));
        }
        thread::sleep(wait::POLL);
    };
    if status.success() {
        return Ok(());
    }
    let mut words = Vec::new();
    child
        .stderr
        .iter_mut()
        .try_for_each(|pipe| pipe.take(COMPLAINT_BYTES).read_to_end(&mut words).map(drop))?;
    Err(io::Error::other(format!("{status}: {}", String::from_utf8_lossy(&words).trim_ascii())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> io::Result<()> {
        end_of(Command::new("sh").args(["-c", script]).stderr(Stdio::piped()).spawn().unwrap())
    }

    #[test]
    fn a_failed_tool_is_quoted() {
        sh("true").unwrap();
        let error = sh("echo no space >&2; exit 3").unwrap_err().to_string();
        assert!(error.contains("no space") && error.contains('3'), "{error}");
    }
}
