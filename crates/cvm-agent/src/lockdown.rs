//! After a failed self-verification: stop what works with the data, take the keys of p5 and `state`
//! out of the kernel, power off.
//!
//! Each step is bounded in time and logged, and none can stop the power-off.

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use devicemapper::{DM, DevId, DmName, DmOptions};
use nix::{
    mount::{MntFlags, umount, umount2},
    sys::{
        reboot::{RebootMode, reboot},
        signal::{Signal, kill},
    },
    unistd::Pid,
};

/// Where p5 and `state` are mounted; a mount that shows a folder of another comes before that one.
const DATA: [&str; 4] =
    ["/opt/nvflare/jobs", "/opt/nvflare/workspace", "/opt/nvflare/logs", "/opt/nvflare/state"];
/// Their mappings, from the top: `cvm-init` names the first, libcryptsetup the one below
/// (dm-integrity).
const MAPPINGS: [&str; 4] = ["cvm-jobs", "cvm-jobs_dif", "cvm-state", "cvm-state_dif"];
const UNITS: [&str; 3] = ["nvflare.service", "cvm-keyholder.service", "cvm-agent.service"];
/// How long each step may take.
const STEP: Duration = Duration::from_secs(15);

/// Something to do before the power goes.
pub struct Step {
    /// For the log.
    pub name: &'static str,
    /// What to do; the error is for people.
    pub work: Box<dyn FnOnce() -> Result<(), String> + Send>,
}

impl Step {
    fn new(name: &'static str, work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Self {
        Self { name, work: Box::new(work) }
    }
}

/// Does every step, then powers off. Returns only if the kernel refuses to power off.
pub fn run() -> String {
    let steps = vec![
        Step::new("stop NVFLARE, the key holder and the agent", stop_units),
        Step::new("end what uses the data", end_users),
        Step::new("unmount the data", unmount_all),
        Step::new("take the data's keys out of the kernel", close_mappings),
    ];
    each(steps, STEP);
    match reboot(RebootMode::RB_POWER_OFF) {
        Err(error) => format!("the kernel refuses to power off: {error}"),
        Ok(never) => match never {},
    }
}

/// Does each step for at most `patience`. One that fails, hangs or panics is logged, and the next
/// begins.
pub fn each(steps: Vec<Step>, patience: Duration) {
    for Step { name, work } in steps {
        let (done, outcome) = mpsc::channel();
        let spawned = thread::Builder::new().spawn(move || {
            let _ = done.send(work());
        });
        let outcome = match spawned {
            Ok(_) => outcome.recv_timeout(patience),
            Err(error) => Ok(Err(error.to_string())),
        };
        match outcome {
            Ok(Ok(())) => eprintln!("cvm-agent: lockdown: {name}: done"),
            Ok(Err(problem)) => eprintln!("cvm-agent: lockdown: {name}: {problem}"),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                eprintln!("cvm-agent: lockdown: {name}: not done in {patience:?}")
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                eprintln!("cvm-agent: lockdown: {name}: it gave up")
            }
        }
    }
}

fn stop_units() -> Result<(), String> {
    let mut child = Command::new("/usr/bin/systemctl")
        .arg("stop")
        .args(UNITS)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|e| format!("systemctl: {e}"))?;
    // Less than the step's time, so that a unit that does not end is killed here.
    let deadline = Instant::now() + STEP / 2;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("systemctl stop: {status}")),
            Ok(None) => thread::sleep(Duration::from_millis(100)),
            Err(error) => return Err(format!("systemctl: {error}")),
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    let killed =
        Command::new("/usr/bin/systemctl").args(["kill", "--signal=KILL"]).args(UNITS).status();
    Err(format!("not stopped in time; systemctl kill: {killed:?}"))
}

/// Kills what still works with the data: its open files would keep them mounted.
fn end_users() -> Result<(), String> {
    let deadline = Instant::now() + STEP / 2;
    loop {
        let users = users_of(&DATA.map(Path::new), Path::new("/proc"))?;
        if users.is_empty() {
            return Ok(());
        }
        for pid in &users {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if Instant::now() >= deadline {
            return Err(format!("processes {users:?} do not end"));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Processes with a working folder, root, program, open or mapped file below a folder; not this
/// one, nor PID 1.
fn users_of(folders: &[&Path], proc: &Path) -> Result<Vec<i32>, String> {
    let inside = |target: &Path| folders.iter().any(|folder| target.starts_with(folder));
    let below = |link: &Path| fs::read_link(link).is_ok_and(|target| inside(&target));
    let uses = |process: &Path| {
        let files = |name: &str| {
            fs::read_dir(process.join(name)).into_iter().flatten().flatten().map(|e| e.path())
        };
        ["cwd", "root", "exe"].iter().any(|name| below(&process.join(name)))
            || files("fd").chain(files("map_files")).any(|link| below(&link))
    };
    let entries = fs::read_dir(proc).map_err(|e| format!("{}: {e}", proc.display()))?;
    let pids = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    let own = std::process::id() as i32;
    Ok(pids
        .filter(|(pid, path)| *pid > 1 && *pid != own && uses(path))
        .map(|(pid, _)| pid)
        .collect())
}

fn unmount_all() -> Result<(), String> {
    let problems: Vec<_> =
        DATA.iter().filter_map(|folder| unmount(Path::new(folder)).err()).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

fn unmount(folder: &Path) -> Result<(), String> {
    let mounted = fs::read("/proc/self/mounts").unwrap_or_default();
    let named =
        |line: &[u8]| line.split(|b| *b == b' ').nth(1) == Some(folder.as_os_str().as_bytes());
    if !mounted.split(|b| *b == b'\n').any(named) {
        return Ok(());
    }
    umount(folder).or_else(|error| {
        // Another mount namespace may hold it. Then it goes with that one, and the mapping is
        // emptied all the same.
        umount2(folder, MntFlags::MNT_DETACH).map_err(|e| format!("{error}, then {e}"))
    })
}

/// Removes the mappings; one that is still in use loses its table, and the key with it.
fn close_mappings() -> Result<(), String> {
    let dm = DM::new().map_err(|e| format!("device-mapper: {e}"))?;
    let mut problems = Vec::new();
    for mapping in MAPPINGS {
        let name = DmName::new(mapping).map_err(|e| e.to_string())?;
        let id = DevId::Name(name);
        let Ok(info) = dm.device_info(&id) else { continue };
        if dm.device_remove(&id, DmOptions::default()).is_ok() {
            continue;
        }
        // As `dmsetup remove --force`: the target's destructor wipes its key.
        let length = fs::read_to_string(format!("/sys/dev/block/{}/size", info.device()));
        let sectors = length.ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(1);
        let emptied = dm
            .table_load(&id, &[(0, sectors, "error".into(), String::new())], DmOptions::default())
            .and_then(|_| dm.device_suspend(&id, DmOptions::default()));
        match emptied.and_then(|_| dm.device_remove(&id, DmOptions::default())) {
            Ok(_) => {}
            Err(error) => problems.push(format!("{mapping}: {error}")),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn attack_steps_that_fail_hang_or_panic_delay_and_stop_nothing() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let mark = |name: &'static str, then: fn() -> Result<(), String>| {
            let done = done.clone();
            Step::new(name, move || {
                done.lock().unwrap().push(name);
                then()
            })
        };
        let hang = || {
            thread::sleep(Duration::from_secs(3600));
            Ok(())
        };
        let steps = vec![
            mark("fails", || Err("no".into())),
            mark("hangs", hang),
            mark("panics", || panic!("on purpose")),
            mark("works", || Ok(())),
        ];
        each(steps, Duration::from_millis(300));
        assert_eq!(*done.lock().unwrap(), ["fails", "hangs", "panics", "works"]);
    }

    #[test]
    fn users_are_found_by_what_they_have_open() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "x").unwrap();
        let file = fs::File::open(folder.path().join("a")).unwrap();
        let mut child = Command::new("sleep").arg("60").stdin(file).spawn().unwrap();
        let users = users_of(&[folder.path()], Path::new("/proc")).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(users, [child.id() as i32]);
        assert!(unmount(folder.path()).is_ok(), "what is not mounted needs no unmounting");
    }
}
