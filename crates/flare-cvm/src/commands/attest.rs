//! `flare-cvm attest`: evidence, checked offline.

mod node;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use cvm_attest::{
    Reference,
    appraise::{Appraisal, EvidenceSet, Refusal, Rules, Terms},
    collateral::{Cache, read_public_key, wanted},
    eventlog::first_difference,
    files::Form,
    gpu::{ClaimSet, GpuClaims, ResultPolicy},
    policy::Policy,
    x509::parse_time,
};
use cvm_base::read_bounded;
use serde_json::{Value, json};

use super::{problem::Problem, progress::line};

/// More than any piece of evidence or collateral, in bytes.
const MAX_FILE: u64 = cvm_attest::files::MAX_FILE_BYTES as u64;

/// Check what a confidential machine proves about itself.
#[derive(Subcommand)]
pub enum Attest {
    Verify(Verify),
    Node(node::Node),
    Report(node::Report),
    /// A host: `attest HOST[:PORT]` is `attest node HOST[:PORT]`
    #[command(external_subcommand)]
    Host(Vec<String>),
}

/// Verify evidence offline: SEV-SNP, TDX, Azure, TPM, NVIDIA GPUs, and other verifiers' tokens.
///
/// Give the files of one machine's evidence in any order, or a folder for each device: what a file is, is told
/// by its content. Vendors' roots are built in; certificates, DCAP collateral, reference manifests and revocation
/// lists lie beside the evidence or in a collateral folder. Nothing is fetched.
///
/// Ends with 0 only if everything was genuine and accepted. What could not be checked is listed; a Rego policy
/// refuses it unless it accepts it by name.
#[derive(Args)]
pub struct Verify {
    /// Evidence and what vouches for it; a folder's files belong together
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the evidence must answer: hex, or a text's own bytes
    #[arg(long, value_name = "NONCE")]
    nonce: Option<String>,
    /// Certificates (PEM or DER) to trust instead of the vendors' own
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
    /// A cache that `flare-cvm collateral` made, or a folder of loose files
    #[arg(long, value_name = "DIR")]
    collateral: Option<PathBuf>,
    /// Who may have signed that cache: a public key file; give it once per signer
    #[arg(long, value_name = "FILE")]
    collateral_signer: Vec<PathBuf>,
    /// The time at which all must be valid: 2025-12-10T00:00:00Z, or seconds since 1970; by default now
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// A policy: Rego; NVIDIA's result policy; or JSON with rules for snp, tdx, gpu. Give it once per policy
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// Reference values: what a Rego policy sees as data.reference
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// Whose tokens are believed (their `iss`)
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Whom tokens must be meant for (their `aud`)
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// With --reference of a bundle: name the first measurement at which a register differs
    #[arg(long, requires = "reference")]
    explain: bool,
    /// Print the verdict with all claims as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs one of the commands.
pub fn run(command: Attest) -> Result<()> {
    match command {
        Attest::Verify(args) => verify(&args),
        Attest::Node(args) => node::node(&args),
        Attest::Report(args) => node::report(&args),
        Attest::Host(arguments) => node::spelled(&arguments),
    }
}

fn verify(args: &Verify) -> Result<()> {
    let now = match &args.at {
        None => SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_secs(),
        Some(text) => match parse_time(text) {
            Some(seconds) => seconds,
            None => {
                return Problem::result(
                    "CLI-020",
                    format!("{text:?} is no time"),
                    "write 2025-12-10T00:00:00Z, or seconds since 1970",
                );
            }
        },
    };
    let policies = Policies::read(&args.policy)?;
    let reference: Value = match &args.reference {
        Some(path) => serde_json::from_slice(&read_bounded(path, MAX_FILE)?)
            .with_context(|| format!("{} is no JSON", path.display()))?,
        None => json!({}),
    };
    let terms = Terms {
        nonce: args.nonce.clone(),
        roots: args.roots.as_deref().map(|path| read_bounded(path, MAX_FILE)).transpose()?,
        issuer: args.issuer.clone(),
        audience: args.audience.clone(),
        rules: policies.rules.clone(),
        now,
    };
    let mut set = EvidenceSet::default();
    let mut refused = Vec::new();
    for path in &args.files {
        add(&mut set, &mut refused, path, path.is_dir())?;
    }
    if let Some(folder) = &args.collateral {
        collateral(&mut set, &mut refused, folder, &args.collateral_signer, now)?;
    }
    let mut appraisal = set.verify(&terms);
    appraisal.refusals.splice(0..0, refused);
    policies.judge(&mut appraisal, &reference)?;
    let explained = if args.explain { explain(&appraisal, args.reference.as_deref())? } else { vec![] };
    if args.json {
        let mut verdict = appraisal.to_json(now);
        if args.explain {
            verdict["explained"] = json!(explained);
        }
        line(&serde_json::to_string_pretty(&verdict)?);
    } else {
        print(&appraisal, &explained);
    }
    if appraisal.accepted() {
        return Ok(());
    }
    let count = appraisal.refusals.len();
    Problem::result(
        "ATT-362",
        format!("the evidence is refused ({count} reason{})", if count == 1 { "" } else { "s" }),
        "each reason stands above with its code and its cure",
    )
}

/// Adds a file, or a folder's files as one group.
fn add(set: &mut EvidenceSet, refused: &mut Vec<Refusal>, path: &Path, folder: bool) -> Result<()> {
    if !folder {
        refused.extend(set.add("", &path.display().to_string(), read_bounded(path, MAX_FILE)?).err());
        return Ok(());
    }
    let group = path.display().to_string();
    for file in files_of(path)? {
        let name = file.strip_prefix(path).unwrap_or(&file).display().to_string();
        // A folder may hold notes and signatures besides evidence.
        let _ = set.add(&group, &name, read_bounded(&file, MAX_FILE)?);
    }
    Ok(())
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut files: Vec<_> = entries.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

/// Takes what the evidence needs out of a signed cache, or everything out of a plain folder.
fn collateral(
    set: &mut EvidenceSet,
    refused: &mut Vec<Refusal>,
    folder: &Path,
    signers: &[PathBuf],
    now: u64,
) -> Result<()> {
    if !folder.join("index.json").is_file() {
        for file in files_of(folder)? {
            let _ = set.add("", &file.display().to_string(), read_bounded(&file, MAX_FILE)?);
        }
        return Ok(());
    }
    let trusted = signers.iter().map(|path| read_public_key(path)).collect::<Result<Vec<_>, _>>()?;
    if trusted.is_empty() {
        return Problem::result(
            "CLI-021",
            format!("{} is a signed cache, and nobody says whose signature counts", folder.display()),
            "name the collector's public key with --collateral-signer (flare-cvm collateral show prints the signer)",
        );
    }
    let cache = Cache::open(folder, &trusted)?;
    let mut keys = Vec::new();
    for report in set.all(Form::SnpReport) {
        keys.extend(wanted::by_snp_report(report, None).unwrap_or_default());
    }
    for quote in set.all(Form::TdxQuote).chain(set.all(Form::SgxQuote)) {
        keys.extend(wanted::by_quote(quote).unwrap_or_default());
    }
    let found: Vec<_> =
        keys.iter().filter_map(|key| Some((key.name(), cache.find(key, now).ok()?.bytes.to_vec()))).collect();
    for (name, bytes) in found {
        refused.extend(set.add("", &name, bytes).err());
    }
    // Manifests are told apart by the reports themselves.
    for entry in cache.entries() {
        if let Ok(found) = cache.find(&entry.key, now)
            && Form::of(found.bytes) == Some(Form::Rim)
        {
            refused.extend(set.add("", &entry.key.name(), found.bytes.to_vec()).err());
        }
    }
    Ok(())
}

/// The policies of the command line, read before any evidence is.
#[derive(Default)]
struct Policies {
    rules: Rules,
    rego: Vec<Policy>,
    nvidia: Vec<(String, ResultPolicy)>,
}

impl Policies {
    fn read(paths: &[PathBuf]) -> Result<Self> {
        let mut policies = Self::default();
        for path in paths {
            let (name, bytes) = (path.display().to_string(), read_bounded(path, MAX_FILE)?);
            match serde_json::from_slice::<Value>(&bytes) {
                Err(_) => policies.rego.push(Policy::compile(&name, &bytes)?),
                Ok(json) if json.get("authorization-rules").is_some() => {
                    policies.nvidia.push((name, ResultPolicy::parse(&bytes)?));
                }
                Ok(json) => {
                    policies.rules = serde_json::from_value(json)
                        .with_context(|| format!("{name}: expected rules for snp, tdx and gpu"))?;
                }
            }
        }
        Ok(policies)
    }

    /// Lets every policy judge; each refusal names its policy.
    fn judge(&self, appraisal: &mut Appraisal, reference: &Value) -> Result<()> {
        let gpus: Vec<GpuClaims> = appraisal
            .claims()
            .filter(|(_, kind, _)| *kind == "nvidia")
            .filter_map(|(_, _, claims)| serde_json::from_value(claims.clone()).ok())
            .collect();
        for (name, policy) in &self.nvidia {
            let set = ClaimSet::of_gpus(&gpus, policy.version());
            for mismatch in policy.evaluate_set(&set).err().unwrap_or_default() {
                let help = "see NVIDIA's result policy; a claim that was not checked is never true";
                appraisal.refusals.push(Refusal::policy(name, "ATT-363", mismatch.to_string(), help));
            }
        }
        for policy in &self.rego {
            let decision = policy.decide(&appraisal.input(), &json!({ "reference": reference }))?;
            if decision.allowed {
                continue;
            }
            let reasons =
                if decision.reasons.is_empty() { vec!["its rule allow is not true".into()] } else { decision.reasons };
            for reason in reasons {
                let help =
                    "compare the claims (--json) with the policy's rules, or the reference values with the machine";
                appraisal.refusals.push(Refusal::policy(policy.name(), "ATT-364", reason, help));
            }
        }
        Ok(())
    }
}

/// Each register that differs from a bundle's reference values, and the first measurement at which it does.
fn explain(appraisal: &Appraisal, reference: Option<&Path>) -> Result<Vec<String>> {
    let Some(path) = reference else { return Ok(vec![]) };
    let reference = Reference::parse(&read_bounded(path, MAX_FILE)?)
        .with_context(|| format!("--explain needs a bundle's reference.json, and {} is none", path.display()))?;
    let mut lines = Vec::new();
    for (name, _, claims) in appraisal.claims() {
        let Some(claims) = claims.get("tpm").or(Some(claims)).filter(|claims| claims.get("pcrs").is_some()) else {
            continue;
        };
        for (pcr, expected) in &reference.tpm.pcrs {
            let found = claims["pcrs"][pcr.to_string()].as_str().unwrap_or("not quoted");
            if found == expected.to_string() {
                continue;
            }
            let events = claims["event_log"].as_array().map(Vec::as_slice).unwrap_or_default();
            let measured: Vec<(String, String)> = events
                .iter()
                .filter(|event| event["register"].as_u64().or(event["pcr"].as_u64()) == Some(u64::from(*pcr)))
                .map(|event| {
                    let text =
                        ["text", "event", "unproven_text", "type"].iter().find_map(|member| event[*member].as_str());
                    (text.unwrap_or_default().to_owned(), event["digest"].as_str().unwrap_or_default().to_owned())
                })
                .collect();
            let predicted: Vec<(String, String)> = reference
                .tpm
                .explain
                .iter()
                .filter(|event| event.pcr == *pcr)
                .map(|event| (event.event.clone(), event.digest.to_string()))
                .collect();
            let pairs =
                |list: &'_ [(String, String)]| list.iter().map(|(n, d)| (n.clone(), d.clone())).collect::<Vec<_>>();
            let (predicted, measured) = (pairs(&predicted), pairs(&measured));
            let difference = first_difference(
                predicted.iter().map(|(name, digest)| (name.as_str(), digest.clone())),
                measured.iter().map(|(name, digest)| (name.as_str(), digest.clone())),
            );
            let why = match difference {
                Some(difference) => format!("{difference}; {}", cause(*pcr)),
                None => "no logged measurement explains it".to_owned(),
            };
            lines.push(format!("{name} PCR {pcr}: {why}"));
        }
    }
    Ok(lines)
}

/// What changes a register, in an operator's words.
fn cause(pcr: u8) -> &'static str {
    match pcr {
        4 => "probably another boot loader or UKI than the bundle's, or another boot device before it",
        7 => "probably other Secure Boot keys or variables than the bundle's OVMF_VARS.fd",
        9 | 11 => "probably another kernel, initramfs or command line: the UKI is not the bundle's",
        12 | 13 => "probably a credential or an extension was slipped in beside the UKI",
        _ => "the firmware is another one than predicted",
    }
}

fn print(appraisal: &Appraisal, explained: &[String]) {
    for (name, kind, claims) in appraisal.claims() {
        let shown = ["measurement", "tcb_status", "product", "report_data", "measres", "hwmodel", "ueid"];
        let facts: Vec<_> = shown.iter().filter_map(|m| Some(format!("{m}={}", claims.get(*m)?.as_str()?))).collect();
        line(&format!("{name}: {kind}, genuine{}{}", if facts.is_empty() { "" } else { ": " }, facts.join(" ")));
    }
    for (of, check, reason) in appraisal.not_checked() {
        line(&format!("{of}: not checked: {check}: {reason}"));
    }
    for text in explained {
        line(&format!("explained: {text}"));
    }
    for refusal in &appraisal.refusals {
        line(&format!("refused[{}]: {}: {}", refusal.code, refusal.of, refusal.reason));
        line(&format!("  help: {}", refusal.help));
    }
    line(if appraisal.accepted() { "verdict: accepted" } else { "verdict: refused" });
}
