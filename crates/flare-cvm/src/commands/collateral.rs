//! `flare-cvm collateral`: what vendors publish about evidence, collected once and carried along.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use cvm_base::{Bytes, read_bounded, read_text, time::now, write_atomic};
use cvm_collateral::{
    Cache, CacheError, IndexEntry, Item, Key, Product, Writer, content, open_or_create_key,
    public_path, read_public_key, wanted,
};
use cvm_fetch::{Bases, Fetcher, Limits, Network, Outcome, Progress as Event, Proxy, SystemClock};
use cvm_layout::p1::MAX_COLLATERAL_BYTES;
use ed25519_dalek::VerifyingKey;
use serde_json::{Value, json};

use super::progress::{Progress, line};
use crate::problem::Problem;

/// More than any piece of evidence or collateral has.
const MAX_FILE: u64 = 8 * 1024 * 1024;
/// What is valid for this long is not asked for again, in seconds.
const FRESH: u64 = 7 * 86_400;

/// Collect what vendors publish about a machine, to verify evidence without them.
///
/// Verification needs more than evidence: the chip's certificate from AMD, TCB levels from
/// Intel, reference manifests from NVIDIA, and all their revocation lists. Their services limit
/// and fail, and a boot must not depend on them. So collect once, where there is a network, and
/// give the folder to whoever verifies:
///
///   flare-cvm collateral fetch  --cache C --key my.key --snp-report report.bin
///   flare-cvm collateral fetch  --cache C --key my.key --tdx-quote quote.bin
///   flare-cvm collateral fetch  --cache C --key my.key --rim NV_GPU_DRIVER_GH100_550.90.07
///   flare-cvm collateral import --cache C --key my.key vcek.der       (what came with evidence)
///   flare-cvm collateral show   --cache C --signer my.key.pub         (what is there)
///   flare-cvm collateral pack   --cache C --signer my.key.pub -o collateral.json
///
/// Every piece is signed by its vendor, and verified each time that it is used. The folder's
/// index is signed by you, the collector, so that nobody can take pieces away, add older ones or
/// change dates unnoticed. A piece past its date is refused: fetch again in time (Intel's and
/// AMD's lists last some weeks).
#[derive(Subcommand)]
#[command(verbatim_doc_comment)]
pub enum Collateral {
    // The help of each is the documentation of its arguments.
    Fetch(Box<Fetch>),
    Import(Import),
    Show(Show),
    Pack(Pack),
}

/// The folder and who signs it.
#[derive(Args)]
pub struct CacheArgs {
    /// The folder; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,
    /// The collector's key: 64 hex digits. It is made if it is not there, and its public half
    /// beside it as FILE.pub
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Another collector's public key: what they collected into this folder is kept; give it once
    /// per collector
    #[arg(long = "signer", value_name = "FILE")]
    signers: Vec<PathBuf>,
    /// For scripts: one JSON object at the end instead of progress
    #[arg(long)]
    json: bool,
}

/// Ask AMD, Intel and NVIDIA for what evidence needs.
///
/// Evidence tells what it needs: a report names its chip and TCB, a quote its platform. What is in
/// the folder and valid for another week is not asked for again, except with --refresh. AMD answers
/// one request in ten seconds: three of them take half a minute. If a service is down, what came is
/// kept, what is missing is named, and the exit status is 1: run the same command again.
#[derive(Args)]
pub struct Fetch {
    #[command(flatten)]
    cache: CacheArgs,
    /// A SEV-SNP report (1184 bytes); give it once per machine
    #[arg(long = "snp-report", value_name = "FILE")]
    snp_reports: Vec<PathBuf>,
    /// Milan, Genoa or Turin: for reports of version 2, which do not say it (Siena is Genoa)
    #[arg(long, value_name = "NAME", value_parser = product)]
    product: Option<Product>,
    /// A TDX or SGX quote; give it once per platform
    #[arg(long = "tdx-quote", value_name = "FILE")]
    tdx_quotes: Vec<PathBuf>,
    /// An NVIDIA manifest's name, such as NV_GPU_DRIVER_GH100_550.90.07
    #[arg(long = "rim", value_name = "ID")]
    rims: Vec<String>,
    /// Anything else by its name in `show`, as "amd-crl vlek/Genoa" or "dcap
    /// tdx/50806f000000/platform"
    #[arg(long = "item", value_name = "KIND NAME")]
    items: Vec<String>,
    /// Ask also for what is there and valid
    #[arg(long)]
    refresh: bool,
    /// The most that all of it may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// A mirror of AMD's key distribution service [default: https://kdsintf.amd.com]
    #[arg(long, value_name = "URL")]
    amd_kds: Option<String>,
    /// A mirror of Intel's certification service (a PCCS) [default:
    /// https://api.trustedservices.intel.com]
    #[arg(long, value_name = "URL")]
    intel_pcs: Option<String>,
    /// A mirror of Intel's root certificate's list [default:
    /// https://certificates.trustedservices.intel.com]
    #[arg(long, value_name = "URL")]
    intel_root: Option<String>,
    /// A mirror of NVIDIA's manifests [default: https://rim.attestation.nvidia.com]
    #[arg(long, value_name = "URL")]
    nvidia_rim: Option<String>,
    /// A proxy, as http://HOST:PORT [default: HTTPS_PROXY of the environment]
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// PEM: who signs the servers' certificates, instead of the public authorities (for mirrors)
    #[arg(long, value_name = "FILE")]
    authorities: Option<PathBuf>,
}

/// Take files, or another collector's folder, into the folder.
///
/// For what no service hands out (a cloud provider's VLEK comes with the evidence), and for
/// machines without a network. Each file is recognised by its content: VCEK or VLEK (DER), AMD's
/// chain (PEM), AMD's list (DER), DCAP collateral (the JSON of dcap-qvl), or NAME=FILE for an
/// NVIDIA manifest, which does not say its own name. A folder with an index.json is another
/// collector's; its --signer must be given.
#[derive(Args)]
pub struct Import {
    #[command(flatten)]
    cache: CacheArgs,
    /// Files, NAME=FILE, or folders
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
}

/// List what a folder holds, and until when it is valid; check all of it.
///
/// The exit status is 1 when something has expired, or expires within --margin.
#[derive(Args)]
pub struct Show {
    /// The folder
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,
    /// The collector's public key (FILE.pub); give it once per collector who is trusted
    #[arg(long = "signer", value_name = "FILE", required = true)]
    signers: Vec<PathBuf>,
    /// The time to judge by, in seconds since 1970 UTC [default: now]
    #[arg(long, value_name = "SECONDS")]
    at: Option<u64>,
    /// Count as expired what ends within this many days
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    margin: u64,
    /// For scripts
    #[arg(long)]
    json: bool,
}

/// Write a folder into one file, which travels in a machine's evidence.
///
/// Put it on the machine's p1 as flare-cvm/collateral.json: cvm-init sends it along with the TEE's
/// evidence, and each key holder that trusts the collector (collateral.pub beside its policy) finds
/// there what it has not collected itself. Nobody needs to trust the site: a changed file has no
/// valid signature of a collector.
#[derive(Args)]
pub struct Pack {
    /// The folder: one machine's
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,
    /// The collector's public key (FILE.pub); give it once per collector who is trusted
    #[arg(long = "signer", value_name = "FILE", required = true)]
    signers: Vec<PathBuf>,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// For scripts
    #[arg(long)]
    json: bool,
}

/// Runs one of the commands.
pub fn run(command: Collateral) -> Result<()> {
    match command {
        Collateral::Fetch(args) => fetch(&args),
        Collateral::Import(args) => import(&args),
        Collateral::Show(args) => show(&args),
        Collateral::Pack(args) => pack(&args),
    }
}

fn fetch(args: &Fetch) -> Result<()> {
    let mut progress = Progress::new(args.cache.json);
    let keys = keys(args)?;
    if keys.is_empty() {
        return Problem::result(
            "CLI-036",
            "nothing to fetch was named",
            "give --snp-report, --tdx-quote, --rim or --item; `flare-cvm collateral fetch --help` \
             explains each",
        );
    }
    let mut writer = args.cache.open(&mut progress)?;
    let now = now();
    let held = |key: &Key| {
        writer.entries().any(|entry| entry.key == *key && entry.valid_until > now + FRESH)
    };
    let (held, wanted): (Vec<Key>, Vec<Key>) =
        keys.into_iter().partition(|key| !args.refresh && held(key));
    for key in &held {
        progress.step(&format!("{key} is there"));
    }

    let limits = Limits { total: Duration::from_secs(args.timeout), ..Limits::default() };
    let fetcher = Fetcher::new(bases(args), &network(args)?, limits, SystemClock::default())?;
    let outcome = {
        let progress = RefCell::new(&mut progress);
        let mut watch = |event: &Event<'_>| progress.borrow_mut().step(&event.to_string());
        let mut keep = |item: Item| -> Result<()> {
            writer.put(&item)?;
            progress.borrow_mut().step(&format!("{} is in the folder", item.key));
            Ok(())
        };
        fetcher.fetch(&wanted, &mut watch, &mut keep)?
    };
    report(args, &mut progress, &writer, &outcome, &held);
    match outcome.failed.into_iter().next() {
        None => Ok(()),
        Some((key, error)) => Err(anyhow::Error::new(error).context(format!("{key} is missing"))),
    }
}

/// Says what came, what was there, and what is missing.
fn report(args: &Fetch, progress: &mut Progress, writer: &Writer, outcome: &Outcome, held: &[Key]) {
    let now = now();
    let expired: Vec<&IndexEntry> = writer
        .entries()
        .filter(|entry| outcome.fetched.contains(&entry.key) && entry.valid_until < now)
        .collect();
    for entry in &expired {
        progress.step(&format!("warning: {} had already expired when it came", entry.key));
    }
    for (key, error) in &outcome.failed {
        progress.step(&format!("missing: {key}: {error}"));
    }
    let names = |keys: &[Key]| keys.iter().map(Key::to_string).collect::<Vec<_>>();
    let failed: Vec<Value> = outcome
        .failed
        .iter()
        .map(|(key, error)| json!({ "item": key.to_string(), "error": error.to_string() }))
        .collect();
    let (fetched, there, missing) = (outcome.fetched.len(), held.len(), failed.len());
    progress.done(
        &format!("{fetched} fetched, {there} there before, {missing} missing"),
        &json!({
            "cache": args.cache.cache,
            "fetched": names(&outcome.fetched),
            "held": names(held),
            "missing": failed,
            "expired": expired.iter().map(|entry| entry.key.to_string()).collect::<Vec<_>>(),
        }),
    );
}

/// What was asked for, by evidence or by name.
fn keys(args: &Fetch) -> Result<Vec<Key>> {
    let mut keys = Vec::new();
    for path in &args.snp_reports {
        let found = wanted::by_snp_report(&read_bounded(path, MAX_FILE)?, args.product);
        keys.extend(found.with_context(|| path.display().to_string())?);
    }
    for path in &args.tdx_quotes {
        let found = wanted::by_quote(&read_bounded(path, MAX_FILE)?);
        keys.extend(found.with_context(|| path.display().to_string())?);
    }
    for id in &args.rims {
        keys.push(Key::parse("rim", id)?);
    }
    for item in &args.items {
        let (kind, name) = item.split_once(' ').unwrap_or((item, ""));
        keys.push(Key::parse(kind, name)?);
    }
    keys.sort();
    keys.dedup();
    Ok(keys)
}

fn bases(args: &Fetch) -> Bases {
    let or = |mirror: &Option<String>, own: String| mirror.clone().unwrap_or(own);
    let own = Bases::default();
    Bases {
        amd_kds: or(&args.amd_kds, own.amd_kds),
        intel_pcs: or(&args.intel_pcs, own.intel_pcs),
        intel_root: or(&args.intel_root, own.intel_root),
        nvidia_rim: or(&args.nvidia_rim, own.nvidia_rim),
    }
}

fn network(args: &Fetch) -> Result<Network> {
    let authorities =
        args.authorities.as_ref().map(|path| read_text(path, MAX_FILE)).transpose()?;
    Ok(Network { proxy: args.proxy.clone().map_or(Proxy::Environment, Proxy::Url), authorities })
}

fn import(args: &Import) -> Result<()> {
    let mut progress = Progress::new(args.cache.json);
    let mut writer = args.cache.open(&mut progress)?;
    let (mut filed, mut older) = (Vec::new(), Vec::new());
    for file in &args.files {
        // A path may hold a `=` itself: a file that exists is not NAME=FILE.
        let (name, path) = match file.split_once('=') {
            Some((name, path)) if !Path::new(file).exists() => (Some(name), PathBuf::from(path)),
            _ => (None, PathBuf::from(file)),
        };
        if path.join("index.json").is_file() {
            let mut trusted = public_keys(&args.cache.signers)?;
            trusted.push(open_or_create_key(&args.cache.key)?.0.verifying_key());
            let count = writer.merge(Cache::open(&path, &trusted)?)?;
            progress.step(&format!("{count} pieces of {} are in the folder", path.display()));
            filed.push(path.display().to_string());
            continue;
        }
        let (key, bytes) = match name {
            Some(name) => (Key::parse("rim", name)?, read_bounded(&path, MAX_FILE)?),
            None => content::identify(&read_text(&path, MAX_FILE)?)
                .with_context(|| path.display().to_string())?,
        };
        let source = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let item = Item { key, bytes, source, fetched_at: now() };
        if writer.put(&item).with_context(|| path.display().to_string())? {
            progress.step(&format!("{} is in the folder", item.key));
            filed.push(item.key.to_string());
        } else {
            progress.step(&format!("{}: a newer one is there", item.key));
            older.push(item.key.to_string());
        }
    }
    progress.done(
        &format!("{} imported, {} older than what was there", filed.len(), older.len()),
        &json!({ "cache": args.cache.cache, "imported": filed, "older": older }),
    );
    Ok(())
}

fn show(args: &Show) -> Result<()> {
    let cache = Cache::open(&args.cache, &public_keys(&args.signers)?)?;
    let at = args.at.unwrap_or_else(now);
    let limit = at.saturating_add(args.margin.saturating_mul(86_400));
    let mut expired = 0;
    let mut list = Vec::new();
    for entry in cache.entries() {
        let left = entry.valid_until.cast_signed().saturating_sub(at.cast_signed());
        let over = entry.valid_until < limit;
        expired += usize::from(over);
        if args.json {
            list.push(json!({
                "kind": entry.key.kind(), "name": entry.key.name(),
                "sha256": entry.sha256.to_string(), "source": entry.source,
                "fetched_at": entry.fetched_at, "valid_until": entry.valid_until,
                "expired": over,
            }));
        } else {
            let state = if left < 0 {
                "EXPIRED"
            } else if over {
                "soon"
            } else {
                "valid"
            };
            line(&format!("{state:8} {:>6} days  {}", left / 86_400, entry.key));
        }
    }
    let signer = Bytes(cache.signer().to_bytes());
    if args.json {
        line(&json!({ "signer": signer, "entries": list, "expired": expired }).to_string());
    } else {
        let count = cache.entries().count();
        line(&format!(
            "{count} pieces, collected by {signer}; all digests and the signature are good"
        ));
    }
    if expired > 0 {
        return Problem::result(
            "CLI-037",
            format!("{expired} of them have expired, or will within the margin"),
            "run `flare-cvm collateral fetch` with the same evidence again",
        );
    }
    Ok(())
}

fn pack(args: &Pack) -> Result<()> {
    let cache = Cache::open(&args.cache, &public_keys(&args.signers)?)?;
    let packed = cache.pack();
    if packed.len() as u64 > MAX_COLLATERAL_BYTES {
        return Problem::result(
            "CLI-035",
            format!(
                "packed it has {} bytes, and evidence carries at most {MAX_COLLATERAL_BYTES}",
                packed.len()
            ),
            "collect this machine's collateral into a folder of its own (fetch --snp-report or \
             --tdx-quote)",
        );
    }
    write_atomic(&args.output, &packed, 0o644)?;
    let count = cache.entries().count();
    Progress::new(args.json).done(
        &format!("{}: {count} pieces, {} bytes", args.output.display(), packed.len()),
        &json!({ "output": args.output, "pieces": count, "bytes": packed.len() }),
    );
    Ok(())
}

impl CacheArgs {
    fn open(&self, progress: &mut Progress) -> Result<Writer> {
        let (key, made) = open_or_create_key(&self.key)?;
        if made {
            let public = public_path(&self.key);
            progress.step(&format!(
                "made the collector's key {}; verifiers need {}",
                self.key.display(),
                public.display()
            ));
        }
        Ok(Writer::open(&self.cache, key, &public_keys(&self.signers)?)?)
    }
}

fn public_keys(paths: &[PathBuf]) -> Result<Vec<VerifyingKey>, CacheError> {
    paths.iter().map(|path| read_public_key(path)).collect()
}

fn product(name: &str) -> Result<Product, String> {
    let capital =
        name.chars().enumerate().map(|(at, c)| if at == 0 { c.to_ascii_uppercase() } else { c });
    Product::from_name(&capital.collect::<String>()).ok_or("expected Milan, Genoa or Turin".into())
}
