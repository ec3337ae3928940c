//! SEV-SNP: real reports with the verdicts of `tests/vectors/evidence/PROVENANCE.md`, and reports
//! of the versions and products without real ones, signed by keys that look like AMD's.

mod attacks;
mod forms;
#[path = "../../snp/mint.rs"]
pub mod mint;
mod policy;
mod products;
mod vectors;

use std::{fs, path::PathBuf};

use cvm_verify::{
    snp::{SnpClaims, SnpError, SnpEvidence, SnpExpected, SnpRoots, verify},
    x509::Certificate,
};

/// 2025-10-09: every vector's certificates are valid.
const NOW: u64 = 1_760_000_000;

fn repository(name: &str) -> Vec<u8> {
    fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)).unwrap()
}

fn vector(name: &str) -> Vec<u8> {
    repository(&format!("tests/vectors/evidence/snp/{name}"))
}

fn evidence(folder: &str) -> SnpEvidence {
    let certificate = if folder == "trustee-vlek" { "vlek.der" } else { "vcek.der" };
    SnpEvidence::parse(
        &vector(&format!("{folder}/report.bin")),
        &vector(&format!("{folder}/{certificate}")),
    )
    .unwrap()
}

fn check(evidence: &SnpEvidence, now: u64) -> Result<SnpClaims, SnpError> {
    verify(evidence, SnpRoots::amd().unwrap(), &[], &SnpExpected::default(), now)
}

fn certificates(bytes: &[u8]) -> Vec<Certificate> {
    Certificate::read_all(bytes).unwrap()
}

fn unchecked(claims: &SnpClaims) -> Vec<&str> {
    claims.not_checked.iter().map(|not| not.check.as_str()).collect()
}
