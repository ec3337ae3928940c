//! `flare-cvm attest node`, `flare-cvm attest report`: a running CVM, challenged over the network.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::{Args, Parser};
use cvm_base::{Bytes32, printable, read_bounded, read_text, time::rfc3339};
use cvm_collateral::read_public_key;
use cvm_peer::{
    audit::{Audit, Period},
    clock,
    trust::Trust,
    verify::{Clocks, Verdict, cross_policy},
};
use cvm_verify::x509::parse_time;
use serde_json::{Value, json};

use super::{super::progress::line, input::cache};
use crate::problem::Problem;

/// More than an agreement or a policy has, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// The claims of a GPU or switch that are shown. The rest, mainly measurements, is in the JSON.
const SHOWN_OF_DEVICES: [&str; 7] = [
    "hwmodel",
    "ueid",
    "measres",
    "secboot",
    "dbgstat",
    "x-nvidia-gpu-driver-version",
    "x-nvidia-gpu-vbios-version",
];
/// The longest text of a node's that is shown, in bytes.
const MAX_SHOWN: usize = 4096;
/// Nobody waits for an auditor's clock.
const MAX_WAIT_S: u64 = 0;

/// Challenge a running CVM with a fresh nonce, and print what it proves, claim by claim.
///
/// The node's `agent.yaml` must name its `attest_port`, and its firewall must let connections in.
/// Trust comes from what the ceremony's parties signed: the agreement names the builder whose
/// images count and the parties whose key holders vouch for attestation keys. The exit status is 0
/// only if the node is in the state of its image and the policy accepts it.
#[derive(Args)]
pub struct Node {
    /// HOST or HOST:PORT; the port is 8444 where none is named
    #[arg(value_name = "HOST[:PORT]")]
    address: String,
    #[command(flatten)]
    terms: Terms,
}

/// Print a node's attestation report: who verified whom, when, and with what result.
///
/// The node is challenged as by `attest node`, and its evidence is bound to the report as well.
#[derive(Args)]
pub struct Report {
    /// HOST or HOST:PORT; the port is 8444 where none is named
    #[arg(value_name = "HOST[:PORT]")]
    address: String,
    /// From this time on: 2027-01-15T08:05:00Z
    #[arg(long, value_name = "TIME")]
    since: String,
    /// Up to this time
    #[arg(long, value_name = "TIME")]
    until: String,
    #[command(flatten)]
    terms: Terms,
}

#[derive(Args)]
struct Terms {
    /// The ceremony's agreement
    #[arg(long, value_name = "FILE")]
    agreement: PathBuf,
    /// A Rego policy in place of the built-in one
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// What vendors published about the node's processor and GPUs: a cache that `flare-cvm
    /// collateral` made or packed. Without it, GPUs are refused for lack of their manifests, and
    /// TDX for lack of Intel's collateral
    #[arg(long, value_name = "DIR", requires = "collateral_signer")]
    collateral: Option<PathBuf>,
    /// Who may have signed that cache, or one that the node shows: a public key file; give it once
    /// per signer
    #[arg(long, value_name = "FILE")]
    collateral_signer: Vec<PathBuf>,
    /// SHA-256 of a root that may endorse the node's TPM; give it once per root. By default, the
    /// roots that the parties' key holders accepted
    #[arg(long, value_name = "HEX")]
    ek_root: Vec<Bytes32>,
    /// Seconds by which the clocks may differ
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    leeway: u64,
    /// Seconds to wait for the node
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Print the verdict with all claims as one JSON object
    #[arg(long)]
    json: bool,
}

/// `flare-cvm attest HOST[:PORT] …`.
#[derive(Parser)]
#[command(name = "flare-cvm attest")]
struct Spelled {
    #[command(flatten)]
    node: Node,
}

/// Runs `attest HOST …`: a word that is not a command is a host.
pub fn spelled(arguments: &[String]) -> Result<()> {
    let program = std::iter::once("flare-cvm attest").chain(arguments.iter().map(String::as_str));
    node(&Spelled::try_parse_from(program).unwrap_or_else(|error| error.exit()).node)
}

/// Runs `attest node`.
pub fn node(args: &Node) -> Result<()> {
    let (verdict, _) = args.terms.ask(&args.address, None)?;
    if args.terms.json {
        line(&serde_json::to_string_pretty(&json!({
            "verdict": "accepted", "claims": verdict.claims, "not_checked": verdict.not_checked,
        }))?);
    } else {
        print(&args.address, &verdict);
    }
    Ok(())
}

/// Runs `attest report`.
pub fn report(args: &Report) -> Result<()> {
    let time = |option: &str, text: &String| match (clock::parse(text), parse_time(text)) {
        (Some(_), _) => Ok(text.clone()),
        // The node reads RFC 3339 alone.
        (None, Some(seconds)) => Ok(rfc3339(seconds)),
        (None, None) => Problem::result(
            "CLI-038",
            format!("{option} {text:?} is not a time"),
            "write 2027-01-15T08:05:00Z, or 2027-01-15",
        ),
    };
    let (since, until) = (time("--since", &args.since)?, time("--until", &args.until)?);
    let (verdict, report) = args.terms.ask(&args.address, Some((&since, &until)))?;
    let report = report.unwrap_or_default();
    if args.terms.json {
        line(&serde_json::to_string_pretty(
            &json!({ "verdict": "accepted", "claims": verdict.claims, "report": report }),
        )?);
        return Ok(());
    }
    print(&args.address, &verdict);
    let entries =
        report.get("entries").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for entry in entries {
        let text = |member: &str| shown(entry.get(member).and_then(Value::as_str).unwrap_or("-"));
        let why = if entry.get("code").is_some_and(Value::is_string) {
            format!(" {} {}", text("code"), text("reason"))
        } else {
            String::new()
        };
        line(&format!(
            "{} {:<9} {:<8} {}{why}",
            text("time"),
            text("direction"),
            text("result"),
            text("peer")
        ));
    }
    let more = report.get("more") == Some(&json!(true));
    line(&format!(
        "{} entries{}",
        entries.len(),
        if more { "; there are more after the last one's time" } else { "" }
    ));
    Ok(())
}

impl Terms {
    fn ask(&self, address: &str, period: Option<Period<'_>>) -> Result<(Verdict, Option<Value>)> {
        let trust = self.believe(Trust::new(&read_bounded(&self.agreement, MAX_FILE)?)?)?;
        let text = self.policy.as_deref().map(|path| read_text(path, MAX_FILE)).transpose()?;
        let policy = cross_policy(text.as_deref())?;
        let clocks = Clocks { leeway_s: self.leeway, max_wait_s: MAX_WAIT_S };
        let audit = Audit { trust: &trust, policy: &policy, clocks, now: clock::now() };
        let (verdict, report) = audit.node(address, period, Duration::from_secs(self.timeout))?;
        self.check_roots(&verdict)?;
        Ok((verdict, report))
    }

    fn believe(&self, trust: Trust) -> Result<Trust> {
        let collectors = self.collateral_signer.iter().map(|path| read_public_key(path));
        let collectors = collectors.collect::<Result<Vec<_>, _>>()?;
        let mut vendors = trust.vendors()?.clone();
        if let Some(path) = &self.collateral {
            vendors = vendors.with_collateral(cache(path, &collectors)?);
        }
        Ok(trust.with_vendors(vendors.with_collectors(collectors)))
    }

    fn check_roots(&self, verdict: &Verdict) -> Result<()> {
        let endorsements = claims(verdict).get("endorsements").and_then(Value::as_array);
        let mut roots =
            endorsements.into_iter().flatten().filter_map(|e| e.get("ek_root_sha256")?.as_str());
        if self.ek_root.is_empty()
            || roots.any(|root| self.ek_root.iter().any(|named| named.to_string() == root))
        {
            return Ok(());
        }
        Problem::result(
            "CLI-039",
            format!(
                "{}: no certificate of its attestation key names one of the roots given",
                verdict.site
            ),
            "see `endorsements` in the claims (--json without --ek-root) for the roots that there \
             are",
        )
    }
}

/// The claims of the node's own evidence.
fn claims(verdict: &Verdict) -> &Value {
    let kind = verdict.claims.get("kind").and_then(Value::as_str).unwrap_or_default();
    let evidence = verdict.claims.pointer("/submods/cpu0/ear.veraison.annotated-evidence");
    evidence.and_then(|evidence| evidence.get(kind)).unwrap_or(&Value::Null)
}

/// The claims of the node's GPUs and switches.
fn devices(verdict: &Verdict) -> impl Iterator<Item = (&String, &Value)> {
    let submods = verdict.claims.get("submods").and_then(Value::as_object).into_iter().flatten();
    submods.filter_map(|(name, of)| {
        Some((name, of.pointer("/ear.veraison.annotated-evidence/nvidia")?))
    })
}

fn print(address: &str, verdict: &Verdict) {
    line(&format!("{address}: {} proves to be what was built", verdict.site));
    let show = |name: &str, value: &Value| match value {
        Value::String(text) => line(&format!("  {name:<24} {}", shown(text))),
        other => line(&format!("  {name:<24} {other}")),
    };
    for (name, value) in
        verdict.claims.as_object().into_iter().flatten().filter(|(name, _)| *name != "submods")
    {
        show(name, value);
    }
    for (name, value) in claims(verdict).as_object().into_iter().flatten() {
        // `pcrs` repeats registers by their number.
        if name != "pcrs" && name != "not_checked" {
            show(name, value);
        }
    }
    for (name, gpu) in devices(verdict) {
        line(&format!("  {name}"));
        for member in SHOWN_OF_DEVICES {
            if let Some(value) = gpu.get(member) {
                show(&format!("  {member}"), value);
            }
        }
    }
    for check in &verdict.not_checked {
        line(&format!("  not checked: {}", shown(check)));
    }
}

/// A node's text as it is shown: a stranger may have written it.
fn shown(text: &str) -> String {
    printable(text, MAX_SHOWN)
}
