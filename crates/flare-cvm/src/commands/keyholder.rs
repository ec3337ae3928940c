//! `flare-cvm keyholder`: a party's server, and what its operator does beside it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use cvm_base::read_bounded;
use cvm_ceremony::{Card, Signed};
use cvm_custody::PARTY_FILE;
use cvm_keyholder::{
    KeyHolderError,
    documents::{Documents, Identity},
    memory::{Chip, Sealed, Subject, Withdrawal},
    protect,
    service::{self, Config, Limits},
    store::{Listed, SqliteStore},
};
use cvm_layout::{
    manifest::{self, ImageId},
    names::Name,
};
use serde_json::json;

use super::secret_input::UnlockArgs;

/// The longest document of an enrolment, in bytes.
const MAX_DOCUMENT: u64 = manifest::MAX_BYTES;

/// Hold a party's half of the keys and release it to attested CVMs.
///
/// A key holder is one party's own server. It releases that party's half of an image's key when,
/// and only when, the image was enrolled, the evidence is genuine and matches the image's reference
/// values, and the party's policy allows it. Every decision goes into a signed, hash-chained log.
///
/// The party's folder is the one that `flare-cvm ceremony init` made. In order:
///
///   flare-cvm keyholder enroll --dir M --agreement agreement.txt --manifest B/manifest.json
///   --reference B/reference.json
///   flare-cvm keyholder serve  --dir M --listen 0.0.0.0:8443
///   flare-cvm keyholder log    --dir M            who asked, what was decided, and why
///   flare-cvm keyholder withdraw IMAGE --dir M    take the consent back
#[derive(Subcommand)]
#[command(verbatim_doc_comment)]
pub enum Keyholder {
    // The help of each is the documentation of its arguments.
    Serve(Serve),
    Enroll(Enroll),
    Images(Look),
    Withdraw(Withdraw),
    Log(Log),
    #[command(subcommand)]
    Seal(Seal),
}

/// Serve the party's half over HTTPS until Ctrl-C or SIGTERM.
///
/// Prints one line `ready URL certificate=SHA256`, and then one line per decision. The policy
/// folder holds policy.rego (package policy; `allow` decides); in ek-roots/ the PEM certificates of
/// those who may endorse a TPM, and what they revoked (*.crl); in collateral/ what AMD and Intel
/// publish, as `flare-cvm collateral` collects it, beside its collector's key collateral.pub.
/// Nothing is reloaded while it runs: restart it after a change. Refusals show their reason here
/// and in the log only; the client hears no more than "denied".
#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    party: PartyArgs,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443")]
    listen: String,
    /// The folder with policy.rego, ek-roots/ and collateral/ [default: the party's folder]
    #[arg(long, value_name = "DIR")]
    policy: Option<PathBuf>,
    /// Let images of this agreement enrol themselves by the signed documents that their CVMs
    /// present
    ///
    /// Only those of builds that this party contributed to, until the contribution's last day
    /// (`ceremony contribute --valid-days`), and one for each site and build.
    #[arg(long, value_name = "AGREEMENT")]
    enroll_presented: Option<PathBuf>,
}

/// Accept an image: from now on its CVM may ask for this party's half.
///
/// Checked first: this party and the others signed the agreement; its builder signed the manifest
/// and the reference values; all three belong together. The signatures lie beside the files, as
/// manifest.sig and reference.sig.
#[derive(Args)]
pub struct Enroll {
    #[command(flatten)]
    party: PartyArgs,
    /// The agreement that all parties signed
    #[arg(long, value_name = "FILE")]
    agreement: PathBuf,
    /// The bundle's manifest.json
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// The bundle's reference.json: the measurements that a genuine boot shows
    #[arg(long, value_name = "FILE")]
    reference: PathBuf,
}

/// Take this party's consent back: nothing is released any more to an image, to all images of a
/// site, or to any image on a machine.
///
/// The withdrawal goes into the signed log. Neither an enrolment nor a presentation revives what is
/// withdrawn: only --undo gives the consent again. A CVM that runs goes on running, because it has
/// its keys already. `keyholder images` lists what is withdrawn.
#[derive(Args)]
#[group(id = "subject", required = true, multiple = false, args = ["image", "site", "chip"])]
pub struct Withdraw {
    /// The image's id
    image: Option<ImageId>,
    /// Every image of this site, also those that are enrolled later
    #[arg(long, value_name = "NAME")]
    site: Option<Name>,
    /// Every image on this machine, as `keyholder log` names it in `chip=`: AMD's CHIP_ID, Intel's
    /// PPID, or the digest of a TPM's endorsement certificate. Evidence that names no chip is then
    /// refused as well
    #[arg(long, value_name = "HEX")]
    chip: Option<Chip>,
    /// Why, for the log and for who asks
    #[arg(long, value_name = "TEXT", default_value = "", conflicts_with = "undo")]
    reason: String,
    /// Give the consent again
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    party: PartyArgs,
}

/// List the enrolled images, what is sealed, and what is withdrawn.
#[derive(Args)]
pub struct Look {
    /// The party's folder
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// For scripts
    #[arg(long)]
    json: bool,
}

/// Show the audit log, oldest entry first; `log verify` checks that nobody changed it.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Log {
    #[command(subcommand)]
    action: Option<LogAction>,
    /// The party's folder
    #[arg(long, value_name = "DIR", required = true)]
    dir: Option<PathBuf>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

/// What to do with the log besides showing it.
#[derive(Subcommand)]
pub enum LogAction {
    /// Check every signature and the chain: a deleted, changed or exchanged entry shows.
    ///
    /// Prints the number of entries and the last one's hash. Keep a copy of that hash elsewhere:
    /// only it shows that the whole folder was set back to an older state.
    Verify {
        /// The party's folder
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// What this key holder remembers of an image's job store (p5).
#[derive(Subcommand)]
pub enum Seal {
    /// Show the registered header's digest.
    Show {
        /// The image's id
        image: ImageId,
        /// The party's folder
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Let an image that is bound to its machine move to another one.
    ///
    /// Its job store opens only with a secret that its machine's TPM keeps, and of which every
    /// party holds a share. Once all parties have said this, its next boot elsewhere joins the
    /// shares and is bound there. It goes into the log.
    Move {
        /// The image's id
        image: ImageId,
        #[command(flatten)]
        party: PartyArgs,
    },
    /// Forget it, so that the image's next boot makes a new, empty job store.
    ///
    /// For a disk that was legitimately replaced. All parties that hold a half of the job store's
    /// key must do it. It goes into the log.
    Reset {
        /// The image's id
        image: ImageId,
        #[command(flatten)]
        party: PartyArgs,
    },
}

/// A party's folder, opened.
#[derive(Args)]
pub struct PartyArgs {
    /// The party's folder
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    unlock: UnlockArgs,
}

impl PartyArgs {
    fn store(&self) -> Result<SqliteStore> {
        let party = self.unlock.party(&self.dir)?;
        Ok(SqliteStore::open(
            &self.dir,
            Identity::from(party.card()),
            Some(party.identity().clone()),
        )?)
    }
}

/// Runs one of the commands.
pub fn run(command: Keyholder) -> Result<()> {
    protect::no_dumps()?;
    match command {
        Keyholder::Serve(args) => serve(&args),
        Keyholder::Enroll(args) => enroll(&args),
        Keyholder::Images(args) => images(&args),
        Keyholder::Withdraw(args) => withdraw(args),
        Keyholder::Log(Log { action: Some(LogAction::Verify { dir }), .. }) => verify(&dir),
        Keyholder::Log(Log { action: None, dir, json }) => show_log(&dir.unwrap_or_default(), json),
        Keyholder::Seal(Seal::Show { image, dir }) => show_seal(&image, &dir),
        Keyholder::Seal(Seal::Move { image, party }) => allow_move(&image, &party),
        Keyholder::Seal(Seal::Reset { image, party }) => reset_seal(&image, &party),
    }
}

fn serve(args: &Serve) -> Result<()> {
    let config = Config {
        folder: args.party.dir.clone(),
        listen: args.listen.clone(),
        policy: args.policy.clone().unwrap_or_else(|| args.party.dir.clone()),
        state: args.party.dir.clone(),
        enrol_presented: args
            .enroll_presented
            .as_deref()
            .map(|path| read_bounded(path, MAX_DOCUMENT))
            .transpose()?,
        limits: Limits::default(),
    };
    Ok(service::serve(&config, &args.party.unlock.unlock(&args.party.dir)?)?)
}

fn enroll(args: &Enroll) -> Result<()> {
    let documents = documents(args)?;
    let enrolled = args.party.store()?.enrol(&documents)?;
    let manifest = enrolled.manifest;
    println!(
        "enrolled image {} of site {} ({}, project {})",
        manifest.image_id, manifest.site, manifest.role, manifest.project
    );
    Ok(())
}

fn documents(args: &Enroll) -> Result<Documents, KeyHolderError> {
    let read = |path: &Path| read_bounded(path, MAX_DOCUMENT);
    let signature = |path: &Path| read_bounded(&path.with_extension("sig"), 64);
    Ok(Documents {
        agreement: read(&args.agreement)?,
        manifest: read(&args.manifest)?,
        manifest_signature: signature(&args.manifest)?,
        reference: read(&args.reference)?,
        reference_signature: signature(&args.reference)?,
    })
}

fn images(args: &Look) -> Result<()> {
    let store = reader(&args.dir)?;
    let (images, odd) = store.images()?;
    for Listed { enrolled, sealed, withdrawn } in images {
        let m = enrolled.manifest;
        if args.json {
            let bound = sealed.is_some_and(|sealed| sealed.share_sha256.is_some());
            let withdrawn =
                withdrawn.map(|(subject, withdrawal)| withdrawal_json(&subject, &withdrawal));
            let line = json!({
                "image_id": m.image_id, "project": m.project, "site": m.site, "role": m.role,
                "sealed_header_sha256": sealed.map(|sealed| sealed.header_sha256),
                "machine_bound": bound, "withdrawn": withdrawn,
            });
            println!("{line}");
        } else {
            let state = sealed.map_or("not booted yet".into(), |sealed| describe(&sealed));
            let withdrawn = withdrawn.map_or("", |_| ", withdrawn");
            println!(
                "{}  {:<20} {:<7} {state}{withdrawn}",
                m.image_id,
                m.site.as_str(),
                m.role.to_string()
            );
        }
    }
    for (subject, withdrawal) in store.withdrawals()? {
        if args.json {
            println!("{}", json!({ "withdrawal": withdrawal_json(&subject, &withdrawal) }));
        } else {
            println!("{subject}: {withdrawal}");
        }
    }
    for error in odd {
        eprintln!("warning: {error}");
    }
    Ok(())
}

fn withdrawal_json(
    subject: &Subject,
    Withdrawal { since, reason }: &Withdrawal,
) -> serde_json::Value {
    json!({ "subject": subject, "since": since, "reason": reason })
}

fn withdraw(args: Withdraw) -> Result<()> {
    let Withdraw { image, site, chip, reason, undo, party } = args;
    let subject = image.map(Subject::Image).or(site.map(Subject::Site)).or(chip.map(Subject::Chip));
    let subject = subject.context("nothing is named")?;
    let store = party.store()?;
    if undo {
        store.restore(subject.clone())?;
        println!("{subject} has this party's consent again");
    } else {
        store.withdraw(subject.clone(), &reason)?;
        println!("withdrew {subject}: nothing of this party is released to it any more");
    }
    Ok(())
}

fn show_log(dir: &Path, json: bool) -> Result<()> {
    for entry in reader(dir)?.log()? {
        if json {
            println!("{}", serde_json::to_string(&entry)?);
        } else {
            println!("{entry}");
        }
    }
    Ok(())
}

fn verify(dir: &Path) -> Result<()> {
    let head = reader(dir)?.verify_log()?;
    println!("intact: {} entries, the last one's hash is {}", head.entries, head.hash);
    Ok(())
}

fn show_seal(image: &ImageId, dir: &Path) -> Result<()> {
    let store = reader(dir)?;
    let site = store.image(image)?.manifest.site;
    match store.registered(image)? {
        Some(seal) => println!("image {image} of site {site}: {}", describe(&seal)),
        None => println!("image {image} of site {site}: fresh, its first boot is still to come"),
    }
    Ok(())
}

fn describe(seal: &Sealed) -> String {
    let machine = match (&seal.share_sha256, seal.may_move) {
        (None, _) => "",
        (Some(_), false) => ", bound to its machine",
        (Some(_), true) => ", bound to its machine, may move",
    };
    format!("sealed {}{machine}", seal.header_sha256)
}

fn allow_move(image: &ImageId, party: &PartyArgs) -> Result<()> {
    party.store()?.allow_move(image)?;
    println!(
        "image {image} may move: its next boot elsewhere gets this party's share of its machine's \
         secret"
    );
    Ok(())
}

fn reset_seal(image: &ImageId, party: &PartyArgs) -> Result<()> {
    match party.store()?.reset_seal(image)? {
        Some(header) => {
            println!("forgot {header}: the next boot of image {image} makes a new, empty job store")
        }
        None => println!("nothing was registered for image {image}"),
    }
    Ok(())
}

/// The store, to look at only: this needs no secret.
fn reader(dir: &Path) -> Result<SqliteStore> {
    let card = read_bounded(&dir.join(PARTY_FILE), MAX_DOCUMENT)?;
    let card = Signed::<Card>::parse(&card)?;
    Ok(SqliteStore::open(dir, Identity::from(card.statement()), None)?)
}
