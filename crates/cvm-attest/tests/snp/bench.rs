//! `cargo test --release … --test snp -- --ignored bench --nocapture`

use std::{hint::black_box, time::Instant};

use cvm_attest::snp::{SigningKey, SnpReport, SnpRoots, VerifiedChain};

use super::{NOW, check, evidence, vector};

#[test]
#[ignore = "prints figures; for a release build"]
fn bench() {
    let bytes = vector("milan-virtee/report.bin");
    let whole = evidence("milan-virtee");
    let roots = SnpRoots::amd().unwrap();
    let chain = VerifiedChain::verify(&whole.certificates, SigningKey::Vcek, roots, &[], NOW).unwrap();
    rate("snp, cached chain", 8000, || {
        let report = SnpReport::parse(black_box(&bytes)).unwrap();
        black_box(chain.check(&report, &Default::default(), NOW).unwrap());
    });
    rate("snp, whole chain", 2000, || {
        black_box(check(black_box(&whole), NOW).unwrap());
    });
}

fn rate(name: &str, count: u32, mut verify: impl FnMut()) {
    let start = Instant::now();
    (0..count).for_each(|_| verify());
    println!("{name}: {:.0} verifications/s", f64::from(count) / start.elapsed().as_secs_f64());
}
