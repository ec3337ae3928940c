//! Ctrl-C: temporary files go, everything that was started ends, the exit status is 130.
//!
//! The handler runs on a thread of its own, so that it works in the middle of a long computation:
//! it ends this program's descendants, removes what [`cvm_base::interrupt`] guards, and exits.

use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use cvm_base::interrupt;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
    iterator::Signals,
};

/// How long descendants may take to end in order before they are killed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a removal is tried, a tenth of a second apart: a killed writer may still be leaving.
const REMOVALS: u32 = 20;
/// How often everything is looked at again.
const PASSES: u32 = 10;

/// Starts the handler for SIGINT and SIGTERM. Called once, by a program's `main`.
pub fn install() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        // Set as the signal arrives, before this program can see a child that the same Ctrl-C
        // ended.
        flag::register(signal, interrupt::flag())?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("interrupt".into()).spawn(move || {
        if signals.forever().next().is_some() {
            eprintln!("interrupted: removing temporary files; what was finished before stays");
            clean_up();
            std::process::exit(130);
        }
    })?;
    Ok(())
}

/// Ends what runs and removes what is guarded, and looks again until nothing is left: the
/// interrupted work may have started or made more before its next checkpoint.
fn clean_up() {
    for _ in 0..PASSES {
        end(&descendants());
        // What was started meanwhile.
        for pid in descendants() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let paths = interrupt::guarded();
        let left: Vec<_> = paths.iter().filter(|path| path.symlink_metadata().is_ok()).collect();
        if left.is_empty() && descendants().is_empty() {
            return;
        }
        left.into_iter().for_each(|path| remove(path));
    }
}

/// Ends the processes of `family`, and kills those that do not end in time. They were listed before
/// any signal: a process whose parent is gone is no longer a descendant.
fn end(family: &[Pid]) {
    for pid in family {
        let _ = kill(*pid, Signal::SIGTERM);
    }
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && family.iter().any(|pid| is_running(*pid)) {
        thread::sleep(Duration::from_millis(20));
    }
    for pid in family.iter().filter(|pid| is_running(**pid)) {
        let _ = kill(*pid, Signal::SIGKILL);
    }
}

fn remove(path: &Path) {
    for _ in 0..REMOVALS {
        let Ok(metadata) = path.symlink_metadata() else { return };
        let removed =
            if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        if removed.is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// A line of `/proc/PID/status`, such as `PPid`.
fn status(pid: i32, key: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim().to_owned()))
}

fn is_running(pid: Pid) -> bool {
    status(pid.as_raw(), "State").is_some_and(|state| !state.starts_with('Z'))
}

/// The processes below this one, children before grandchildren.
fn descendants() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let processes: Vec<(i32, i32)> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, status(pid, "PPid")?.parse().ok()?)))
        .collect();
    let mut family = vec![Pid::this()];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(
            processes
                .iter()
                .filter(|(_, of)| *of == parent.as_raw())
                .map(|(pid, _)| Pid::from_raw(*pid)),
        );
        next += 1;
    }
    family.split_off(1)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        os::unix::process::ExitStatusExt as _,
        process::{Child, Command, Stdio},
    };

    use super::*;

    /// A shell that starts `sleep` in the background, ignores SIGTERM where asked, and says when it
    /// did.
    fn started(ignore: &str) -> Child {
        let script = format!("{ignore} sleep 60 & echo started; wait; wait");
        let mut shell =
            Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "started\n");
        shell
    }

    /// The shell and its `sleep`, among whatever other tests of this process run.
    fn members(shell: &Child) -> Vec<Pid> {
        let shell = shell.id() as i32;
        let is_member = |pid: &Pid| {
            pid.as_raw() == shell || status(pid.as_raw(), "PPid") == Some(shell.to_string())
        };
        descendants().into_iter().filter(is_member).collect()
    }

    #[test]
    fn children_and_grandchildren_end_and_stubborn_ones_are_killed() {
        for (ignore, patient) in [("", true), ("trap '' TERM;", false)] {
            let mut shell = started(ignore);
            let members = members(&shell);
            assert_eq!(members.len(), 2, "the shell and its sleep");
            end(&members);
            let signal = if patient { Signal::SIGTERM } else { Signal::SIGKILL };
            assert_eq!(shell.wait().unwrap().signal(), Some(signal as i32), "{ignore}");
            let deadline = Instant::now() + Duration::from_secs(20);
            while members.iter().any(|pid| is_running(*pid)) {
                assert!(Instant::now() < deadline, "{ignore}: a process of {members:?} lives on");
            }
        }
    }

    #[test]
    fn folders_files_and_links_are_removed_and_what_a_link_names_stays() {
        let dir = tempfile::tempdir().unwrap();
        let [folder, file, link, kept] =
            ["folder", "file", "link", "kept"].map(|name| dir.path().join(name));
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink(&kept, &link).unwrap();
        for path in [&folder, &file, &link, &dir.path().join("absent")] {
            remove(path);
        }
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [kept]);
    }
}
