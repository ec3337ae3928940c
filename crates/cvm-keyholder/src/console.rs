//! Lines for whoever watches. A console that takes no more (a paused terminal, a full pipe) stops
//! nothing: lines are then left out, and counted. Decisions are in the log all the same.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

/// Lines that wait to be written.
const LINES: usize = 256;

/// Writes in a thread of its own.
#[derive(Clone)]
pub(crate) struct Console {
    lines: SyncSender<String>,
    left_out: Arc<AtomicU64>,
}

/// Tells when everything is written.
pub(crate) struct Written(Receiver<()>);

impl Console {
    /// A console that writes to `out`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn on(mut out: impl Write + Send + 'static) -> std::io::Result<(Self, Written)> {
        let (lines, queue) = sync_channel::<String>(LINES);
        let left_out = Arc::new(AtomicU64::new(0));
        let (missing, (end, written)) = (left_out.clone(), channel());
        thread::Builder::new().name("console".into()).spawn(move || {
            for line in queue {
                let _ = writeln!(out, "{line}");
                let missing = missing.swap(0, Ordering::Relaxed);
                if missing > 0 {
                    let _ = writeln!(
                        out,
                        "{missing} lines are left out here: nobody took them in time"
                    );
                }
                let _ = out.flush();
            }
            drop(end);
        })?;
        Ok((Self { lines, left_out }, Written(written)))
    }

    /// Adds a line; never waits.
    pub(crate) fn say(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Written {
    /// Waits until all is written, for 2 s at most. Every [`Console`] must be gone by then.
    pub(crate) fn wait(self) {
        let _ = self.0.recv_timeout(Duration::from_secs(2));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;

    use super::*;

    /// Passes on what it gets once it may.
    struct Paused {
        until: Receiver<()>,
        to: Sender<Vec<u8>>,
    }

    impl Write for Paused {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.until.recv();
            let _ = self.to.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_console_that_nobody_reads_stops_nothing() {
        let ((go, until), (to, written)) = (channel(), channel());
        let (console, end) = Console::on(Paused { until, to }).unwrap();
        (0..10 * LINES).for_each(|n| console.say(n.to_string()));
        drop((console, go));
        end.wait();
        let text = written.iter().collect::<Vec<_>>().concat();
        let lines: Vec<&str> = std::str::from_utf8(&text).unwrap().lines().collect();
        assert!(lines.len() <= LINES + 2, "{}", lines.len());
        assert!(lines.iter().any(|line| line.contains("are left out")), "{lines:?}");
    }
}
