//! The keys of parties and builders.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use cvm_base::read_bounded;
use cvm_ceremony::{PartyRole, Url};
use cvm_custody::{BuilderSecrets, NewParty, POLICY_FILE};
use cvm_layout::names::Name;

use super::{
    super::{day::today, secret_input::LockArgs},
    files::MAX_POLICY,
};

/// Make a party's keys in a new folder
///
/// The folder holds party.txt and tls.pem (public), policy.rego, secrets.age (all secrets,
/// encrypted) and unlock.key, which opens secrets.age: keep the two apart in backups. An existing
/// folder is never overwritten.
#[derive(Args)]
pub struct Init {
    /// The new folder
    folder: PathBuf,
    /// The party's name: letters, digits, '.', '_', '@', '-'
    #[arg(long)]
    name: Name,
    /// model_owner or data_owner
    #[arg(long)]
    role: PartyRole,
    /// Where the party's key holder will listen: https://HOST:PORT
    #[arg(long, value_name = "URL")]
    keyholder: Url,
    /// The release policy (Rego); it may also be put at policy.rego later, before invite or join
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    lock: LockArgs,
}

/// Make a builder's keys in a new folder
///
/// builder.txt is public; secrets.age signs manifests and opens contributions.
#[derive(Args)]
pub struct InitBuilder {
    /// The new folder
    folder: PathBuf,
    /// The builder's name
    #[arg(long)]
    name: Name,
    #[command(flatten)]
    lock: LockArgs,
}

pub(super) fn party(args: Init) -> Result<()> {
    let policy = args.policy.map(|path| read_bounded(&path, MAX_POLICY)).transpose()?;
    let no_policy = policy.is_none();
    let new = NewParty {
        name: args.name,
        role: args.role,
        keyholder: args.keyholder,
        policy,
        today: today()?,
    };
    let card = new.create(&args.folder, &args.lock.lock()?)?;
    println!(
        "party {} ({}) made in {}",
        card.statement().name,
        card.statement().role,
        args.folder.display()
    );
    println!("back up secrets.age, and what opens it elsewhere: nothing can replace them");
    if no_policy {
        println!("next: put the release policy at {}", args.folder.join(POLICY_FILE).display());
    }
    Ok(())
}

pub(super) fn builder(args: InitBuilder) -> Result<()> {
    let statement = BuilderSecrets::create(&args.folder, args.name, &args.lock.lock()?)?;
    println!("builder {} made in {}", statement.statement().name, args.folder.display());
    println!(
        "next: send builder.txt to the party that invites; fingerprint {}",
        statement.fingerprint()
    );
    Ok(())
}
