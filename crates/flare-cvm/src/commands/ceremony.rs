//! `flare-cvm ceremony`: the files that parties exchange, and where a human compares fingerprints.

use std::{
    io::{BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use cvm_base::{Bytes32, read_bounded, sha256, write_atomic};
use cvm_ceremony::{
    Agreement, Artifact, Builder, CeremonyError, Contribution, Date, Described, Draft, Fingerprint,
    Invite, Join, MAX_BYTES, PartyRole, Signed, Site, Statement, Terms, Transcript, Url,
    fresh_nonce,
};
use cvm_custody::{BuilderSecrets, CustodyError, NewParty, POLICY_FILE};
use cvm_layout::names::{Name, Role};
use serde_json::json;

use super::secret_input::{LockArgs, UnlockArgs};

/// The most bytes of a policy file.
const MAX_POLICY: u64 = 64 * 1024;
/// The most bytes of a legal agreement's document.
const MAX_LEGAL: u64 = 64 * 1024 * 1024;

/// Hold the key ceremony between a model owner and a data owner.
///
/// Nobody alone can open a sealed image's job store: each party keeps one half of its key. The
/// ceremony makes the parties' keys, lets them sign one transcript (who takes part, which policy
/// releases a half, which builder may build), and hands the builder what one build needs. Every
/// file that is exchanged is a small signed text: read it, archive it.
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
    // Each one's help is its arguments' documentation.
    Init(Init),
    InitBuilder(InitBuilder),
    Invite(InviteArgs),
    Join(JoinArgs),
    Agree(Agree),
    Contribute(Contribute),
    Show(Show),
    Verify(Verify),
}

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
    /// The release policy (Rego); may also be put at policy.rego later, before invite or join
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
    /// All parties hold a half of its image's key, or those that are named behind a colon: at least
    /// a model owner and a data owner.
    #[arg(long = "site", value_name = "NAME=ROLE[:PARTY,PARTY…]", value_parser = site, required = true)]
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
/// Call its author and have the fingerprint read aloud: a file on its way can be replaced, a known
/// voice is harder to replace. In a script, --expect-fingerprint carries what was read.
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
/// The transcript follows from the invitation and the answers, so that every party computes it
/// itself and refuses another. The agreement is the transcript with the signatures of all.
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

/// Seal this party's base key to the builder, for one build
///
/// It is refused in another ceremony, for another role, in another build and after its last day. It
/// also permits key holders of this party to enrol the build's images by what they present
/// (`keyholder serve --enroll-presented`), one for each site, until that day. A build's name serves
/// once: the folder keeps a copy of every contribution.
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
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u16).range(0..=3660))]
    valid_days: u16,
    /// Where the contribution goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    unlock: UnlockArgs,
}

/// Show any file of a ceremony: what it says, its fingerprint, whose signatures verify
#[derive(Args)]
pub struct Show {
    /// The file
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Verify an agreement's signatures and that other files belong to it
#[derive(Args)]
pub struct Verify {
    /// The agreement
    agreement: PathBuf,
    /// A builder's statement that must be the agreement's
    #[arg(long, value_name = "FILE")]
    builder: Option<PathBuf>,
    /// A contribution that must be made for the agreement
    #[arg(long = "contribution", value_name = "FILE")]
    contributions: Vec<PathBuf>,
    /// The release policy that the agreement must name for a party
    #[arg(long = "policy", value_name = "PARTY=FILE", value_parser = party_file)]
    policies: Vec<(Name, PathBuf)>,
    /// The document of the legal agreement; the transcript must name it
    #[arg(long, value_name = "FILE")]
    legal: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Confirm {
    /// Go on without asking: the file came by a way that nobody else can change
    #[arg(long, conflicts_with = "expect_fingerprint")]
    yes: bool,
    /// The fingerprint as its author read it; the file must have it. Once per author
    #[arg(long, value_name = "FINGERPRINT")]
    expect_fingerprint: Vec<Fingerprint>,
}

/// Runs one step of the ceremony.
pub fn run(command: Ceremony) -> Result<()> {
    match command {
        Ceremony::Init(args) => init(args),
        Ceremony::InitBuilder(args) => init_builder(args),
        Ceremony::Invite(args) => invite(args),
        Ceremony::Join(args) => join(args),
        Ceremony::Agree(args) => agree(args),
        Ceremony::Contribute(args) => contribute(args),
        Ceremony::Show(args) => show(&args),
        Ceremony::Verify(args) => verify(args),
    }
}

fn init(args: Init) -> Result<()> {
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

fn init_builder(args: InitBuilder) -> Result<()> {
    let statement = BuilderSecrets::create(&args.folder, args.name, &args.lock.lock()?)?;
    println!("builder {} made in {}", statement.statement().name, args.folder.display());
    println!(
        "next: send builder.txt to the party that invites; fingerprint {}",
        statement.fingerprint()
    );
    Ok(())
}

fn invite(args: InviteArgs) -> Result<()> {
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

fn join(args: JoinArgs) -> Result<()> {
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

fn agree(args: Agree) -> Result<()> {
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
    let own = |card: &cvm_ceremony::Card| card == party.card();
    let invited = own(&invite.statement().inviter.card);
    if !invited && !joins.iter().any(|join| own(&join.statement().joiner.card)) {
        bail!(CeremonyError::NotAParty(party.card().name.clone()));
    }
    // Whoever joined confirmed the invitation then: its own answer names the invitation's digest.
    for join in joins.iter().filter(|join| !own(&join.statement().joiner.card)) {
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

fn contribute(args: Contribute) -> Result<()> {
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

fn show(args: &Show) -> Result<()> {
    let bytes = read_bounded(&args.file, MAX_BYTES)?;
    let described = Described::parse(&bytes)?;
    let fingerprint = Fingerprint::of(&described.digest);
    if args.json {
        let mut value = serde_json::to_value(&described)?;
        value["fingerprint"] = json!(fingerprint);
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    // The file is its own best description, and its parser has bounded it to printable ASCII.
    print!("{}", String::from_utf8_lossy(&bytes));
    println!();
    println!("sha256:      {}", described.digest);
    println!("fingerprint: {fingerprint}");
    println!("verified:    {}", list(&described.signed_by));
    match described.artifact {
        Artifact::Contribution(_) => {
            println!(
                "not verified: {} (verify it with `ceremony verify AGREEMENT --contribution FILE`)",
                list(&described.unverified)
            )
        }
        _ => println!("missing:     {}", list(&described.unverified)),
    }
    Ok(())
}

fn verify(args: Verify) -> Result<()> {
    let agreement = Agreement::parse(&read_bounded(&args.agreement, MAX_BYTES)?)?;
    let mut checked = vec![format!("agreement {}", args.agreement.display())];
    if let Some(path) = &args.builder {
        let builder = statement::<Builder>(path)?;
        if builder.statement() != agreement.builder() {
            let (named, found) =
                (agreement.builder().name.clone(), builder.statement().name.clone());
            return Err(CeremonyError::OtherBuilder { named, found }.into());
        }
        checked.push(format!("builder {}", path.display()));
    }
    for path in &args.contributions {
        Contribution::parse(&read_bounded(path, MAX_BYTES)?, &agreement)
            .with_context(|| path.display().to_string())?;
        checked.push(format!("contribution {}", path.display()));
    }
    for (name, path) in &args.policies {
        if sha256(&read_bounded(path, MAX_POLICY)?) != agreement.party(name)?.policy_sha256 {
            let statement = format!("the agreement's policy of {name}");
            bail!(CustodyError::Mismatch {
                path: path.display().to_string(),
                statement,
                field: "SHA-256"
            });
        }
        checked.push(format!("policy {}", path.display()));
    }
    let (digest, transcript) = (agreement.digest(), agreement.transcript());
    if let Some(path) = &args.legal {
        check_legal(path, "transcript", transcript.terms.legal)?;
        checked.push(format!("legal agreement {}", path.display()));
    }
    if args.json {
        let value = json!({
            "valid": true, "digest": digest, "fingerprint": agreement.fingerprint(), "transcript": transcript, "checked": checked,
        });
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    for item in &checked {
        println!("valid: {item}");
    }
    for party in &transcript.parties {
        println!("signed: {} ({})", party.card.name, party.card.role);
    }
    for site in &transcript.terms.sites {
        let halves: Vec<_> =
            agreement.shares(site).iter().map(|share| share.name.to_string()).collect();
        println!("site: {} ({}), halves held by {}", site.name, site.role, list(&halves));
    }
    println!("transcript: {digest}");
    Ok(())
}

fn legal_digest(path: &Path) -> Result<Bytes32> {
    Ok(sha256(&read_bounded(path, MAX_LEGAL)?))
}

/// Refuses a document that is not the one which `what` names.
fn check_legal(path: &Path, what: &'static str, expected: Option<Bytes32>) -> Result<()> {
    let found = legal_digest(path)?;
    if expected == Some(found) {
        return Ok(());
    }
    bail!(CeremonyError::Legal { path: path.display().to_string(), what, expected, found })
}

impl Confirm {
    /// Has a human, or the command line, vouch for the author of a statement.
    fn check<S: Statement>(&self, signed: &Signed<S>) -> Result<()> {
        let (what, found) = (S::WHAT, signed.fingerprint());
        let author = signed.statement().signer().0.clone();
        println!("fingerprint of the {what} of {author}: {found}");
        if !self.expect_fingerprint.is_empty() {
            if self.expect_fingerprint.contains(&found) {
                return Ok(());
            }
            let expected =
                list(&self.expect_fingerprint.iter().map(ToString::to_string).collect::<Vec<_>>());
            bail!(CeremonyError::Fingerprint { what, author, expected, found });
        }
        if self.yes {
            return Ok(());
        }
        if std::io::stdin().is_terminal() {
            print!("Call {author}. Does {author} read the same from its screen? Type yes: ");
            std::io::stdout().flush()?;
            let mut answer = String::new();
            std::io::stdin().lock().read_line(&mut answer)?;
            if answer.trim() == "yes" {
                return Ok(());
            }
        }
        bail!(CeremonyError::Unconfirmed { what, author })
    }
}

fn statement<S: Statement>(path: &Path) -> Result<Signed<S>> {
    Signed::parse(&read_bounded(path, MAX_BYTES)?).with_context(|| path.display().to_string())
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    if path.exists() { Ok(Some(read_bounded(path, MAX_BYTES)?)) } else { Ok(None) }
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".into() } else { items.join(", ") }
}

/// The day of this machine's clock.
pub(super) fn today() -> Result<Date> {
    in_days(0)
}

fn in_days(days: u16) -> Result<Date> {
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    Ok(Date::from_unix(now + u64::from(days) * 86_400))
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
    // A name that occurs twice stays, and is refused with its reason.
    site.parties.sort();
    Ok(site)
}

fn party_file(text: &str) -> Result<(Name, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected PARTY=FILE")?;
    Ok((name.parse().map_err(|e| format!("{e}"))?, path.into()))
}
