//! Child processes that end with the laboratory.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a program of ours may take until it is ready, and until it has ended: seconds where it
/// is alone, and many times that on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(200);
/// How long what a process left in its pipes may take to arrive.
const REST: Duration = Duration::from_secs(10);

/// One line that a process printed, and when it arrived here.
#[derive(Debug, Clone)]
pub struct Line {
    /// When it was read.
    pub at: Instant,
    /// The line without its end and without terminal escapes.
    pub text: String,
}

/// A process whose output is read line by line; ended when dropped.
pub struct Process {
    name: String,
    child: Child,
    lines: Receiver<Line>,
    seen: Vec<Line>,
    /// When it was started.
    pub started: Instant,
}

impl Process {
    /// Starts `command` with both outputs captured and nothing to read.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        Self::spawn(name, command.stdin(Stdio::null()))
    }

    /// Starts `command` with both outputs captured; [`Self::type_in`] is its keyboard.
    pub fn start_typing(name: &str, command: &mut Command) -> Result<Self> {
        Self::spawn(name, command.stdin(Stdio::piped()))
    }

    /// Writes to the standard input of what [`Self::start_typing`] started.
    pub fn type_in(&mut self, text: &str) -> Result<()> {
        let mut input = self.child.stdin.as_ref().context("a process with a keyboard")?;
        Ok(input.write_all(text.as_bytes()).and_then(|()| input.flush())?)
    }

    fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let started = Instant::now();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {name} ({:?})", command.get_program()))?;
        let (sender, lines) = channel();
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>),
            child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>),
        ];
        for stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let mut raw = Vec::new();
                while matches!(reader.read_until(b'\n', &mut raw), Ok(n) if n > 0) {
                    let line = Line { at: Instant::now(), text: printable(&raw) };
                    if sender.send(line).is_err() {
                        break;
                    }
                    raw.clear();
                }
            });
        }
        Ok(Self { name: name.to_owned(), child, lines, seen: Vec::new(), started })
    }

    /// Everything printed so far.
    pub fn output(&mut self) -> &[Line] {
        while let Ok(line) = self.lines.try_recv() {
            self.seen.push(line);
        }
        &self.seen
    }

    /// The text of everything printed so far.
    pub fn text(&mut self) -> String {
        self.output().iter().map(|l| format!("{}\n", l.text)).collect()
    }

    /// Waits for a line that contains one of `patterns`, among those already printed too.
    pub fn wait_for(&mut self, patterns: &[&str], limit: Duration) -> Result<Line> {
        let deadline = Instant::now() + limit;
        let mut next = 0;
        loop {
            for line in &self.seen[next..] {
                if patterns.iter().any(|p| line.text.contains(p)) {
                    return Ok(line.clone());
                }
            }
            next = self.seen.len();
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    let text = self.text();
                    bail!(
                        "{}: none of {patterns:?} within {limit:?}; its output:\n{text}",
                        self.name
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let text = self.text();
                    bail!("{} ended without {patterns:?}; its output:\n{text}", self.name)
                }
            }
        }
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.rest();
                return Ok(status);
            }
            if Instant::now() > deadline {
                let text = self.text();
                bail!("{} did not end within {limit:?}; its output:\n{text}", self.name);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Takes what is left in the pipes. A child of the process may keep them open.
    fn rest(&mut self) {
        let deadline = Instant::now() + REST;
        while let Ok(line) =
            self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.seen.push(line);
        }
    }

    /// The process's id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Asks the process to end (SIGTERM), and insists after [`PATIENCE`].
    pub fn stop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = kill(self.pid(), Signal::SIGTERM);
        if self.wait(PATIENCE).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A console line as text: invalid UTF-8 replaced, terminal escapes and control characters dropped.
fn printable(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                // CSI: ESC [ parameters final-letter; anything else: ESC and one character.
                if chars.next() == Some('[') {
                    while chars.next().is_some_and(|c| !c.is_ascii_alphabetic()) {}
                }
            }
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn console_lines_lose_their_escapes() {
        assert_eq!(
            printable(b"\x1b[2J\x1b[01;01HBdsDxe: \xffstarting\r\n"),
            "BdsDxe: \u{fffd}starting"
        );
    }

    #[test]
    fn a_line_is_found_and_its_absence_named() {
        let mut p = Process::start("echo", Command::new("echo").arg("hello there")).unwrap();
        assert_eq!(p.wait_for(&["hello"], PATIENCE).unwrap().text, "hello there");
        assert!(p.wait_for(&["absent"], PATIENCE).unwrap_err().to_string().contains("absent"));
    }
}
