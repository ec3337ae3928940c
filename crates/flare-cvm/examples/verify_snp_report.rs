//! Verifies a SEV-SNP report with AMD's roots and a policy, without a network.
//!
//! ```text
//! cargo run --release -p flare-cvm --example verify_snp_report -- \
//!     REPORT VCEK milan-b1=4.0.24.219 [REPORT_DATA]
//! ```
//!
//! REPORT has the firmware's 1184 bytes, VCEK is AMD's certificate of the chip (DER or PEM), the floor
//! is the least firmware that you accept (docs/tcb.md), and REPORT_DATA is what the report must be
//! bound to (128 hex digits), for example the SHA-512 of your nonce.

use std::{
    env,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use cvm_base::read_bounded;
use cvm_verify::snp::{SnpEvidence, SnpExpected, SnpPolicy, SnpRoots, verify};

const MAX_BYTES: u64 = 1 << 20;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    print!("{}", run(&arguments)?);
    Ok(())
}

/// What is said of the report, if it is accepted.
pub fn run(arguments: &[String]) -> Result<String> {
    let [report, certificate, floor, bound @ ..] = arguments else {
        anyhow::bail!("usage: verify_snp_report REPORT VCEK FLOOR [REPORT_DATA]");
    };

    // Bytes become evidence: parsed, and not yet believed.
    let evidence = SnpEvidence::parse(
        &read_bounded(report.as_ref(), MAX_BYTES)?,
        &read_bounded(certificate.as_ref(), MAX_BYTES)?,
    )?;

    // Evidence becomes claims: signature, chain to AMD's roots, chip, firmware versions, binding.
    let report_data = bound.first().map(|hex| report_data(hex)).transpose()?;
    let expected = SnpExpected { report_data: report_data.as_ref(), host_data: None };
    let revocation_lists = [];
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = verify(&evidence, SnpRoots::amd()?, &revocation_lists, &expected, now)?;

    // Claims become a decision. `SnpPolicy::default()` refuses debug mode and migration agents.
    let policy = SnpPolicy { min_tcb: floor.parse()?, ..SnpPolicy::default() };
    policy.check(&claims)?;

    let mut text =
        format!("accepted: a {} guest, measurement {}\n", claims.product, claims.measurement);
    for check in &claims.not_checked {
        text += &format!("not checked: {}: {}\n", check.check, check.reason);
    }
    Ok(text)
}

fn report_data(hex: &str) -> Result<[u8; 64]> {
    let mut bytes = [0; 64];
    hex::decode_to_slice(hex, &mut bytes).ok().context("REPORT_DATA is 128 hex digits")?;
    Ok(bytes)
}
