//! `flare-cvm attest verify`: from files to a printed verdict.

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use clap::Args;
use cvm_base::{read_bounded, read_text, unmarked, write_atomic};
use cvm_evidence::{Reference, ReferenceSet};
use cvm_verify::{
    appraise::{
        Appraisal, Enclosed, EvidenceSet, Explanation, Terms, compare, explain, note_unjudged_tcb,
    },
    token::{EarKey, Registered, VerifierId},
    x509::parse_time,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{super::progress::line, input::Input, limits::MAX_FILE, policies::Policies};
use crate::problem::Problem;

/// More than any private key in PEM, in bytes.
const MAX_KEY: u64 = 16 * 1024;
/// Seconds for which a signed verdict is valid.
const EAR_LIFETIME: u64 = 3600;

/// Verify evidence offline: SEV-SNP, TDX, Azure, TPM, NVIDIA GPUs, and other verifiers' tokens.
///
/// Give the files of one machine's evidence in any order, or one folder per device: each file is
/// recognised by its content. Vendors' roots are built in; certificates, DCAP collateral, reference
/// manifests and revocation lists are taken from the evidence or from a collateral folder. Nothing
/// is fetched.
///
/// The exit status is 0 only if everything was genuine and accepted. What could not be checked is
/// listed; a Rego policy refuses each such check unless it accepts it by name. A file that cannot
/// be read as anything is refused, also in a folder or a JSON member, unless a policy's rules
/// accept it by name ({"accept_unread": ["snp.bin", "evidence.json: sgx"]}).
///
/// What evidence is judged by must not come with the evidence. A nonce, a token's keys and its
/// issuer count only if they are given here; if they are only among the evidence, they are refused.
/// The three flags --…-from-evidence believe them nevertheless, and the verdict says so. Without a
/// nonce the verdict lists it as not checked, and several pieces of evidence are refused: they may
/// be of several machines, or of several days.
///
/// A signed result (--ear) is a JWT that says of each attester affirming, warning (checks were left
/// out) or contraindicated, with all claims, for an hour. Its key, and the public half for those
/// who check it:
///
///   openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ear.key
///   openssl pkey -in ear.key -pubout -out ear.pub
///   flare-cvm attest verify report.bin vcek.der --ear ear.key -o verdict.jwt
///   flare-cvm attest verify verdict.jwt --jwks ear.pub --issuer flare-cvm
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Verify {
    /// Evidence and what vouches for it; a folder's files belong together, and - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What all of the evidence must answer: hex, or a text's own bytes
    #[arg(long, value_name = "NONCE")]
    nonce: Option<String>,
    /// Believe the nonce among the evidence: the evidence may then be of any day
    #[arg(long, conflicts_with = "nonce")]
    nonce_from_evidence: bool,
    /// Certificates (PEM or DER) to trust instead of the vendors' own
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
    /// A cache that `flare-cvm collateral` made or packed, or a folder of loose files: what vendors
    /// sign, nothing else
    #[arg(long, value_name = "DIR")]
    collateral: Option<PathBuf>,
    /// Who may have signed that cache, or one among the evidence: a public key file; give it once
    /// per signer
    #[arg(long, value_name = "FILE")]
    collateral_signer: Vec<PathBuf>,
    /// The time at which all must be valid: 2025-12-10T00:00:00Z, 2025-12-10, or seconds since
    /// 1970; by default now
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// A policy: Rego; NVIDIA's result policy; or JSON with rules for snp, tdx, sgx, tpm, gpu. Give
    /// it once per policy
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// Reference values: what a Rego policy sees as data.reference. Without such a policy, a
    /// difference is refused
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// The keys of a token's issuer: a JWKS, or a PEM public key; give it once per file
    #[arg(long, value_name = "FILE")]
    jwks: Vec<PathBuf>,
    /// Believe the keys among the evidence: anybody may then have signed the token
    #[arg(long, conflicts_with = "jwks")]
    jwks_from_evidence: bool,
    /// Whose tokens are believed (their `iss`)
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Believe the issuer that a token names
    #[arg(long, conflicts_with = "issuer")]
    issuer_from_evidence: bool,
    /// Whom tokens must be meant for (their `aud`)
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// With --reference: name each register that differs, at which event, and what most likely
    /// changed
    #[arg(long, requires = "reference")]
    explain: bool,
    /// Sign the verdict as a token (EAR) with this key: P-256, PKCS #8, PEM
    #[arg(long, value_name = "KEYFILE")]
    ear: Option<PathBuf>,
    /// What the token names as its issuer
    #[arg(long, default_value = "flare-cvm", requires = "ear", value_name = "NAME")]
    ear_issuer: String,
    /// Write the token to this file. Otherwise it is all that standard output gets, or a member of
    /// --json
    #[arg(short, long, requires = "ear", value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the verdict with all claims as one JSON object
    #[arg(long)]
    json: bool,
}

/// Verifies and prints.
pub(super) fn verify(args: &Verify) -> Result<()> {
    let now = args.time()?;
    let policies = Policies::read(&args.policy)?;
    let reference: Value = match &args.reference {
        Some(path) => serde_json::from_slice(&read_text(path, MAX_FILE)?)
            .with_context(|| format!("{} is not JSON", path.display()))?,
        None => json!({}),
    };
    let terms = args.terms(&policies, now)?;
    let mut input = Input::default();
    args.files.iter().try_for_each(|path| input.add(path))?;
    input.collateral(args.collateral.as_deref(), &args.collateral_signer, now)?;
    let set = input.set;
    let mut appraisal = set.verify(&terms);
    policies.judge(&mut appraisal, &reference)?;
    let explained = compared(args, &policies, &set, &terms, &mut appraisal)?;

    let token = args.ear.as_ref().map(|key| ear(args, key, &appraisal, now)).transpose()?;
    if let (Some(path), Some(token)) = (&args.output, &token) {
        write_atomic(path, token.as_bytes(), 0o644)?;
    }
    let token = token.filter(|_| args.output.is_none());
    print(args, &appraisal, &explained, token, now)?;
    if appraisal.accepted() {
        return Ok(());
    }
    let count = appraisal.refusals.len();
    Problem::result(
        "ATT-362",
        format!("the evidence is refused ({count} reason{})", if count == 1 { "" } else { "s" }),
        "each reason is above, with its code and its cure",
    )
}

impl Verify {
    /// The time to judge by, in seconds since 1970.
    fn time(&self) -> Result<u64> {
        let Some(text) = &self.at else {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            return Ok(now.context("the clock is before 1970")?.as_secs());
        };
        match parse_time(text) {
            Some(seconds) => Ok(seconds),
            None => Problem::result(
                "CLI-020",
                format!("{text:?} is not a time"),
                "write 2025-12-10T00:00:00Z, 2025-12-10 (its first second), or seconds since 1970",
            ),
        }
    }

    fn terms(&self, policies: &Policies, now: u64) -> Result<Terms> {
        Ok(Terms {
            nonce: self.nonce.clone(),
            roots: self.roots.as_deref().map(|path| read_text(path, MAX_FILE)).transpose()?,
            keys: self
                .jwks
                .iter()
                .map(|path| read_text(path, MAX_FILE))
                .collect::<Result<_, _>>()?,
            issuer: self.issuer.clone(),
            enclosed: Enclosed {
                nonce: self.nonce_from_evidence,
                keys: self.jwks_from_evidence,
                issuer: self.issuer_from_evidence,
            },
            audience: self.audience.clone(),
            rules: policies.rules(),
            now,
        })
    }
}

/// Compares the claims with the reference values, unless a Rego policy does: that policy is its
/// owner's whole word on a machine. Gives what explains each difference.
fn compared(
    args: &Verify,
    policies: &Policies,
    set: &EvidenceSet,
    terms: &Terms,
    appraisal: &mut Appraisal,
) -> Result<Vec<Explanation>> {
    let has_rego = policies.has_rego();
    let wanted = args.reference.as_ref().filter(|_| args.explain || !has_rego);
    let reference = wanted.map(|path| reference_set(path)).transpose()?;
    let explained =
        reference.as_ref().map_or(vec![], |reference| explain(appraisal, set, reference));
    if !has_rego {
        if let Some(reference) = &reference {
            compare(appraisal, &explained, reference);
        }
        note_unjudged_tcb(appraisal, &terms.rules.snp, reference.as_ref());
    }
    Ok(explained)
}

/// Prints the verdict; and the token, if there is one and it goes to standard output.
fn print(
    args: &Verify,
    appraisal: &Appraisal,
    explained: &[Explanation],
    token: Option<String>,
    now: u64,
) -> Result<()> {
    if args.json {
        let mut verdict = appraisal.to_json(now);
        if args.explain {
            verdict["explained"] = json!(explained);
        }
        if let Some(token) = token {
            verdict["ear"] = json!(token);
        }
        line(&serde_json::to_string_pretty(&verdict)?);
        return Ok(());
    }
    let text = describe(appraisal, if args.explain { explained } else { &[] });
    match token {
        None => text.iter().for_each(|text| line(text)),
        // Nothing but the token may be on standard output.
        Some(token) => {
            text.iter().for_each(|text| eprintln!("{text}"));
            line(&token);
        }
    }
    Ok(())
}

/// A bundle's `reference.json`, or a reference set.
fn reference_set(path: &Path) -> Result<ReferenceSet> {
    let bytes = read_text(path, MAX_FILE)?;
    match Reference::parse(&bytes) {
        Ok(reference) => Ok(ReferenceSet::from(&reference)),
        Err(_) => ReferenceSet::parse(&bytes).with_context(|| {
            format!("{} is neither a bundle's reference.json nor a reference set", path.display())
        }),
    }
}

/// Signs the verdict, good or bad.
fn ear(args: &Verify, key: &Path, appraisal: &Appraisal, now: u64) -> Result<String> {
    let pem = Zeroizing::new(read_bounded(key, MAX_KEY)?);
    let key = EarKey::from_pkcs8_pem(unmarked(&pem).unwrap_or(&pem))
        .with_context(|| format!("the key {}", key.display()))?;
    let verifier = VerifierId {
        developer: "flare-cvm".into(),
        build: concat!("flare-cvm ", env!("CARGO_PKG_VERSION")).into(),
    };
    let registered = Registered {
        issuer: args.ear_issuer.clone(),
        audience: args.audience.iter().cloned().collect(),
        token_id: None,
        issued_at: now,
        expires_at: now + EAR_LIFETIME,
        not_before: None,
    };
    let nonce = args.nonce.as_ref().map(|text| match hex::decode(text.trim()) {
        Ok(bytes) if !bytes.is_empty() => bytes,
        _ => text.trim().as_bytes().to_vec(),
    });
    appraisal.to_ear(verifier, registered, nonce).sign(&key).context("no token is signed")
}

/// The claims that a line shows, by their name in it and their place (a JSON pointer).
const SHOWN: [(&str, &str); 9] = [
    ("measurement", "/measurement"),
    ("mr_td", "/quote/body/mr_td"),
    ("tcb_status", "/tcb_status"),
    ("product", "/product"),
    ("bank", "/bank"),
    ("report_data", "/report_data"),
    ("measres", "/measres"),
    ("hwmodel", "/hwmodel"),
    ("ueid", "/ueid"),
];

fn describe(appraisal: &Appraisal, explained: &[Explanation]) -> Vec<String> {
    let mut text = Vec::new();
    for (name, claims) in appraisal.claims() {
        let (kind, claims) = (claims.kind(), claims.to_json());
        // A log has no signature.
        let proven =
            if matches!(kind, "event-log" | "cc-event-log") { "consistent" } else { "genuine" };
        let facts = SHOWN
            .iter()
            .filter_map(|(name, at)| Some(format!(" {name}={}", claims.pointer(at)?.as_str()?)));
        let facts: String = facts.collect();
        text.push(format!(
            "{name}: {kind}, {proven}{}{facts}",
            if facts.is_empty() { "" } else { ":" }
        ));
    }
    text.extend(
        appraisal.left_out.iter().map(|file| format!("left out: {}: {}", file.of, file.reason)),
    );
    let not_checked = appraisal.not_checked().into_iter();
    text.extend(
        not_checked.map(|(of, check, reason)| format!("{of}: not checked: {check}: {reason}")),
    );
    text.extend(explained.iter().map(|explanation| format!("explained: {explanation}")));
    for refusal in &appraisal.refusals {
        text.push(format!("refused[{}]: {}: {}", refusal.code, refusal.of, refusal.reason));
        text.push(format!("  help: {}", refusal.help));
    }
    text.push(format!("verdict: {}", if appraisal.accepted() { "accepted" } else { "refused" }));
    text
}
