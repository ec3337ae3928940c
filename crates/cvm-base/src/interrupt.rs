//! Ctrl-C: temporary files go, children end, the exit status says 130.
//!
//! A path is guarded while it is temporary. The handler runs on a thread of its own, so that it
//! works in the middle of a long computation: it ends this program's children, removes what is
//! guarded, and exits. What was renamed into place before is whole; nothing else stays.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

static GUARDED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn guarded() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    GUARDED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it lives, an interruption removes its path.
#[derive(Debug)]
#[must_use = "the path is guarded only while this lives"]
pub struct PathGuard(PathBuf);

/// Guards a temporary file or folder. The caller removes it in the ordinary course, as before.
pub fn guard_path(path: &Path) -> PathGuard {
    let path = path.to_owned();
    guarded().insert(path.clone());
    PathGuard(path)
}

impl Drop for PathGuard {
    fn drop(&mut self) {
        guarded().remove(&self.0);
    }
}

/// Starts the handler for SIGINT and SIGTERM. Called once, by a program's `main`.
pub fn install() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("interrupt".into()).spawn(move || {
        if signals.forever().next().is_some() {
            let paths = guarded();
            for child in children() {
                let _ = kill(child, Signal::SIGTERM);
            }
            eprintln!("interrupted: removing {} temporary file(s); what was finished before stays", paths.len());
            for path in paths.iter() {
                let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            }
            std::process::exit(130);
        }
    })?;
    Ok(())
}

/// The processes whose parent is this one.
fn children() -> Vec<Pid> {
    let own = std::process::id().to_string();
    let parent_is_own = |status: String| {
        status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|parent| parent.trim() == own))
    };
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(parent_is_own))
        .map(Pid::from_raw)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_guarded_until_its_guard_goes() {
        let path = Path::new("/nonexistent/flare-cvm-guarded");
        let guard = guard_path(path);
        assert!(guarded().contains(path));
        drop(guard);
        assert!(!guarded().contains(path));
    }

    #[test]
    fn own_children_are_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = children().contains(&Pid::from_raw(child.id() as i32));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
    }
}
