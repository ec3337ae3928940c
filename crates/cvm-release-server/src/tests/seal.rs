//! The memory of seals: one header per image, and shares that leave only for a move.

use cvm_base::sha256;
use cvm_layout::manifest::Stage;
use cvm_release::client::Client;

use super::{IMAGE, bench};

use crate::decision::{Reason, Verdict};

#[test]
fn attack_another_header_is_refused() {
    let bench = bench();
    for (header, status) in [(sha256(b"a"), 204), (sha256(b"b"), 409)] {
        let client = bench.attested();
        bench.send(&client.half_request(&IMAGE, Stage::Boot));
        let request = client.register_seal_request(&IMAGE, header, None).unwrap();
        let (reply, decision) = bench.send(&request);
        assert_eq!(reply.status, status);
        assert_eq!(decision.reason, (status == 409).then_some(Reason::SealMismatch));
    }
}

#[test]
fn a_share_comes_back_only_while_the_operator_lets_the_image_move() {
    let bench = bench();
    let header = sha256(b"header");
    let (share, other) = ([3; 32], [4; 32]);
    let session = || {
        let client = bench.attested();
        bench.send(&client.half_request(&IMAGE, Stage::Boot));
        client
    };
    let register = |client: &Client<_>, share| {
        bench.send(&client.register_seal_request(&IMAGE, header, share).unwrap()).0.status
    };
    let shown = |client: &Client<_>| {
        let (reply, decision) = bench.send(&client.seal_request(&IMAGE));
        let state = client.seal_state(&reply).unwrap().unwrap();
        assert_eq!(
            decision.verdict == Verdict::Released,
            state.share.is_some(),
            "in the log as a release"
        );
        (state.bound, state.share.map(|share| *share))
    };
    let client = session();
    assert_eq!(register(&client, Some(&share)), 204);
    assert_eq!(register(&client, Some(&share)), 204, "telling it twice is fine");
    assert_eq!(register(&client, Some(&other)), 409);
    assert_eq!(shown(&session()), (true, None));
    assert!(
        !bench.store.memory().seals[&IMAGE].share.as_ref().unwrap().windows(32).any(|w| w == share)
    );

    bench.store.memory().seals.get_mut(&IMAGE).unwrap().may_move = true;
    // A boot that died before it confirmed may ask again.
    assert_eq!(shown(&session()), (true, Some(share)));
    let client = session();
    assert_eq!(shown(&client), (true, Some(share)));
    assert_eq!(register(&client, Some(&share)), 204);
    assert_eq!(shown(&session()), (true, None), "the move is over");
}

#[test]
fn attack_a_third_factor_slipped_under_a_sealed_image_is_refused() {
    let bench = bench();
    let client = bench.attested();
    bench.send(&client.half_request(&IMAGE, Stage::Boot));
    let register = |share| {
        bench.send(&client.register_seal_request(&IMAGE, sha256(b"h"), share).unwrap()).0.status
    };
    assert_eq!(register(None), 204);
    assert_eq!(register(Some(&[3; 32])), 409);
}
