//! The bodies of the fuzz targets, so that ordinary tests run them too. None may panic.

use crate::{
    eventlog::EventLog,
    tpm::{Public, parse_quote, parse_signature},
};

/// Bytes as a quote, as a signature and as a public area.
pub fn tpm_structure(bytes: &[u8]) {
    let _ = parse_quote(bytes).map(|quote| quote.selection.iter().map(ToString::to_string).collect::<Vec<_>>());
    let _ = parse_signature(bytes);
    if let Ok(public) = Public::parse(bytes) {
        let _ = (public.check_attestation_key(), public.check_endorsement_key(), public.name(), public.spki());
    }
}

/// Bytes as an event log.
pub fn event_log(bytes: &[u8]) {
    let Ok(log) = EventLog::parse(bytes) else { return };
    assert!(log.events().len() <= bytes.len() / 48, "an event takes at least 48 bytes");
    assert!(log.replay().len() <= 24);
    let _ = log.events().iter().map(|event| event.describe()).collect::<Vec<_>>();
}

/// Bytes as the handshake's parameters, as a certificate, as the policy's roots.
#[cfg(feature = "verifier")]
pub fn handshake(bytes: &[u8]) {
    if let Ok(params) = serde_json::from_slice(bytes) {
        let _ = crate::challenge(&params);
    }
    let _ = crate::Roots::default().verify_ek(bytes, 0);
    if let Ok(roots) = crate::Roots::from_pem(bytes) {
        let _ = roots.verify_ek(bytes, 0);
    }
}

/// Bytes as a token, as a key set, as NRAS' bundle, as a signing key; a token's claims in each vendor's layout.
#[cfg(feature = "verifier")]
pub fn token(bytes: &[u8]) {
    use crate::token::{
        DetachedEat, EarKey, EarToken, Expected, ItaClaims, ItaPolicy, KeySet, MaaClaims, MaaPolicy, NrasPolicy,
        Registered, Rules, Token, verify_ita, verify_maa, verify_nras,
    };
    let none = Expected::default();
    let empty = KeySet::parse(br#"{"keys":[]}"#);
    let keys = KeySet::parse(bytes).or(empty);
    let _ = EarKey::from_pkcs8_pem(bytes);
    let (Ok(keys), bundle, token) = (keys, DetachedEat::parse(bytes), Token::parse(bytes)) else { return };
    if let Ok(bundle) = bundle {
        assert!(verify_nras(&bundle, &keys, &NrasPolicy::new("i"), &none, 0).is_err(), "signed by nobody");
    }
    let Ok(token) = token else { return };
    assert!(verify_maa(&token, &keys, &MaaPolicy::new("i"), &none, 0).is_err(), "signed by nobody");
    assert!(verify_ita(&token, &keys, &ItaPolicy::new("i"), &none, 0).is_err(), "signed by nobody");
    assert!(EarToken::verify(&token, &keys, &Rules::new("i"), &none, 0).is_err(), "signed by nobody");
    if let Ok(claims) = token.unverified_claims() {
        let registered = Registered {
            issuer: String::new(),
            audience: Vec::new(),
            token_id: None,
            issued_at: 0,
            not_before: None,
            expires_at: 1,
        };
        let _ = MaaClaims::read(registered.clone(), &claims).map(|maa| maa.to_json());
        let _ = ItaClaims::read(registered, &claims).map(|ita| ita.to_json());
    }
}

/// Bytes as a set of reference values, and the policies written from it.
pub fn reference_set(bytes: &[u8]) {
    let Ok(set) = crate::ReferenceSet::parse(bytes) else { return };
    assert_eq!(crate::ReferenceSet::parse(&set.to_bytes()).as_ref(), Ok(&set));
    #[cfg(feature = "policy")]
    let _ = crate::policy::new_policies(&set);
}
