//! Other verifiers' tokens, and our own.

use serde_json::{Value, json};

use crate::{
    NotChecked, acpi,
    appraise::{
        EarClaims, EvidenceClaims, Refusal, Terms,
        refusal::shortened,
        stage::first_good,
        submodule::{Submodule, Verified},
        trust::{From, Shared},
    },
    token::{
        self, DetachedEat, EarToken, Expected, ItaClaims, ItaPolicy, KeySet, MaaPolicy, NrasPolicy,
        PROFILE, PROFILE_TRUSTEE, Rules, Tier, Token, TokenError,
    },
};

/// A token; the layout of its claims tells which service issued it.
pub(super) fn jwt(name: &str, bytes: &[u8], shared: &Shared, terms: &Terms) -> Verified {
    let fail = |e: &_| Refusal::new(name, e);
    let token = Token::parse(bytes.trim_ascii()).map_err(|e| fail(&e))?;
    let issuer = issuer(&token, shared, terms)?;
    let claims = token.unverified_claims().map_err(|e| fail(&e))?;
    let has = |claim: &str| claims.contains_key(claim);
    let profile = claims.get("eat_profile").and_then(Value::as_str);
    if matches!(profile, Some(PROFILE | PROFILE_TRUSTEE)) && has("submods") {
        let ear = with_keys(name, shared, |keys, expected| {
            EarToken::verify(&token, keys, &issuer.rules, expected, terms.now)
        })?;
        return Ok(appraised(ear, issuer));
    }
    if has("x-ms-ver") || has("x-ms-attestation-type") {
        return maa(name, &token, issuer, shared, terms.now);
    }
    if ItaClaims::are_in(&claims) {
        return ita(name, &token, issuer, shared, terms.now);
    }
    let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or("nobody");
    let reason = format!("a token of {issuer}, which is of no service that is known here");
    let help = "give a token of Azure Attestation, of Intel Trust Authority or an EAR; NVIDIA's \
        comes as the whole answer of its service (a JSON array)";
    Err(Refusal::input(name, shortened(&reason), help))
}

fn maa(name: &str, token: &Token, issuer: Issuer, shared: &Shared, now: u64) -> Verified {
    let Issuer { rules, not_checked, refusals } = issuer;
    // The reader decides which kind of TEE is acceptable; all that Azure knows are read.
    let types = ["sgx", "sevsnpvm", "tdxvm", "azurevm"].map(str::to_owned).to_vec();
    let policy = MaaPolicy { rules: rules.clone(), types, ..MaaPolicy::new(rules.issuer) };
    let mut claims =
        with_keys(name, shared, |keys, e| token::verify_maa(token, keys, &policy, e, now))?;
    claims.not_checked.extend(not_checked);
    claims.not_checked.extend(host_acpi(&claims.attestation_type));
    Ok(Submodule { claims: EvidenceClaims::Maa(Box::new(claims)), refusals })
}

fn ita(name: &str, token: &Token, issuer: Issuer, shared: &Shared, now: u64) -> Verified {
    let Issuer { rules, not_checked, refusals } = issuer;
    let policy = ItaPolicy { rules: rules.clone(), ..ItaPolicy::new(rules.issuer) };
    let mut claims =
        with_keys(name, shared, |keys, e| token::verify_ita(token, keys, &policy, e, now))?;
    claims.not_checked.extend(not_checked);
    claims.not_checked.extend(host_acpi(&claims.attester_type));
    Ok(Submodule { claims: EvidenceClaims::Ita(Box::new(claims)), refusals })
}

/// An enclave has no kernel that would run such code.
fn host_acpi(tee: &str) -> Option<NotChecked> {
    (!tee.eq_ignore_ascii_case("sgx")).then(acpi::in_a_token)
}

/// The tokens of NVIDIA's service.
pub(super) fn nras(name: &str, bytes: &[u8], shared: &Shared, terms: &Terms) -> Verified {
    let bundle = DetachedEat::parse(bytes).map_err(|e| Refusal::new(name, &e))?;
    let Issuer { rules, not_checked, refusals } = issuer(&bundle.overall, shared, terms)?;
    let policy = NrasPolicy { rules: rules.clone(), ..NrasPolicy::new(rules.issuer) };
    let mut claims = with_keys(name, shared, |keys, e| {
        token::verify_nras(&bundle, keys, &policy, e, terms.now)
    })?;
    claims.not_checked.extend(not_checked);
    Ok(Submodule { claims: EvidenceClaims::Nras(Box::new(claims)), refusals })
}

/// A verdict of our own verifier, or of Trustee: good only where every attester's is.
fn appraised(ear: EarToken, issuer: Issuer) -> Submodule {
    let Issuer { not_checked, mut refusals, .. } = issuer;
    // A warning says that checks were left out; the claims list them.
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
    Submodule { claims: EvidenceClaims::Ear(Box::new(EarClaims { ear, not_checked })), refusals }
}

/// Who must have issued a token.
struct Issuer {
    rules: Rules,
    not_checked: Vec<NotChecked>,
    refusals: Vec<Refusal>,
}

/// The issuer's rules. Where nobody named an issuer, there is only the token's own word: it is
/// refused, unless that is wanted.
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
