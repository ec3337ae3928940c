//! `snpguest` in a sealed machine: what NVFLARE's own SNP authorizer runs, asked of the attestation
//! agent.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};
use cvm_agent::{
    serve::SOCKET,
    snpguest::run::{self, Command},
};
use cvm_base::Explain;

/// SEV-SNP reports from the attestation agent, under the arguments of virtee's snpguest.
#[derive(Parser)]
#[command(name = "snpguest", version)]
struct Cli {
    /// The agent's socket
    #[arg(long, default_value = SOCKET)]
    socket: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Request an attestation report
    Report {
        /// File to write the report to
        report: PathBuf,
        /// File with the 64 bytes that the report shall carry
        request: PathBuf,
    },
    /// Write certificates
    Fetch(Fetch),
    /// Verify a report
    Verify(Verify),
    /// Show a report
    Display(Display),
}

#[derive(Args)]
struct Fetch {
    #[command(subcommand)]
    what: FetchWhat,
}

#[derive(Subcommand)]
enum FetchWhat {
    /// AMD's root and intermediate, which are built in
    Ca { encoding: Encoding, folder: PathBuf, model: String },
    /// The VCEK or VLEK that vouches for a report
    Vcek { encoding: Encoding, folder: PathBuf, report: PathBuf },
}

#[derive(Args)]
struct Verify {
    #[command(subcommand)]
    what: VerifyWhat,
}

#[derive(Subcommand)]
enum VerifyWhat {
    /// The report, its chip and its chain of certificates
    Attestation { folder: PathBuf, report: PathBuf },
}

#[derive(Args)]
struct Display {
    #[command(subcommand)]
    what: DisplayWhat,
}

#[derive(Subcommand)]
enum DisplayWhat {
    /// Every field, as text
    Report { report: PathBuf },
}

#[derive(Clone, Copy, ValueEnum)]
enum Encoding {
    Pem,
    Der,
}

impl From<Encoding> for run::Encoding {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Pem => Self::Pem,
            Encoding::Der => Self::Der,
        }
    }
}

impl From<What> for Command {
    fn from(what: What) -> Self {
        match what {
            What::Report { report, request } => Self::Report { report, request },
            What::Fetch(Fetch { what: FetchWhat::Ca { encoding, folder, model } }) => {
                Self::FetchCa { encoding: encoding.into(), folder, model }
            }
            What::Fetch(Fetch { what: FetchWhat::Vcek { encoding, folder, report } }) => {
                Self::FetchVcek { encoding: encoding.into(), folder, report }
            }
            What::Verify(Verify { what: VerifyWhat::Attestation { folder, report } }) => {
                Self::Verify { folder, report }
            }
            What::Display(Display { what: DisplayWhat::Report { report } }) => {
                Self::Display { report }
            }
        }
    }
}

fn main() -> ExitCode {
    let Cli { socket, what } = Cli::parse();
    match run::run(&what.into(), &socket) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("snpguest: error: {}: {error} (help: {})", error.code(), error.help());
            ExitCode::FAILURE
        }
    }
}
