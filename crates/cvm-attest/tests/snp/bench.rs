//! `cargo test --release … --test snp -- --ignored bench --nocapture`

use std::{fs, hint::black_box, time::Instant};

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, ParsedPublicKey};
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
    // What the signature alone costs here and now.
    let key = ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, whole.certificates[0].public_key()).unwrap();
    let number = |at: usize| bytes[at..at + 48].iter().rev().copied().collect::<Vec<_>>();
    let signature = [number(0x2a0), number(0x2a0 + 72)].concat();
    rate("one P-384 verification", 8000, || key.verify_sig(black_box(&bytes[..0x2a0]), &signature).unwrap());
}

/// By the thread's time on a processor too: a machine that is shared with other work says little by the clock.
fn rate(name: &str, count: u32, mut verify: impl FnMut()) {
    let on_processor = || {
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
    };
    let (start, busy) = (Instant::now(), on_processor());
    (0..count).for_each(|_| verify());
    let per_second = |seconds: f64| f64::from(count) / seconds;
    let (clock, busy) = (start.elapsed().as_secs_f64(), on_processor() - busy);
    println!("{name}: {:.0}/s by the clock, {:.0}/s of processor time", per_second(clock), per_second(busy));
}
