//! `flare-cvm`: builds sealed CVM images for NVIDIA FLARE, holds the key ceremony, serves a party's
//! half of the key, and verifies what a machine proves about itself.
//!
//! The libraries do the work. What is here: the arguments and their defaults, which files are read
//! and how they combine (a `cc_config` with flags, a folder of evidence), several sites at a time,
//! and how results and errors are printed.

mod commands;
mod problem;
mod report;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sealed Confidential VMs for NVIDIA FLARE: build, ceremony, provision, key holder, evidence.
///
/// A model owner and a data owner each hold one half of every image's key. The order of work:
///
///   1. flare-cvm build nvidia_cc_base, nvflare_cc_base, provision_build  (project admin)
///   2. flare-cvm ceremony …                                              (owners and builder)
///   3. flare-cvm provision …                         (project admin, one bundle per site)
///   4. flare-cvm keyholder enroll …, flare-cvm keyholder serve …         (each owner)
///   5. flare-cvm data BUNDLE FOLDER, ./launch_vm.sh in the bundle        (the site)
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

// The help of each command is the documentation of its type.
#[derive(Subcommand)]
enum Command {
    Build(commands::build::Build),
    #[command(subcommand)]
    Ceremony(commands::ceremony::Ceremony),
    Provision(commands::provision::Provision),
    Data(commands::data::Data),
    #[command(subcommand)]
    Keyholder(commands::keyholder::Keyholder),
    #[command(subcommand)]
    Collateral(commands::collateral::Collateral),
    #[command(subcommand)]
    Attest(commands::attest::Attest),
    Predict(Box<commands::predict::Predict>),
    #[command(subcommand)]
    Policy(commands::policy::PolicyCommand),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    // The key holder ends in order by itself.
    if !matches!(command, Command::Keyholder(_))
        && let Err(error) = cvm_image::interrupt::install()
    {
        eprintln!("warning: Ctrl-C will not remove temporary files: {error}");
    }
    let result = match command {
        Command::Build(c) => commands::build::run(c),
        Command::Ceremony(c) => commands::ceremony::run(c),
        Command::Provision(c) => commands::provision::run(c),
        Command::Data(c) => commands::data::run(c),
        Command::Keyholder(c) => commands::keyholder::run(c),
        Command::Collateral(c) => commands::collateral::run(c),
        Command::Attest(c) => commands::attest::run(c),
        Command::Predict(c) => commands::predict::run(*c),
        Command::Policy(c) => commands::policy::run(c),
    };
    // After an interruption, errors follow from it: the handler prints the last word, and exits.
    cvm_base::interrupt::checkpoint();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::print(&error);
            ExitCode::FAILURE
        }
    }
}
