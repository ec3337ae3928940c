//! `flare-cvm ceremony`: the files that parties exchange, and where a person compares fingerprints.

mod agree;
mod confirm;
mod contribute;
mod files;
mod init;
mod inspect;

use anyhow::Result;
use clap::Subcommand;

use agree::{Agree, InviteArgs, JoinArgs};
use contribute::Contribute;
use init::{Init, InitBuilder};
use inspect::{Show, Verify};

/// Hold the key ceremony between a model owner and a data owner.
///
/// Nobody can open a sealed image's job store alone: each party keeps one half of its key. The
/// ceremony makes the parties' keys, has the parties sign one transcript (who takes part, which
/// policy releases a half, which builder may build), and gives the builder what one build needs.
/// Every file that is exchanged is a small signed text: read it, and archive it.
///
/// In order (model owner M, data owner D, builder B; each folder is its owner's own):
///
///   B    init-builder B --name builder                 and send B/builder.txt to M
///   M    init M --name model-owner --role model_owner
///             --keyholder https://kh.m.example:8443 --policy policy.rego
///   D    init D --name data-owner --role data_owner
///             --keyholder https://kh.d.example:8443 --policy policy.rego
///   M    invite M --project demo --builder builder.txt --site server1=server -o invite.txt
///   D    join D invite.txt -o join.txt                 compare invite.txt's fingerprint by voice
///   M, D agree M --invite invite.txt --join join.txt --agreement agreement.txt
///                                                      M compares join.txt's fingerprint by voice
///   M, D contribute M --agreement agreement.txt --role server --build demo-1 -o m.contribution.txt
#[derive(Subcommand)]
#[command(verbatim_doc_comment)]
pub enum Ceremony {
    // The help of each is the documentation of its arguments.
    Init(Init),
    InitBuilder(InitBuilder),
    Invite(InviteArgs),
    Join(JoinArgs),
    Agree(Agree),
    Contribute(Contribute),
    Show(Show),
    Verify(Verify),
}

/// Runs one step of the ceremony.
pub fn run(command: Ceremony) -> Result<()> {
    match command {
        Ceremony::Init(args) => init::party(args),
        Ceremony::InitBuilder(args) => init::builder(args),
        Ceremony::Invite(args) => agree::invite(args),
        Ceremony::Join(args) => agree::join(args),
        Ceremony::Agree(args) => agree::agree(args),
        Ceremony::Contribute(args) => contribute::contribute(args),
        Ceremony::Show(args) => inspect::show(&args),
        Ceremony::Verify(args) => inspect::verify(args),
    }
}
