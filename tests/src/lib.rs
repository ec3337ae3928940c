//! The laboratory: everything around a sealed CVM that a demo or a boot test needs, made of the
//! same programs and commands that users run.

pub mod process;
pub mod scene;
pub mod timeline;
pub mod tpm;
pub mod vm;

use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs a command to its end; its output is shown only when it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {:?}", command.get_program()))?;
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
