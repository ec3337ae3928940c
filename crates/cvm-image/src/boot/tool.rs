//! Running the distribution's tools.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use cvm_base::interrupt::{PathGuard, guard_path};
use tempfile::TempDir;

use super::BootError;

/// Every program that `boot` runs, with its Debian package.
const TOOLS: [(&str, &str); 9] = [
    ("objcopy", "binutils"),
    ("sbsign", "sbsigntool"),
    ("openssl", "openssl"),
    ("qemu-img", "qemu-utils"),
    ("qemu-io", "qemu-utils"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mformat", "mtools"),
    ("mmd", "mtools"),
    ("mcopy", "mtools"),
];

/// 1980-01-01, the first day that FAT knows: the date of everything in an image.
const DATE: &str = "315532800";

/// Fails on the first missing tool, before a build has begun.
pub fn require_tools() -> Result<(), BootError> {
    let found = |tool: &str| search_path().any(|folder| Path::new(&folder).join(tool).is_file());
    match TOOLS.iter().find(|(tool, _)| !found(tool)) {
        Some(&(tool, package)) => Err(BootError::MissingTool { tool, package }),
        None => Ok(()),
    }
}

/// `PATH`, then the system folders that an ordinary user's `PATH` lacks (mkfs.ext4 lies in one).
fn search_path() -> impl Iterator<Item = String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders: Vec<String> = path.split(':').chain(["/usr/sbin", "/sbin"]).map(str::to_owned).collect();
    folders.into_iter()
}

/// One of [`TOOLS`] with a fixed locale, time and search path, so that its output does not depend on the user.
pub(super) fn command(tool: &'static str) -> Command {
    let mut command = Command::new(tool);
    command
        .env("PATH", search_path().collect::<Vec<_>>().join(":"))
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("SOURCE_DATE_EPOCH", DATE)
        .env("E2FSPROGS_FAKE_TIME", DATE)
        .stdin(Stdio::null());
    command
}

/// A folder for a tool's input and output. It goes with this value, or when the user interrupts.
pub(super) struct Scratch {
    folder: TempDir,
    _guard: PathGuard,
}

impl Scratch {
    /// In the system's folder for temporary files.
    pub(super) fn new() -> Result<Self, BootError> {
        Self::in_folder(&std::env::temp_dir())
    }

    /// In `parent`, so that a result can be renamed into place.
    pub(super) fn in_folder(parent: &Path) -> Result<Self, BootError> {
        let folder = tempfile::Builder::new()
            .prefix(".flare-cvm-")
            .tempdir_in(parent)
            .map_err(BootError::io("make a temporary folder in", parent.to_owned()))?;
        Ok(Self { _guard: guard_path(folder.path()), folder })
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Runs it to its end; an unsuccessful one's last words go into the error.
pub(super) fn run(tool: &'static str, step: &'static str, mut command: Command) -> Result<Vec<u8>, BootError> {
    let fail = |status, output| BootError::Tool { tool, step, status, output };
    let output = command.output().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            let package = TOOLS.iter().find(|(name, _)| *name == tool).map_or("", |(_, package)| package);
            BootError::MissingTool { tool, package }
        }
        _ => fail("not started".into(), e.to_string()),
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let mut last: Vec<&str> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(4).collect();
    last.reverse();
    Err(fail(output.status.to_string(), last.join("; ")))
}
