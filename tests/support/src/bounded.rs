//! Processes that do not outlive their test, and do not keep it waiting.

use std::{
    io,
    process::{Child, ChildStderr, Command, ExitStatus},
    sync::{
        Arc, Mutex,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{sleep, spawn},
    time::Duration,
};

/// More than any of them takes on the slowest machine seen, by far.
const LIMIT: Duration = Duration::from_secs(300);

/// A process that ends with this value, and otherwise after five minutes: what waits for its answer
/// then fails, by name, where it would hold up every other test.
#[derive(Debug)]
pub struct Bounded {
    child: Arc<Mutex<Child>>,
    /// Its end tells the watch that nobody needs it.
    _watched: Sender<()>,
}

impl Bounded {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Self::within(LIMIT, command)
    }

    fn within(limit: Duration, command: &mut Command) -> io::Result<Self> {
        let child = Arc::new(Mutex::new(command.spawn()?));
        let (watched, watch) = channel::<()>();
        let its_child = Arc::clone(&child);
        let name = format!("{:?}", command.get_program());
        spawn(move || {
            if watch.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{name} still ran after {limit:?}: it is ended");
                let _ = its_child.lock().unwrap().kill();
            }
        });
        Ok(Self { child, _watched: watched })
    }

    /// What it says there, where that is piped.
    ///
    /// # Panics
    /// When it is not, or was taken.
    pub fn stderr(&self) -> ChildStderr {
        self.child.lock().unwrap().stderr.take().expect("its stderr is piped")
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// The system's.
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        self.child.lock().unwrap().try_wait()
    }

    /// Waits until it ends, or is ended.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_end_is_ended() {
        let sleeper =
            Bounded::within(Duration::from_millis(50), Command::new("sleep").arg("1000")).unwrap();
        assert!(!sleeper.wait().unwrap().success());
    }
}
