//! One party's contribution to one build.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use cvm_base::{read_bounded, write_atomic};
use cvm_ceremony::{Agreement, MAX_BYTES};
use cvm_layout::names::{Name, Role};

use super::super::{day::in_days, secret_input::UnlockArgs};

/// Seal this party's base key to the builder, for one build
///
/// The contribution is refused in another ceremony, for another role, in another build and after
/// its last day. Until that day, this party's key holders may also enrol the build's images by what
/// they present (`keyholder serve --enroll-presented`), one for each site. A build's name can be
/// used once: the folder keeps a copy of every contribution.
#[derive(Args)]
pub struct Contribute {
    /// This party's folder
    folder: PathBuf,
    /// The agreement with all signatures
    #[arg(long, value_name = "FILE")]
    agreement: PathBuf,
    /// For which images: server or client
    #[arg(long)]
    role: Role,
    /// The build's name, as the builder gave it
    #[arg(long)]
    build: Name,
    /// How many days from today the build, and its images' first boots, may take
    #[arg(
        long,
        value_name = "DAYS",
        default_value_t = 7,
        value_parser = clap::value_parser!(u16).range(0..=3660)
    )]
    valid_days: u16,
    /// Where the contribution goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    unlock: UnlockArgs,
}

pub(super) fn contribute(args: Contribute) -> Result<()> {
    let party = args.unlock.party(&args.folder)?;
    let agreement = Agreement::parse(&read_bounded(&args.agreement, MAX_BYTES)?)?;
    let contribution =
        party.contribute(&agreement, args.role, args.build, in_days(args.valid_days)?)?;
    party.keep(&contribution)?;
    write_atomic(&args.output, contribution.text().as_bytes(), 0o644)?;
    let permit = &contribution.statement().permit;
    println!(
        "contribution for the {} images of build {}, until {}, written to {}",
        permit.role,
        permit.build,
        permit.not_after,
        args.output.display()
    );
    println!("next: send it to the builder {}; nobody else can open it", agreement.builder().name);
    Ok(())
}
