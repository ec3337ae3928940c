//! Progress of long work: one line per step on standard output, each flushed, with the time so far.

use std::{
    io::{Write, stdout},
    time::Instant,
};

/// Prints steps, or stays silent until one JSON object at the end.
#[derive(Clone)]
pub struct Progress {
    json: bool,
    started: Instant,
    /// Whose steps these are, and a colon.
    prefix: String,
}

impl Progress {
    pub fn new(json: bool) -> Self {
        Self { json, started: Instant::now(), prefix: String::new() }
    }

    /// The same, for one of several that work at the same time.
    pub fn of(&self, name: &str) -> Self {
        Self { prefix: format!("{name}: "), ..self.clone() }
    }

    /// A step begins.
    pub fn step(&self, text: &str) {
        self.line(&format!(
            "[{:6.1} s] {}{text}",
            self.started.elapsed().as_secs_f64(),
            self.prefix
        ));
    }

    /// A line without a time, for people.
    pub fn line(&self, text: &str) {
        if !self.json {
            line(text);
        }
    }

    /// The one object, for a script.
    pub fn object(&self, object: &serde_json::Value) {
        if self.json {
            line(&object.to_string());
        }
    }

    /// All is done: a line for people, or an object for a script.
    pub fn done(&self, text: &str, object: &serde_json::Value) {
        if self.json { self.object(object) } else { self.step(text) }
    }
}

/// Prints a line. The work goes on if its reader went away (a closed pipe).
pub(super) fn line(text: &str) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
