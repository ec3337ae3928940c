//! The laboratory: everything around a sealed CVM that a demo or a boot test needs, made of the
//! same programs and commands that users run.

pub mod docker;
pub mod federation;
pub mod host;
pub mod nfs;
pub mod offline;
pub mod process;
pub mod scene;
pub mod timeline;
pub mod tpm;
pub mod vm;

use std::{
    io::{BufRead, BufReader, Read, Write, stdout},
    process::{Command, ExitCode, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};

/// Runs a demo to its end; what went wrong is its last line.
pub fn shown(demo: fn(Instant) -> Result<()>) -> ExitCode {
    let started = Instant::now();
    match demo(started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo failed after {:.0} s: {error:#}", started.elapsed().as_secs_f64());
            ExitCode::FAILURE
        }
    }
}

/// A line of a demo's, seen at once.
pub fn say(line: &str) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Runs a command to its end; its output is shown only when it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let output =
        command.output().with_context(|| format!("starting {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end and hands on each line of its standard output as it comes; standard
/// error is shown only when it fails.
pub fn run_shown(command: &mut Command, say: &dyn Fn(&str)) -> Result<String> {
    let name = command.get_program().to_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {name:?}"))?;
    let mut stderr = child.stderr.take().context("a captured standard error")?;
    let errors = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let mut shown = String::new();
    for line in BufReader::new(child.stdout.take().context("a captured standard output")?).lines() {
        let line = line?;
        say(&line);
        shown += &line;
        shown.push('\n');
    }
    let status = child.wait()?;
    let errors = errors.join().unwrap_or_default();
    if !status.success() {
        bail!("{command:?} ended with {status}\n{errors}");
    }
    Ok(shown)
}
