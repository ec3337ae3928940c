//! The token of RCAR, which serves in place of the cookie.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use cvm_layout::manifest::Stage;
use cvm_release::{client::Outgoing, messages::Token};

use super::{Bench, HALF, IMAGE, NOW, bench};

use crate::{decision::Reason, keys::SessionKeys, session::SESSION_SECONDS};

#[test]
fn a_token_serves_as_well_as_the_cookie_and_is_not_forged() {
    let mut bench = bench();
    let client = bench.challenged();
    let (reply, _) = bench.send(&Bench::answer(&client));
    let token: Token = serde_json::from_slice(&reply.body).unwrap();
    let client = client.attested(&reply).unwrap();
    let request = Outgoing { cookie: None, ..client.half_request(&IMAGE, Stage::Boot) };
    let bearer = format!("Bearer {}", token.token);

    // The same claims under a header that brings its own key.
    let (rest, _) = token.token.rsplit_once('.').unwrap();
    let payload = rest.split_once('.').unwrap().1;
    let own = SessionKeys::derive(&[8; 32]).unwrap();
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"ES256","jwk":{"kty":"EC"}}"#] {
        let signed = format!("{}.{payload}", B64.encode(header));
        let forged = format!("Bearer {signed}.{}", B64.encode(own.sign(signed.as_bytes())));
        assert_eq!(
            bench.send_with_token(&request, Some(&forged)).1.reason,
            Some(Reason::SessionForged)
        );
    }
    bench.now += SESSION_SECONDS;
    assert_eq!(
        bench.send_with_token(&request, Some(&bearer)).1.reason,
        Some(Reason::SessionExpired)
    );
    bench.now = NOW;
    let (reply, _) = bench.send_with_token(&request, Some(&bearer));
    assert_eq!(*client.half(&reply).unwrap(), HALF);
    assert_eq!(
        bench.send_with_token(&request, Some(&bearer)).1.reason,
        Some(Reason::ReleasedBefore)
    );
}
