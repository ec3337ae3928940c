//! What a ceremony's files say, and whether they belong together.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use cvm_base::{read_bounded, sha256};
use cvm_ceremony::{
    Agreement, Artifact, Builder, CeremonyError, Contribution, Described, Fingerprint, MAX_BYTES,
};
use cvm_custody::CustodyError;
use cvm_layout::names::Name;
use serde_json::json;

use super::files::{MAX_POLICY, check_legal, list, statement};

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

pub(super) fn show(args: &Show) -> Result<()> {
    let bytes = read_bounded(&args.file, MAX_BYTES)?;
    let described = Described::parse(&bytes)?;
    let fingerprint = Fingerprint::of(&described.digest);
    if args.json {
        let mut value = serde_json::to_value(&described)?;
        value["fingerprint"] = json!(fingerprint);
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    // The file describes itself best, and its parser lets only printable ASCII through.
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

pub(super) fn verify(args: Verify) -> Result<()> {
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
            "valid": true, "digest": digest, "fingerprint": agreement.fingerprint(),
            "transcript": transcript, "checked": checked,
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

fn party_file(text: &str) -> Result<(Name, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected PARTY=FILE")?;
    Ok((name.parse().map_err(|e| format!("{e}"))?, path.into()))
}
