//! Protects a process that holds a party's secrets: its memory reaches no disk, and no other
//! process of its user.

use nix::sys::{
    mman::{MlockAllFlags, mlockall},
    prctl::set_dumpable,
    resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
};

use crate::error::KeyHolderError;

/// Linux: lock a page once it is used, not the whole address space (`MCL_ONFAULT`, which nix does
/// not name).
const ON_FAULT: MlockAllFlags = MlockAllFlags::from_bits_retain(4);
/// Its bit in a capability set.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// No core dumps, and no other process of this user may read this one's memory. Call it before
/// secrets are read.
pub fn no_dumps() -> Result<(), KeyHolderError> {
    let fail = |doing| move |e: nix::Error| KeyHolderError::Protect { doing, source: e.into() };
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(fail("forbidding core dumps"))?;
    set_dumpable(false).map_err(fail("shutting the process's memory to others"))
}

/// Keeps memory from being swapped out; the error says why it may be.
///
/// Under a small limit that binds this process nothing is locked: each later allocation could fail.
pub fn lock_memory() -> Result<(), String> {
    let next = "its secrets may be swapped to disk: run it without swap, or with \
        LimitMEMLOCK=infinity (ulimit -l)";
    let unbound = |limit| limit == RLIM_INFINITY;
    let (_, limit) = getrlimit(Resource::RLIMIT_MEMLOCK)
        .map_err(|e| format!("memory is not locked ({e}): {next}"))?;
    if !unbound(limit) && !may_lock() {
        return Err(format!("memory is not locked (at most {limit} bytes may be): {next}"));
    }
    // If this fails, the soft limit stays, and the lock may fail at it.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, limit, limit);
    let flags = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | ON_FAULT;
    mlockall(flags).map_err(|e| format!("memory is not locked ({e}): {next}"))
}

/// Whether limits on locked memory do not bind this process.
fn may_lock() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    held.and_then(|held| u64::from_str_radix(held.trim(), 16).ok())
        .is_some_and(|held| held & CAP_IPC_LOCK != 0)
}

#[cfg(test)]
mod tests {
    use nix::sys::prctl::get_dumpable;

    use super::*;

    #[test]
    fn the_process_leaves_no_dump_and_is_shut_to_others() {
        no_dumps().unwrap();
        assert!(!get_dumpable().unwrap());
        assert_eq!(getrlimit(Resource::RLIMIT_CORE), Ok((0, 0)));
    }
}
