//! From an invitation to an agreement.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use cvm_base::{read_bounded, write_atomic};
use cvm_ceremony::{
    Builder, CeremonyError, Draft, Invite, Join, MAX_BYTES, PartyRole, Site, Terms, Transcript,
    fresh_nonce,
};
use cvm_layout::names::{Name, Role};

use super::{
    super::{day::today, secret_input::UnlockArgs},
    confirm::Confirm,
    files::{check_legal, legal_digest, statement},
};

/// Invite the other parties to a ceremony
///
/// Send them the file, then read its fingerprint to them by voice.
#[derive(Args)]
pub struct InviteArgs {
    /// This party's folder
    folder: PathBuf,
    /// The federation's project
    #[arg(long)]
    project: Name,
    /// The builder's public statement, builder.txt
    #[arg(long, value_name = "FILE")]
    builder: PathBuf,
    /// A site whose image is built, as NAME=server or NAME=client; give it once per site
    ///
    /// All parties hold a half of its image's key, or only those that are named after a colon: at
    /// least a model owner and a data owner.
    #[arg(
        long = "site",
        value_name = "NAME=ROLE[:PARTY,PARTY…]",
        value_parser = site,
        required = true
    )]
    sites: Vec<Site>,
    /// The document of the legal agreement; its SHA-256 goes into the transcript
    #[arg(long, value_name = "FILE")]
    legal: Option<PathBuf>,
    /// The roles whose halves open p3's `system` and `site` (the code); p5 and `state` (jobs,
    /// workspace, logs) need those of all
    #[arg(long, value_name = "ROLES", value_delimiter = ',', default_value = "model_owner")]
    system_key: Vec<PartyRole>,
    /// Where the invitation goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    unlock: UnlockArgs,
}

/// Join a ceremony, after comparing the invitation's fingerprint
///
/// Call its author and have the fingerprint read aloud: it is easier to replace a file on its way
/// than a voice that you know. In a script, give what was read with --expect-fingerprint.
#[derive(Args)]
pub struct JoinArgs {
    /// This party's folder
    folder: PathBuf,
    /// The invitation
    invite: PathBuf,
    /// The document of the legal agreement, as this party read it; the invitation must name it
    #[arg(long, value_name = "FILE")]
    legal: Option<PathBuf>,
    /// Where the answer goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    unlock: UnlockArgs,
}

/// Sign the transcript: make the agreement, or co-sign the other party's
///
/// The transcript follows from the invitation and the answers: every party computes it itself and
/// refuses any other. The agreement is the transcript with the signatures of all parties.
#[derive(Args)]
pub struct Agree {
    /// This party's folder
    folder: PathBuf,
    /// The invitation
    #[arg(long, value_name = "FILE")]
    invite: PathBuf,
    /// An answer to it; give it once per joining party
    #[arg(long = "join", value_name = "FILE", required = true)]
    joins: Vec<PathBuf>,
    /// The agreement: made if it is not there, else verified and co-signed
    #[arg(long, value_name = "FILE")]
    agreement: PathBuf,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    unlock: UnlockArgs,
}

pub(super) fn invite(args: InviteArgs) -> Result<()> {
    let party = args.unlock.party(&args.folder)?;
    let builder = statement::<Builder>(&args.builder)?;
    let legal = args.legal.as_deref().map(legal_digest).transpose()?;
    let (mut sites, mut system) = (args.sites, args.system_key);
    sites.sort_by(|a, b| a.name.cmp(&b.name));
    system.sort();
    system.dedup();
    let terms = Terms {
        project: args.project,
        date: today()?,
        epoch: 0,
        previous: None,
        nonce: fresh_nonce()?,
        legal,
        system,
        builder: builder.statement().clone(),
        sites,
    };
    let invite = party.invite(terms)?;
    write_atomic(&args.output, invite.text().as_bytes(), 0o644)?;
    println!("invitation written to {}", args.output.display());
    println!("builder {}: fingerprint {}", builder.statement().name, builder.fingerprint());
    println!(
        "next: send it to the others and read them its fingerprint by voice: {}",
        invite.fingerprint()
    );
    Ok(())
}

pub(super) fn join(args: JoinArgs) -> Result<()> {
    let party = args.unlock.party(&args.folder)?;
    let invite = statement::<Invite>(&args.invite)?;
    print!("{}", invite.text());
    let named = invite.statement().terms.legal;
    match &args.legal {
        Some(path) => {
            check_legal(path, "invitation", named)?;
            println!(
                "legal agreement: {} is the document that the invitation names",
                path.display()
            );
        }
        None if named.is_some() => {
            println!(
                "legal agreement: not compared; say --legal FILE with the document that you read"
            )
        }
        None => {}
    }
    args.confirm.check(&invite)?;
    let join = party.join(&invite)?;
    write_atomic(&args.output, join.text().as_bytes(), 0o644)?;
    println!("answer written to {}", args.output.display());
    println!(
        "next: send it to the others and read them its fingerprint by voice: {}",
        join.fingerprint()
    );
    Ok(())
}

pub(super) fn agree(args: Agree) -> Result<()> {
    let party = args.unlock.party(&args.folder)?;
    let invite = statement::<Invite>(&args.invite)?;
    let joins =
        args.joins.iter().map(|path| statement::<Join>(path)).collect::<Result<Vec<_>>>()?;
    let computed = Draft::new(Transcript::from_statements(&invite, &joins)?)?;
    let mut draft = match read_if_there(&args.agreement)? {
        None => computed,
        Some(bytes) => {
            let theirs = Draft::parse(&bytes)?;
            if theirs.digest() != computed.digest() {
                let (expected, found) = (computed.digest(), theirs.digest());
                return Err(
                    CeremonyError::OtherTranscript { what: "agreement", expected, found }.into()
                );
            }
            theirs
        }
    };
    let is_own = |card: &cvm_ceremony::Card| card == party.card();
    let invited = is_own(&invite.statement().inviter.card);
    if !invited && !joins.iter().any(|join| is_own(&join.statement().joiner.card)) {
        bail!(CeremonyError::NotAParty(party.card().name.clone()));
    }
    // A party that joined has confirmed the invitation: its answer names the invitation's digest.
    for join in joins.iter().filter(|join| !is_own(&join.statement().joiner.card)) {
        args.confirm.check(join)?;
    }
    party.sign(&mut draft)?;
    write_atomic(&args.agreement, draft.text().as_bytes(), 0o644)?;
    println!("{} signed {}", party.card().name, args.agreement.display());
    match draft.missing().as_slice() {
        [] => println!("all parties have signed: transcript {}", draft.digest()),
        missing => {
            let names: Vec<_> = missing.iter().map(Name::as_str).collect();
            println!("next: send the file to {} to run the same command", names.join(", "));
        }
    }
    Ok(())
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    if path.exists() { Ok(Some(read_bounded(path, MAX_BYTES)?)) } else { Ok(None) }
}

fn site(text: &str) -> Result<Site, String> {
    let (site, rest) = text.split_once('=').ok_or("expected NAME=server or NAME=client")?;
    let name = |text: &str| text.parse::<Name>().map_err(|e| e.to_string());
    let (kind, parties) = match rest.split_once(':') {
        Some((kind, parties)) => {
            (kind, parties.split(',').map(name).collect::<Result<Vec<_>, _>>()?)
        }
        None => (rest, Vec::new()),
    };
    let mut site =
        Site { name: name(site)?, role: kind.parse::<Role>().map_err(|e| e.to_string())?, parties };
    // A name that occurs twice stays in the list: it is refused later, with the reason.
    site.parties.sort();
    Ok(site)
}
