//! `flare-cvm policy`: the three attestation policies of an image.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use cvm_attest::{Reference, ReferenceSet, policy::new_policies};
use cvm_base::{read_text, write_atomic};

use super::progress::line;

/// More than any reference values need, in bytes.
const MAX_REFERENCE: u64 = 4 * 1024 * 1024;

/// Write the policies that evidence is judged by.
#[derive(Subcommand)]
pub enum PolicyCommand {
    New(New),
}

/// Write boot.rego, self.rego and cross.rego from an image's predicted reference values.
///
/// boot.rego decides on the release of keys, self.rego is what a running CVM holds itself against, and cross.rego
/// what it holds its peers against. All three deny by default and say why. Read them, and edit them: they are
/// yours. A check that was left out is refused unless the policy lists it in accepted_not_checked.
#[derive(Args)]
pub struct New {
    /// The bundle's reference.json, or a reference set (flare-cvm predict prints one)
    #[arg(value_name = "REFERENCE")]
    reference: PathBuf,
    /// SHA-256 of an endorsement root whose TPMs are accepted; give it once per root
    #[arg(long, value_name = "HEX")]
    ek_root: Vec<cvm_base::Bytes32>,
    /// The folder to write them to
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
}

/// Runs one of the commands.
pub fn run(command: PolicyCommand) -> Result<()> {
    let PolicyCommand::New(args) = command;
    let bytes = read_text(&args.reference, MAX_REFERENCE)?;
    let mut set = match Reference::parse(&bytes) {
        Ok(reference) => ReferenceSet::from(&reference),
        Err(_) => ReferenceSet::parse(&bytes).with_context(|| {
            format!("{} is neither a bundle's reference.json nor a reference set", args.reference.display())
        })?,
    };
    set.ek_roots.extend(args.ek_root.iter().copied());
    std::fs::create_dir_all(&args.output).with_context(|| format!("cannot make {}", args.output.display()))?;
    for (name, text) in new_policies(&set)? {
        let path = args.output.join(name);
        write_atomic(&path, text.as_bytes(), 0o644)?;
        line(&format!("written: {}", path.display()));
    }
    line("next: read them; a party gives boot.rego to `flare-cvm ceremony init --policy`");
    Ok(())
}
