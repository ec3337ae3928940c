//! Running the distribution's tools.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use cvm_base::{
    Bytes16,
    interrupt::{PathGuard, checkpoint, guard_path},
};
use tempfile::TempDir;

use crate::WorkError;

/// Every program that a build runs, with its Debian package.
const TOOLS: [(&str, &str); 19] = [
    ("chroot", "coreutils"),
    ("cp", "coreutils"),
    ("depmod", "kmod"),
    ("fakeroot", "fakeroot"),
    ("fsck.erofs", "erofs-utils"),
    ("ldconfig", "libc-bin"),
    ("mcopy", "mtools"),
    ("mformat", "mtools"),
    ("mkfs.erofs", "erofs-utils"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mmd", "mtools"),
    ("mmdebstrap", "mmdebstrap"),
    ("objcopy", "binutils"),
    ("openssl", "openssl"),
    ("pip", "python3-pip"),
    ("qemu-img", "qemu-utils"),
    ("qemu-io", "qemu-utils"),
    ("sbsign", "sbsigntool"),
    ("xz", "xz-utils"),
];

/// 1980-01-01, the first day that FAT knows: the date of everything in an image.
const DATE: &str = "315532800";

/// Fails on the first of `tools` that is missing, before any work has begun.
pub(crate) fn require(tools: &[&'static str]) -> Result<(), WorkError> {
    match tools
        .iter()
        .find(|tool| !search_path().any(|folder| Path::new(&folder).join(tool).is_file()))
    {
        Some(tool) => Err(missing(tool)),
        None => Ok(()),
    }
}

fn missing(tool: &'static str) -> WorkError {
    let package = TOOLS.iter().find(|(name, _)| *name == tool).map_or(tool, |(_, package)| package);
    WorkError::MissingTool { tool, package }
}

/// `PATH`, then the system folders that an ordinary user's `PATH` lacks (mkfs.ext4 lies in one).
fn search_path() -> impl Iterator<Item = String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders: Vec<String> =
        path.split(':').chain(["/usr/sbin", "/sbin"]).map(str::to_owned).collect();
    folders.into_iter()
}

/// One of [`TOOLS`] with a fixed locale, time and search path, so that its output does not depend
/// on the user.
pub(crate) fn command(tool: &'static str) -> Command {
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

/// A folder for temporary files. It is removed with this value, or when the user interrupts.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: TempDir,
    _guard: PathGuard,
}

impl Scratch {
    /// In the system's folder for temporary files.
    pub(crate) fn new() -> Result<Self, WorkError> {
        Self::in_folder(&std::env::temp_dir())
    }

    /// In the folder of `output`, which is made if it is missing, so that a result can be renamed
    /// into place.
    pub(crate) fn beside(output: &Path) -> Result<Self, WorkError> {
        let parent = folder_of(output);
        std::fs::create_dir_all(parent).map_err(WorkError::io("make", parent))?;
        Self::in_folder(parent)
    }

    /// In `parent`, so that a result can be renamed into place.
    pub(crate) fn in_folder(parent: &Path) -> Result<Self, WorkError> {
        let folder = tempfile::Builder::new()
            .prefix(".flare-cvm-")
            .tempdir_in(parent)
            .map_err(WorkError::io("make a temporary folder in", parent.to_owned()))?;
        Ok(Self { _guard: guard_path(folder.path()), folder })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Leaves whatever is at its path: it has become a result.
    pub(crate) fn keep(self) {
        let _ = self.folder.keep();
    }
}

/// The folder that `path` lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// An id as tools take it: `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
pub(crate) fn uuid(id: &Bytes16) -> String {
    let hex = id.to_string();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Runs `command` to its end and gives its standard output. If it fails, the end of what it printed
/// goes into the error.
pub(crate) fn run(
    tool: &'static str,
    step: &'static str,
    mut command: Command,
) -> Result<Vec<u8>, WorkError> {
    checkpoint();
    ended(tool, step, command.output())
}

/// The same with `input` on its standard input: for a key that must not lie in a file. `input` is a
/// few kilobytes, which a pipe holds.
pub(crate) fn run_with_input(
    tool: &'static str,
    step: &'static str,
    mut command: Command,
    input: &[u8],
) -> Result<Vec<u8>, WorkError> {
    checkpoint();
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let output = child.and_then(|mut child| {
        // A tool that ends without reading its input says why itself.
        let _ = child.stdin.take().map(|mut pipe| pipe.write_all(input));
        child.wait_with_output()
    });
    ended(tool, step, output)
}

fn ended(
    tool: &'static str,
    step: &'static str,
    output: io::Result<Output>,
) -> Result<Vec<u8>, WorkError> {
    let fail = |status, output| WorkError::Tool { tool, step, status, output };
    let output = output.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => missing(tool),
        _ => fail("not started".into(), e.to_string()),
    })?;
    checkpoint();
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    if text.contains("No space left on device") || text.contains("os error 28") {
        return Err(WorkError::DiskFull { step: step.into() });
    }
    let mut last: Vec<&str> =
        text.lines().rev().filter(|line| !line.trim().is_empty()).take(4).collect();
    last.reverse();
    Err(fail(output.status.to_string(), last.join("; ")))
}

/// The version that a tool prints: part of a build's inputs.
pub(crate) fn version(tool: &'static str) -> Result<String, WorkError> {
    let flag = if tool == "mkfs.erofs" { "--help" } else { "--version" };
    let output = command(tool).arg(flag).output().map_err(|_| missing(tool))?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use cvm_base::Explain as _;

    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let error =
            run("fsck.erofs", "testing", Command::new("/nonexistent/fsck.erofs")).unwrap_err();
        assert_eq!(error.code(), "WORK-001");
        assert!(error.help().contains("erofs-utils"));
        assert!(require(&["cp", "chroot"]).is_ok());
    }

    #[test]
    fn a_full_disk_is_recognised_in_a_tools_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'cp: error writing: No space left on device' >&2; exit 1"]);
        assert_eq!(run("cp", "copying", command).unwrap_err().code(), "WORK-004");
    }
}
