//! TDX and SGX quotes on real evidence, against the verdicts of PROVENANCE.md and against dcap-qvl,
//! a second implementation: what we accept, it accepts with the same status and advisories.

mod changed;
mod collateral;
mod eventlog;
mod policy;
mod vectors;

use std::{fs, path::PathBuf};

use cvm_verify::tdx::{
    Collateral, DcapVerifier, Quote, TcbStatus, TdxClaims, TdxError, TdxEvidence, TdxPolicy,
    intel_roots,
};

fn evidence(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/evidence");
    fs::read(folder.join(name)).unwrap()
}

fn quote(name: &str) -> Vec<u8> {
    evidence(&format!("tdx/quotes/{name}.bin"))
}

fn collateral_json(name: &str) -> Vec<u8> {
    evidence(&format!("tdx/collateral/{name}.json"))
}

fn collateral(name: &str) -> Collateral {
    Collateral::parse(&collateral_json(name)).unwrap()
}

fn verifier(name: &str, now: u64) -> Result<DcapVerifier, TdxError> {
    DcapVerifier::new(intel_roots().unwrap(), Some(&collateral(name)), now)
}

fn td(quote: &[u8], collateral: &str, now: u64) -> Result<TdxClaims, TdxError> {
    verifier(collateral, now)?.verify(&TdxEvidence::parse(quote, None)?, None, now)
}

/// Status and advisories of ours, in dcap-qvl's words.
fn ours(
    verifier: &DcapVerifier,
    quote: &[u8],
    now: u64,
) -> Result<(String, Vec<String>), TdxError> {
    let parsed = Quote::parse(quote)?;
    let platform = if parsed.header.version.0[0] == 3 {
        verifier.verify_sgx(&parsed, None, now)?.platform
    } else {
        let claims = verifier.verify(&TdxEvidence::parse(quote, None)?, None, now)?;
        // dcap-qvl holds attributes against a policy of its own.
        let policy = TdxPolicy { tcb_statuses: ALL.into(), ..TdxPolicy::default() };
        policy.check(&claims)?;
        claims.platform
    };
    Ok((platform.tcb_status.unwrap().to_string(), platform.advisory_ids))
}

const ALL: [TcbStatus; 8] = [
    TcbStatus::UpToDate,
    TcbStatus::SWHardeningNeeded,
    TcbStatus::ConfigurationNeeded,
    TcbStatus::ConfigurationAndSWHardeningNeeded,
    TcbStatus::OutOfDate,
    TcbStatus::OutOfDateConfigurationNeeded,
    TcbStatus::TDRelaunchAdvised,
    TcbStatus::TDRelaunchAdvisedConfigurationNeeded,
];

fn theirs(
    collateral: &dcap_qvl::QuoteCollateralV3,
    quote: &[u8],
    now: u64,
) -> Option<(String, Vec<String>)> {
    let report = dcap_qvl::verify::ring::verify(quote, collateral, now).ok()?;
    Some((report.status, report.advisory_ids))
}

const NEAR: u64 = 1_787_894_500;
const PHALA: u64 = 1_751_624_655;
const SGX: u64 = 1_751_624_924;
const CONFAI: u64 = 1_774_995_526;
