//! Progress of long work: a line a step on standard output, each flushed, with the time it took.

use std::{
    io::{Write, stdout},
    time::Instant,
};

/// Prints steps, or stays silent until one JSON object at the end.
pub struct Progress {
    json: bool,
    started: Instant,
}

impl Progress {
    pub fn new(json: bool) -> Self {
        Self { json, started: Instant::now() }
    }

    /// A step begins.
    pub fn step(&mut self, text: &str) {
        if !self.json {
            line(&format!("[{:6.1} s] {text}", self.started.elapsed().as_secs_f64()));
        }
    }

    /// All is done: a line for people, or an object for a script.
    pub fn done(&mut self, text: &str, object: &serde_json::Value) {
        if self.json {
            line(&object.to_string());
        } else {
            self.step(text);
        }
    }
}

/// A reader that went away (a closed pipe) is no reason to stop the work.
pub(super) fn line(text: &str) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
