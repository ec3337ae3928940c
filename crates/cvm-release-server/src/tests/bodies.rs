//! Bodies that are malformed, too long, or become too large in memory.

use cvm_release::{
    client::{Method, Outgoing},
    paths,
};

use super::{Bench, bench};

use crate::decision::{MAX_DETAIL, Reason};

#[test]
fn a_malformed_or_oversize_body_is_refused() {
    let bench = bench();
    let post = |path: &str, body: Vec<u8>| {
        let cookie = Bench::answer(&bench.challenged()).cookie;
        Outgoing { method: Method::Post, path: path.into(), cookie, body }
    };
    bench.refused(&post(paths::ATTEST, b"{".to_vec()), 401, Reason::Malformed);
    bench.refused(
        &post(paths::ATTEST, vec![b' '; paths::MAX_ATTEST_BYTES + 1]),
        401,
        Reason::TooLarge,
    );
    bench.refused(&post("/", vec![]), 404, Reason::UnknownPath);
}

#[test]
fn attack_rubbish_fifty_times_in_one_session() {
    let bench = bench();
    let mut request = Bench::answer(&bench.challenged());
    // Quoted whole by whoever says what is wrong with it.
    request.body = format!("\"{}\"", "rubbish ".repeat(100_000)).into_bytes();
    bench.refused(&request, 401, Reason::Malformed);
    let detail = bench.send(&request).1.detail;
    assert!(detail.len() <= MAX_DETAIL, "{}", detail.len());
    for _ in 0..50 {
        bench.refused(&request, 401, Reason::Replayed);
    }
}

#[test]
fn attack_a_small_body_that_becomes_a_large_tree() {
    let bench = bench();
    let tree = format!("[{}]", vec!["{\"\":0}"; 140_000].join(","));
    let mut request = Bench::answer(&bench.challenged());
    let text = String::from_utf8(request.body).unwrap();
    request.body = text
        .replacen("\"primary_evidence\":", &format!("\"primary_evidence\":{tree},\"x\":"), 1)
        .into_bytes();
    assert!((1 << 19..paths::MAX_ATTEST_BYTES).contains(&request.body.len()));
    bench.refused(&request, 401, Reason::TooLarge);
}
