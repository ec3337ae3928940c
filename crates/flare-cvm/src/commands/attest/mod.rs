//! `flare-cvm attest`: evidence, collected in a guest and checked offline.

mod collect;
mod input;
mod limits;
mod node;
mod policies;
mod verify;

use anyhow::Result;
use clap::Subcommand;

/// Check what a confidential machine proves about itself.
#[derive(Subcommand)]
pub enum Attest {
    Verify(verify::Verify),
    Collect(collect::Collect),
    Node(node::Node),
    Report(node::Report),
    /// A host: `attest HOST[:PORT]` is `attest node HOST[:PORT]`
    #[command(external_subcommand)]
    Host(Vec<String>),
}

/// Runs one of the commands.
pub fn run(command: Attest) -> Result<()> {
    match command {
        Attest::Verify(args) => verify::verify(&args),
        Attest::Collect(args) => collect::collect(&args),
        Attest::Node(args) => node::node(&args),
        Attest::Report(args) => node::report(&args),
        Attest::Host(arguments) => node::spelled(&arguments),
    }
}
