//! The attestation token: an EAT attestation result (EAR) as a JWT, ES256.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Fault, Reason, Refusal, SessionKeys, Verified, session::Id, session::Session};
use crate::{binding::Binding, messages::RuntimeData};

/// Seconds a token is good for; never longer than its session.
const TOKEN_SECONDS: u64 = 300;
/// The longest token that is looked at, in characters.
const MAX_TOKEN: usize = 64 * 1024;
/// The one header. A token that names another algorithm, or brings its own key, is not ours.
const HEADER: &str = r#"{"alg":"ES256","typ":"JWT"}"#;

/// The claims of an attested session: the token's, and the policy's input.
pub(super) fn claims(session: &Session, runtime_data: &RuntimeData, verified: &Verified, now: u64) -> Value {
    let evidence = json!({
        session.tee.name(): verified.claims,
        "report_data": hex(&Binding::new(runtime_data, "").0),
        "runtime_data_claims": {
            "additional-evidence": "",
            "nonce": runtime_data.nonce,
            "tee-pubkey": runtime_data.tee_pubkey,
        },
    });
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
        "submods": {
            "cpu0": {
                "ear.status": verified.status,
                "ear.appraisal-policy-id": "default",
                "ear.veraison.annotated-evidence": evidence,
            },
        },
        "flare-cvm": { "tee": session.tee, "trust": verified.trust },
    })
}

pub(super) fn sign(keys: &SessionKeys, claims: &Value) -> Result<String, Fault> {
    let mut claims = claims.clone();
    // A boot's event log has a hundred entries: of use to the policy, too much for an HTTP header.
    if let Some(Value::Object(evidence)) = claims.pointer_mut("/submods/cpu0/ear.veraison.annotated-evidence") {
        for kind in evidence.values_mut().filter_map(Value::as_object_mut) {
            kind.retain(|name, _| !["event_log", "uefi_event_logs"].contains(&name.as_str()));
        }
    }
    let payload = serde_json::to_vec(&claims).map_err(|e| Fault::new("writing a token", e))?;
    let signed = format!("{}.{}", B64.encode(HEADER), B64.encode(payload));
    let signature = B64.encode(keys.sign(signed.as_bytes()));
    Ok(format!("{signed}.{signature}"))
}

/// Checks a token of ours and names its session.
pub(super) fn verify(keys: &SessionKeys, token: &str, now: u64) -> Result<Id, Refusal> {
    let forged = || Refusal::new(Reason::SessionForged, "the token is not one of ours, or was changed");
    if token.len() > MAX_TOKEN {
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
    let claims: OwnClaims = serde_json::from_slice(&payload).map_err(|_| forged())?;
    if claims.exp <= now {
        return Err(Refusal::new(Reason::SessionExpired, "the token's five minutes are over"));
    }
    claims.jti.parse::<cvm_base::Bytes16>().map(|id| Id(id.0)).map_err(|_| forged())
}

#[derive(Deserialize)]
struct OwnClaims {
    exp: u64,
    jti: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Entry point for the fuzzer: an `Authorization` header's token.
#[doc(hidden)]
pub fn fuzz_token(bytes: &[u8]) {
    if let (Ok(token), Ok(keys)) = (std::str::from_utf8(bytes), SessionKeys::derive(&[7; 32])) {
        let _ = verify(&keys, token, 0);
    }
}
