//! What the org admin sees: one line per step on the serial console, with seconds since the kernel
//! started, until the handoff; and the end of a boot that failed.
//!
//! Nothing secret is ever passed here. Texts that others chose (a key holder's reason, a DHCP
//! server's name) are cut and cleaned, so that they cannot forge a line.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::{
    fcntl::OFlag,
    time::{ClockId, clock_gettime},
};

use crate::codes::{Code, CodeRow, Failure};

/// Longest text of one line, in characters.
const LINE_CHARS: usize = 400;
/// Where lines go, and what precedes each. `<6>` (information) keeps the kernel from echoing its
/// log to the console, which has the line already; the log lets journald keep it.
const OUTPUTS: [(&str, &str); 2] = [("/dev/console", ""), ("/dev/kmsg", "<6>")];

static OUTPUT: Mutex<Vec<(&str, File)>> = Mutex::new(Vec::new());
/// The program's name, where it is not `cvm-init`.
static NAME: OnceLock<&str> = OnceLock::new();
static FAILED: AtomicBool = AtomicBool::new(false);

/// Opens the console and the kernel's log. Before this, and in host tests, lines go to standard
/// error.
pub fn open() {
    let open =
        |path| OpenOptions::new().write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(path).ok();
    let files =
        OUTPUTS.into_iter().filter_map(|(path, prefix)| Some((prefix, open(path)?))).collect();
    *OUTPUT.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = files;
}

/// Sets what lines begin with, in another program that goes on with the story.
pub fn called(name: &'static str) {
    let _ = NAME.set(name);
}

/// One line of the boot story: `cvm-init[   3.214] STEP: text`.
pub fn step(step: &str, text: impl fmt::Display) {
    put(&format!("{step}: {text}"));
}

/// The lines of a failed boot: code, title and detail, then cause and cure.
pub fn failure(failure: &Failure) {
    let CodeRow { cause, cure, .. } = failure.code.row();
    put(&failure.to_string());
    put(&format!("cause: {cause}"));
    put(&format!("cure: {cure}"));
}

fn put(text: &str) {
    let name = NAME.get().copied().unwrap_or("cvm-init");
    let line = format!("{name}[{:8.3}] {}\n", seconds(), clean(text));
    let mut files = OUTPUT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if files.is_empty() {
        eprint!("{line}");
    }
    for (prefix, file) in files.iter_mut() {
        // A console that refuses a line must not stop a boot, nor the wipe of a failed one. One
        // write per line: the kernel's log takes each write as a record.
        let _ = file.write_all(format!("{prefix}{line}").as_bytes());
        let _ = nix::sys::termios::tcdrain(&*file);
    }
}

/// Seconds since the kernel started, stops of the VM included.
fn seconds() -> f64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0.0, |t| t.tv_sec() as f64 + t.tv_nsec() as f64 / 1e9)
}

/// Printable text on one line, of bounded length.
fn clean(text: &str) -> String {
    let mut clean: String =
        text.chars().take(LINE_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(LINE_CHARS).is_some() {
        clean.push('…');
    }
    clean
}

/// What ends a boot that failed; the one in tests only records the calls.
pub trait PowerSwitch {
    /// Closes what is open, as far as it can, and writes what is written.
    fn close(&self);
    /// Switches the power off; returns only where the kernel refuses.
    fn power_off(&self);
}

/// Ends a failed boot. The caller has dropped (and so wiped) every secret by now.
pub fn end(power: &dyn PowerSwitch, reason: &Failure) {
    // The first failure speaks; a thread that fails while the machine goes down stays silent.
    if !FAILED.swap(true, Ordering::SeqCst) {
        failure(reason);
        power.close();
    }
    power.power_off();
}

/// A panic is a failed boot with its own code, reported before unwinding starts: no destructor of
/// a half-made state runs, and the memory's content goes with the power.
pub fn end_on_panic(power: impl PowerSwitch + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |info| end(&power, &Failure::new(Code::Panic, info))));
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<Vec<&'static str>>>);

    impl PowerSwitch for Fake {
        fn close(&self) {
            self.0.lock().unwrap().push("close");
        }

        fn power_off(&self) {
            self.0.lock().unwrap().push("off");
        }
    }

    #[test]
    fn a_failure_or_panic_closes_once_and_powers_off() {
        let fake = Fake::default();
        end_on_panic(fake.clone());
        let panicked = std::panic::catch_unwind(|| panic!("on purpose")).is_err();
        end(&fake, &Failure::new(Code::Dhcp, "later"));
        let _ = std::panic::take_hook();
        assert!(panicked);
        assert_eq!(*fake.0.lock().unwrap(), ["close", "off", "off"]);
    }

    #[test]
    fn a_forged_line_stays_inside_its_own() {
        assert_eq!(
            clean("reason\ncvm-init[   1.0] handoff: done\u{1b}[2J"),
            "reason cvm-init[   1.0] handoff: done [2J"
        );
        assert_eq!(clean(&"x".repeat(1000)).chars().count(), LINE_CHARS + 1);
    }
}
