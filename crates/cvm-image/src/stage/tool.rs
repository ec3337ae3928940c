//! Running the distribution's tools.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::StageError;

/// Every program that a stage's build runs, with its Debian package.
const TOOLS: [(&str, &str); 10] = [
    ("mmdebstrap", "mmdebstrap"),
    ("mkfs.erofs", "erofs-utils"),
    ("fsck.erofs", "erofs-utils"),
    ("qemu-img", "qemu-utils"),
    ("depmod", "kmod"),
    ("ldconfig", "libc-bin"),
    ("chroot", "coreutils"),
    ("cp", "coreutils"),
    ("openssl", "openssl"),
    ("pip", "python3-pip"),
];

/// Fails on the first of `tools` that is missing, before a build has begun.
pub(super) fn require(tools: &[&'static str]) -> Result<(), StageError> {
    match tools.iter().find(|tool| !search_path().any(|folder| Path::new(&folder).join(tool).is_file())) {
        Some(tool) => Err(missing(tool)),
        None => Ok(()),
    }
}

fn missing(tool: &'static str) -> StageError {
    let package = TOOLS.iter().find(|(name, _)| *name == tool).map_or(tool, |(_, package)| package);
    StageError::MissingTool { tool, package }
}

/// `PATH`, then the system folders that an ordinary user's `PATH` lacks.
fn search_path() -> impl Iterator<Item = String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders: Vec<String> = path.split(':').chain(["/usr/sbin", "/sbin"]).map(str::to_owned).collect();
    folders.into_iter()
}

/// One of [`TOOLS`], with a locale, time and search path that do not depend on the user.
pub(super) fn command(tool: &'static str) -> Command {
    let mut command = Command::new(tool);
    command
        .env("PATH", search_path().collect::<Vec<_>>().join(":"))
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("SOURCE_DATE_EPOCH", "0")
        .stdin(Stdio::null());
    command
}

/// Runs it to its end; an unsuccessful one's last words go into the error.
pub(super) fn run(tool: &'static str, step: &'static str, mut command: Command) -> Result<Vec<u8>, StageError> {
    let fail = |status, output| StageError::Tool { tool, step, status, output };
    let output = command.output().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => missing(tool),
        _ => fail("not started".into(), e.to_string()),
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    if text.contains("No space left on device") || text.contains("os error 28") {
        return Err(StageError::DiskFull { step: step.into() });
    }
    let mut last: Vec<&str> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(4).collect();
    last.reverse();
    Err(fail(output.status.to_string(), last.join("; ")))
}

/// What a tool says of its own version: part of a build's inputs.
pub(super) fn version(tool: &'static str) -> Result<String, StageError> {
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
        let error = run("fsck.erofs", "testing", Command::new("/nonexistent/fsck.erofs")).unwrap_err();
        assert_eq!(error.code(), "STG-001");
        assert!(error.help().contains("erofs-utils"));
        assert!(require(&["cp", "chroot"]).is_ok());
    }

    #[test]
    fn a_full_disk_is_recognised_in_a_tools_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'cp: error writing: No space left on device' >&2; exit 1"]);
        assert_eq!(run("cp", "copying", command).unwrap_err().code(), "STG-003");
    }
}
