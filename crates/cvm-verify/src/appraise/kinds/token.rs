//! Other verifiers' tokens, and our own.

use serde_json::{Value, json};

use super::{
    super::{shortened, stage::first_good, trust::From},
    Refusal, Shared, Submodule, Terms, Verified,
};
use crate::{
    NotChecked, acpi,
    token::{
        self, DetachedEat, EarToken, Expected, ItaClaims, ItaPolicy, KeySet, MaaPolicy, NrasPolicy,
        PROFILE, PROFILE_TRUSTEE, Rules, Tier, Token, TokenError,
    },
};

pub(super) fn jwt(name: &str, bytes: &[u8], shared: &Shared, terms: &Terms) -> Verified {
    let fail = |e: &_| Refusal::new(name, e);
    let token = Token::parse(bytes.trim_ascii()).map_err(|e| fail(&e))?;
    let Issuer { rules, mut not_checked, refusals } = issuer(&token, shared, terms)?;
    let claims = token.unverified_claims().map_err(|e| fail(&e))?;
    let has = |claim: &str| claims.contains_key(claim);
    let profile = claims.get("eat_profile").and_then(Value::as_str);
    let (kind, claims) = if matches!(profile, Some(PROFILE | PROFILE_TRUSTEE)) && has("submods") {
        let ear = with_keys(name, shared, |keys, expected| {
            EarToken::verify(&token, keys, &rules, expected, terms.now)
        })?;
        return Ok(appraised(&ear, not_checked, refusals));
    } else if has("x-ms-ver") || has("x-ms-attestation-type") {
        // Which kind of TEE is acceptable is the reader's matter; all that Azure knows are read.
        let types = ["sgx", "sevsnpvm", "tdxvm", "azurevm"].map(str::to_owned).to_vec();
        let policy = MaaPolicy { rules: rules.clone(), types, ..MaaPolicy::new(rules.issuer) };
        let claims = with_keys(name, shared, |keys, e| {
            token::verify_maa(&token, keys, &policy, e, terms.now)
        })?;
        ("maa", claims.to_json())
    } else if !ItaClaims::are_in(&claims) {
        let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or("nobody");
        let reason = format!("a token of {issuer}, which is of no service that is known here");
        let help = "give a token of Azure Attestation, of Intel Trust Authority or an EAR; NVIDIA's comes as the whole \
                    answer of its service (a JSON array)";
        return Err(Refusal::input(name, shortened(&reason), help));
    } else {
        let policy = ItaPolicy { rules: rules.clone(), ..ItaPolicy::new(rules.issuer) };
        let claims = with_keys(name, shared, |keys, e| {
            token::verify_ita(&token, keys, &policy, e, terms.now)
        })?;
        ("ita", claims.to_json())
    };
    let claims = claims.get(kind).cloned().unwrap_or_default();
    // An enclave has no kernel that would run such code.
    if !["attestation_type", "attester_type"]
        .iter()
        .any(|member| claims[*member].as_str().is_some_and(is_enclave))
    {
        not_checked.push(acpi::in_a_token());
    }
    let claims = with_not_checked(claims, not_checked);
    Ok(Submodule { prefix: "token", kind, claims, refusals })
}

pub(super) fn nras(name: &str, bytes: &[u8], shared: &Shared, terms: &Terms) -> Verified {
    let bundle = DetachedEat::parse(bytes).map_err(|e| Refusal::new(name, &e))?;
    let Issuer { rules, not_checked, refusals } = issuer(&bundle.overall, shared, terms)?;
    let policy = NrasPolicy { rules: rules.clone(), ..NrasPolicy::new(rules.issuer) };
    let claims = with_keys(name, shared, |keys, e| {
        token::verify_nras(&bundle, keys, &policy, e, terms.now)
    })?;
    let claims =
        with_not_checked(claims.to_json().get("nras").cloned().unwrap_or_default(), not_checked);
    Ok(Submodule { prefix: "token", kind: "nras", claims, refusals })
}

/// A verdict of our own verifier, or of Trustee: good only where every attester's is.
fn appraised(
    ear: &EarToken,
    not_checked: Vec<NotChecked>,
    mut refusals: Vec<Refusal>,
) -> Submodule {
    let mut claims = ear.payload();
    claims["not_checked"] = json!(not_checked);
    // A warning says that checks were left out; those stand in the claims.
    let bad = ear
        .submods
        .iter()
        .filter(|(_, submodule)| !matches!(submodule.status, Tier::Affirming | Tier::Warning));
    refusals.extend(bad.map(|(name, submodule)| {
        let reason = format!("the verifier's verdict on {name} is {}", json!(submodule.status));
        Refusal::policy(
            "ear",
            "ATT-396",
            reason,
            "its ear.veraison.annotated-evidence says what was found (--json)",
        )
    }));
    Submodule { prefix: "token", kind: "ear", claims, refusals }
}

/// Who must have issued a token.
struct Issuer {
    rules: Rules,
    not_checked: Vec<NotChecked>,
    refusals: Vec<Refusal>,
}

/// The issuer's rules. Where nobody named an issuer, the token's own word stands: it is refused,
/// unless that is wanted.
fn issuer(token: &Token, shared: &Shared, terms: &Terms) -> Result<Issuer, Refusal> {
    let claims = token.unverified_claims().map_err(|e| Refusal::new("the token", &e))?;
    let own = claims.get("iss").and_then(Value::as_str).unwrap_or_default().to_owned();
    let (mut not_checked, mut refusals) = (Vec::new(), Vec::new());
    if shared.keys_from == From::Evidence {
        not_checked.push(NotChecked::new(
            "token-keys",
            "the keys came with the evidence: who holds them is not known",
        ));
    }
    if terms.issuer.is_none() {
        not_checked.push(NotChecked::new(
            "issuer",
            "nobody named the issuer that is expected; give --issuer",
        ));
        if !terms.enclosed.issuer {
            let reason = "nobody named its issuer, and its own word for it counts for nothing";
            let help = "name whom you believe with --issuer; --issuer-from-evidence believes whom \
                the token names";
            refusals.push(Refusal::policy("the token", "ATT-422", reason, help));
        }
    }
    let mut rules = Rules::new(terms.issuer.clone().unwrap_or(own));
    rules.audience = terms.audience.clone();
    Ok(Issuer { rules, not_checked, refusals })
}

/// Verifies with each key set that is at hand, and with each form of the nonce.
fn with_keys<T>(
    name: &str,
    shared: &Shared,
    verify: impl Fn(&KeySet, &Expected<'_>) -> Result<T, TokenError>,
) -> Result<T, Refusal> {
    let nonces: Vec<Option<&[u8]>> = match &shared.nonces[..] {
        [] => vec![None],
        nonces => nonces.iter().map(|nonce| Some(nonce.as_slice())).collect(),
    };
    let with_roots = |keys: KeySet| match &shared.roots {
        Some(roots) => keys.with_roots(roots.clone()),
        None => keys,
    };
    let key_sets: Vec<_> =
        shared.keys.iter().map(|keys| KeySet::parse(keys).map(with_roots)).collect();
    let candidates =
        key_sets.iter().flat_map(|keys| nonces.iter().map(move |nonce| (keys, *nonce)));
    let verified = first_good(candidates, |(keys, nonce)| {
        verify(keys.as_ref().map_err(Clone::clone)?, &Expected { nonce, report_data: None })
    });
    if let Some(verified) = verified {
        return verified.map_err(|e| Refusal::new(name, &e));
    }
    if shared.keys_from == From::EvidenceUnasked {
        let reason =
            "keys came with it, and none were given: whoever made the token may have made them";
        let help = "give the issuer's keys with --jwks; --jwks-from-evidence believes those that \
            came along";
        return Err(Refusal::policy(name, "ATT-421", reason, help));
    }
    let reason = format!("{name} cannot be verified without its issuer's keys");
    Err(Refusal::input(name, reason, "give the issuer's JWKS (or PEM public key) with --jwks"))
}

fn is_enclave(kind: &str) -> bool {
    kind.eq_ignore_ascii_case("sgx")
}

fn with_not_checked(mut claims: Value, more: Vec<NotChecked>) -> Value {
    if let (Some(list), Ok(Value::Array(more))) =
        (claims.get_mut("not_checked").and_then(Value::as_array_mut), serde_json::to_value(more))
    {
        list.extend(more);
    }
    claims
}
