//! What an interruption of this program must remove, and where interrupted work stops.
//!
//! A path is guarded while it is temporary. The handler of Ctrl-C (in `flare-cvm`) removes what is
//! guarded and ends the program. Meanwhile the interrupted work stops at its next [`checkpoint`],
//! so that it starts nothing new. What was renamed into its place before is whole; nothing else
//! stays.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
static GUARDED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn lock() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    GUARDED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it lives, an interruption removes its path.
#[derive(Debug)]
#[must_use = "the path is guarded only while this lives"]
pub struct PathGuard(PathBuf);

/// Guards a temporary file or folder. Where nothing interrupts, the caller still removes it.
pub fn guard_path(path: &Path) -> PathGuard {
    let path = path.to_owned();
    lock().insert(path.clone());
    PathGuard(path)
}

impl Drop for PathGuard {
    fn drop(&mut self) {
        lock().remove(&self.0);
    }
}

/// The paths that are guarded now, for the handler. A copy: guards are dropped while it works.
pub fn guarded() -> BTreeSet<PathBuf> {
    lock().clone()
}

/// What the handler sets once it will end the program.
pub fn flag() -> Arc<AtomicBool> {
    Arc::clone(&INTERRUPTED)
}

/// Where interrupted work stops for good: before and after everything that it starts. The handler
/// ends the program.
pub fn checkpoint() {
    while INTERRUPTED.load(Ordering::Relaxed) {
        thread::park();
    }
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
}
