//! The attestation token: an EAT attestation result (EAR) as a JWT, ES256.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use cvm_release::{binding::Binding, messages::RuntimeData, paths::MAX_TOKEN_CHARS};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    decision::{Reason, ReleaseRefusal},
    fault::Fault,
    keys::SessionKeys,
    session::{CookieSession, SessionId},
    traits::{Verified, VerifiedDevice},
};

/// Seconds a token is good for; never longer than its session.
const TOKEN_SECONDS: u64 = 300;
/// The one header. A token that names another algorithm, or brings its own key, is not ours.
const HEADER: &str = r#"{"alg":"ES256","typ":"JWT"}"#;

/// The claims of an attested session: the token's, and the policy's input.
pub(crate) fn claims(session: &CookieSession, evidence: &ShownEvidence<'_>, now: u64) -> Value {
    let ShownEvidence { runtime_data, additional, verified, devices } = evidence;
    let annotated = json!({
        session.tee.name(): verified.claims,
        "report_data": hex::encode(Binding::new(runtime_data, additional).0),
        "runtime_data_claims": {
            // The claims of devices are in submodules of their own. Their evidence is as long as a
            // request.
            "additional-evidence": if additional.is_empty() { "" } else { "(verified)" },
            "nonce": runtime_data.nonce,
            "tee-pubkey": runtime_data.tee_pubkey,
        },
    });
    let mut submods = json!({ "cpu0": appraisal(verified.status, annotated) });
    for VerifiedDevice { name, kind, claims, status } in *devices {
        let bound = hex::encode(Binding::of_devices(runtime_data).0);
        let annotated = json!({ *kind: claims, "report_data": bound });
        submods[name] = appraisal(status, annotated);
    }
    json!({
        "eat_profile": "tag:github.com,2024:confidential-containers/Trustee",
        "iss": "flare-cvm",
        "iat": now,
        "exp": session.expires.min(now.saturating_add(TOKEN_SECONDS)),
        "jti": session.id.to_string(),
        "ear.verifier-id": {
            "developer": "flare-cvm",
            "build": concat!("cvm-keyholder ", env!("CARGO_PKG_VERSION")),
        },
        "submods": submods,
        "flare-cvm": { "tee": session.tee, "trust": verified.trust },
    })
}

/// What an attested session showed.
pub(crate) struct ShownEvidence<'a> {
    pub runtime_data: &'a RuntimeData,
    /// The text.
    pub additional: &'a str,
    pub verified: &'a Verified,
    pub devices: &'a [VerifiedDevice],
}

fn appraisal(status: &str, evidence: Value) -> Value {
    json!({
        "ear.status": status,
        "ear.appraisal-policy-id": "default",
        "ear.veraison.annotated-evidence": evidence,
    })
}

/// Whether a claim is useful to the policy but too long for an HTTP header: a boot's event log has
/// a hundred entries, a GPU has sixty measurements, and each of its claims has a name in NVIDIA's
/// older vocabulary as well. What its manifests proved is in `measres`.
fn is_long(claim: &str) -> bool {
    ["event_log", "uefi_event_logs", "measurements", "config"].contains(&claim)
        || claim.contains("-rim-")
        || claim.starts_with("x-nv-gpu-")
}

/// The token of these claims, without the long ones.
///
/// # Errors
/// [`Reason::TooLarge`] for claims that no client could read, of some dozen devices.
pub(crate) fn sign(keys: &SessionKeys, claims: &Value) -> Result<String, ReleaseRefusal> {
    let mut claims = claims.clone();
    let submods = claims.get_mut("submods").and_then(Value::as_object_mut).into_iter().flatten();
    for (_, submod) in submods {
        let evidence =
            submod.get_mut("ear.veraison.annotated-evidence").and_then(Value::as_object_mut);
        for kind in evidence
            .into_iter()
            .flat_map(|evidence| evidence.values_mut())
            .filter_map(Value::as_object_mut)
        {
            kind.retain(|name, _| !is_long(name));
        }
    }
    let payload = serde_json::to_vec(&claims).map_err(|e| Fault::new("writing a token", e))?;
    let signed = format!("{}.{}", B64.encode(HEADER), B64.encode(payload));
    let signature = B64.encode(keys.sign(signed.as_bytes()));
    let token = format!("{signed}.{signature}");
    if token.len() > MAX_TOKEN_CHARS {
        let detail = format!(
            "its token would have {} characters, at most {MAX_TOKEN_CHARS} are read",
            token.len()
        );
        return Err(ReleaseRefusal::new(Reason::TooLarge, detail));
    }
    Ok(token)
}

/// Checks a token of ours and names its session.
pub(crate) fn verify(
    keys: &SessionKeys,
    token: &str,
    now: u64,
) -> Result<SessionId, ReleaseRefusal> {
    let forged = || {
        ReleaseRefusal::new(Reason::SessionForged, "the token is not one of ours, or was changed")
    };
    if token.len() > MAX_TOKEN_CHARS {
        return Err(forged());
    }
    let (signed, signature) = token.rsplit_once('.').ok_or_else(forged)?;
    let signature = B64.decode(signature).map_err(|_| forged())?;
    if !keys.verify(signed.as_bytes(), &signature) {
        return Err(forged());
    }
    let (header, payload) = signed.split_once('.').ok_or_else(forged)?;
    if header != B64.encode(HEADER) {
        return Err(forged());
    }
    let payload = B64.decode(payload).map_err(|_| forged())?;
    let claims: TokenClaims = serde_json::from_slice(&payload).map_err(|_| forged())?;
    if claims.exp <= now {
        return Err(ReleaseRefusal::new(
            Reason::SessionExpired,
            "the token's five minutes are over",
        ));
    }
    claims.jti.parse::<cvm_base::Bytes16>().map(|id| SessionId(id.0)).map_err(|_| forged())
}

#[derive(Deserialize)]
struct TokenClaims {
    exp: u64,
    jti: String,
}

/// Entry point for the fuzzer: an `Authorization` header's token.
#[doc(hidden)]
pub fn fuzz_token(bytes: &[u8]) {
    if let (Ok(token), Ok(keys)) = (std::str::from_utf8(bytes), SessionKeys::derive(&[7; 32])) {
        let _ = verify(&keys, token, 0);
    }
}
