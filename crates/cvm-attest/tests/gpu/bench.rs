//! Figures, on request: `cargo test --release … -- --ignored bench --nocapture`.

use std::time::{Duration, Instant};

use cvm_attest::gpu::{Collateral, DeviceEvidence, Roots, Verifier, verify};

use crate::{IN_2024, nonce, read, rims};

#[test]
#[ignore = "prints figures"]
fn bench() {
    let name = "h100-545.00-e2e";
    let (report, chain) = (read(&format!("{name}/report.bin")), read(&format!("{name}/chain.pem")));
    let (roots, nonce, rims) = (Roots::nvidia().unwrap(), nonce(name), rims());
    let collateral = Collateral { rims: &rims, ..Collateral::default() };
    let evidence = || DeviceEvidence::parse(&report, &chain).unwrap();
    per_second("report, chain and both manifests each time", || {
        verify(&evidence(), &roots, collateral, Some(&nonce), IN_2024).unwrap();
    });
    let mut verifier = Verifier::new(&roots, collateral);
    per_second("chain and manifests remembered, evidence read each time", || {
        verifier.verify(&evidence(), Some(&nonce), IN_2024).unwrap();
    });
    let read = evidence();
    per_second("the same, evidence read before", || {
        verifier.verify(&read, Some(&nonce), IN_2024).unwrap();
    });
}

fn per_second(what: &str, mut step: impl FnMut()) {
    step();
    let (start, mut steps) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(2) {
        step();
        steps += 1;
    }
    println!("{:8.0}/s  {what}", f64::from(steps) / start.elapsed().as_secs_f64());
}
