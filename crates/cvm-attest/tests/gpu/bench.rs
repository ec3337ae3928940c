//! Figures, on request: `cargo test --release … -- --ignored bench --nocapture`.
//!
//! Per second of this thread's own processor time: other work on the machine does not count.

use std::{fs, time::Duration};

use cvm_attest::gpu::{Collateral, DeviceEvidence, Report, Rim, Roots, Verifier, verify};

use crate::{IN_2024, nonce, read, rims};

#[test]
#[ignore = "prints figures"]
fn bench() {
    let name = "h100-545.00-e2e";
    let (report, chain) = (read(&format!("{name}/report.bin")), read(&format!("{name}/chain.pem")));
    let manifest = read(&format!("{name}/driver-rim.xml"));
    let (roots, nonce, rims) = (Roots::nvidia().unwrap(), nonce(name), rims());
    let collateral = Collateral { rims: &rims, ..Collateral::default() };
    let evidence = || DeviceEvidence::parse(&report, &chain).unwrap();
    per_second("nothing remembered: report, chain, both manifests' signatures and chains", || {
        verify(&evidence(), &roots, collateral, Some(&nonce), IN_2024).unwrap();
    });
    let mut verifier = Verifier::new(&roots, collateral);
    per_second("chain and manifests remembered, report and certificates read each time", || {
        verifier.verify(&evidence(), Some(&nonce), IN_2024).unwrap();
    });
    let before = evidence();
    per_second("chain and manifests remembered, report and certificates read before", || {
        verifier.verify(&before, Some(&nonce), IN_2024).unwrap();
    });
    per_second("reading a report", || drop(Report::parse(&report).unwrap()));
    per_second("reading a report and its certificates", || drop(evidence()));
    per_second("reading a manifest", || drop(Rim::parse(&manifest, None).unwrap()));
}

fn per_second(what: &str, mut step: impl FnMut()) {
    step();
    let (start, mut steps) = (cpu_time(), 0);
    while cpu_time() < start + Duration::from_secs(1) {
        for _ in 0..20 {
            step();
        }
        steps += 20;
    }
    println!("{:8.0}/s  {what}", f64::from(steps) / (cpu_time() - start).as_secs_f64());
}

/// Time that this thread was on a processor.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}
