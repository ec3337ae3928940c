//! From files to a verdict: `cvm_verify::appraise`.

mod cases;
mod ear;
mod explain;
mod forms;
mod left_out;
mod reasons;
mod rows;
mod trust;
mod unread;

use std::{fs, path::PathBuf};

use cvm_verify::appraise::{Appraisal, EvidenceSet, Terms};
use serde_json::Value;

use crate::{gpu::synthetic, snp::mint};

/// 2025-10-09.
const NOW: u64 = 1_760_000_000;

fn evidence() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/evidence")
}

/// A file of the real evidence, or (`forms/…`) of other tools' forms.
fn read(name: &str) -> Vec<u8> {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors");
    let path = if name.starts_with("forms/") { own.join(name) } else { evidence().join(name) };
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A set of loose files.
fn set(files: &[Vec<u8>]) -> EvidenceSet {
    let mut set = EvidenceSet::default();
    for (n, bytes) in files.iter().enumerate() {
        set.add("", &format!("file {n}"), bytes.clone()).unwrap();
    }
    set
}

fn terms(nonce: Option<&str>, now: u64) -> Terms {
    Terms { nonce: nonce.map(str::to_owned), now, ..Terms::default() }
}

/// Terms that name a token's keys and its issuer.
fn token_terms(keys: &[&[u8]], issuer: &str, nonce: Option<&str>, now: u64) -> Terms {
    let keys = keys.iter().map(|key| key.to_vec()).collect();
    Terms { keys, issuer: Some(issuer.into()), ..terms(nonce, now) }
}

/// A machine of our own chip maker's: its signed report, changed before that, its VCEK, and the
/// maker's roots.
fn machine(change: impl FnOnce(&mut [u8])) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let (line, spec) = (mint::line("Milan"), mint::vcek("Milan-B0"));
    let (vcek, key) = mint::endorse(&line.ask.1, &spec);
    let mut report = mint::report(2, [0; 3], &spec);
    change(&mut report);
    let roots = mint::pem(&[&line.ark.0, &line.ask.0, &line.asvk.0]).into_bytes();
    (mint::sign(report, &key), vcek, roots)
}

/// Verifies files by name at `now`.
fn appraise(files: &[&str], nonce: Option<&str>, now: u64) -> Appraisal {
    set(&files.iter().map(|file| read(file)).collect::<Vec<_>>()).verify(&terms(nonce, now))
}

/// The first claims of a kind, as a policy reads them.
fn claims(appraisal: &Appraisal, kind: &str) -> Value {
    let found = appraisal.claims().find(|(_, claims)| claims.kind() == kind);
    found.unwrap_or_else(|| panic!("no {kind}: {:?}", appraisal.refusals)).1.to_json()
}

fn code(appraisal: &Appraisal) -> Vec<&str> {
    appraisal.refusals.iter().map(|refusal| refusal.code.as_str()).collect()
}
