//! What every token must answer: who issued it, for whom, when, and over which challenge.

use cvm_base::time::rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    TokenError,
    json::{self, short},
};
use crate::NotChecked;

/// Seconds by which clocks may differ, unless the policy says otherwise. A guest's clock that is
/// tens of seconds slow must not make every fresh token come from the future.
pub const DEFAULT_LEEWAY: u64 = 120;
/// More would not be a difference between clocks.
pub const MAX_LEEWAY: u64 = 600;

/// Issuer, audience and time, as the policy wants them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// `iss`, exactly.
    pub issuer: String,
    /// One of `aud`. MAA, ITA and NRAS name no audience; with `None` a token that names one is
    /// refused (RFC 7519 §4.1.3), and its absence is listed as not checked.
    pub audience: Option<String>,
    /// Seconds by which `exp`, `nbf` and `iat` may be missed; at most [`MAX_LEEWAY`].
    pub leeway: u64,
    /// Seconds after `iat` at which a token is too old whatever its `exp` says.
    pub max_age: Option<u64>,
}

impl Rules {
    /// The issuer named, no audience, [`DEFAULT_LEEWAY`].
    pub fn new(issuer: impl Into<String>) -> Self {
        Self { issuer: issuer.into(), audience: None, leeway: DEFAULT_LEEWAY, max_age: None }
    }
}

/// The challenge that a token must answer; what is `None` is listed as not checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected<'a> {
    /// The nonce that was given to the service, or to the TEE for it.
    pub nonce: Option<&'a [u8]>,
    /// How the TEE's report data begins; what follows must be zeros.
    pub report_data: Option<&'a [u8]>,
}

impl Expected<'_> {
    /// Compares a claim in hex, 64 bytes in every TEE, with what it must begin with.
    pub(super) fn check_report_data(
        &self,
        claim: &str,
        found: Option<&str>,
    ) -> Result<(), TokenError> {
        let Some(expected) = self.report_data else { return Ok(()) };
        let bytes = found.and_then(|text| hex::decode(text).ok());
        let matches = bytes.is_some_and(|bytes| {
            bytes
                .strip_prefix(expected)
                .is_some_and(|rest| !expected.is_empty() && rest.iter().all(|byte| *byte == 0))
        });
        let fail = || mismatch(claim, expected, found.unwrap_or("absent"));
        if matches { Ok(()) } else { Err(fail()) }
    }

    /// Either of them shows freshness; with neither, a token may be anybody's of the last hours.
    pub(super) fn note_unchecked(&self, not_checked: &mut Vec<NotChecked>) {
        if self.nonce.is_none() && self.report_data.is_none() {
            not_checked
                .push(NotChecked::new("nonce", "no nonce and no report data to expect were given"));
        }
    }
}

pub(super) fn mismatch(claim: &str, expected: &[u8], found: &str) -> TokenError {
    TokenError::Nonce { claim: claim.into(), expected: hex::encode(expected), found: short(found) }
}

/// For AMD's processors a token states numbers, for others perhaps nothing: no policy here judges
/// either.
pub(super) fn unjudged_tcb() -> NotChecked {
    NotChecked::new(
        "tcb-status",
        "the token states no status of the platform: security updates may be missing",
    )
}

/// The registered claims (RFC 7519 §4.1) of a token that passed its [`Rules`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// `jti`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// `iat`, seconds since 1970 UTC.
    pub issued_at: u64,
    /// `nbf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// `exp`.
    pub expires_at: u64,
}

impl Rules {
    pub(super) fn check(
        &self,
        claims: &Map<String, Value>,
        now: u64,
        not_checked: &mut Vec<NotChecked>,
    ) -> Result<Registered, TokenError> {
        let issuer = text(claims, "iss")?.unwrap_or_default();
        if issuer != self.issuer || issuer.is_empty() {
            return Err(party("iss", &self.issuer, issuer));
        }
        let audience = audience(claims)?;
        match &self.audience {
            Some(wanted) if !audience.contains(wanted) => {
                return Err(party("aud", wanted, &audience.join(", ")));
            }
            None if !audience.is_empty() => return Err(party("aud", "none", &audience.join(", "))),
            None => not_checked.push(NotChecked::new(
                "audience",
                "the token names none, and the policy asks for none",
            )),
            Some(_) => {}
        }
        let registered = Registered {
            issuer: issuer.to_owned(),
            audience,
            token_id: text(claims, "jti")?.map(str::to_owned),
            issued_at: time(claims, "iat")?
                .ok_or_else(|| TokenError::claims("no iat: when it was issued"))?,
            not_before: time(claims, "nbf")?,
            expires_at: time(claims, "exp")?
                .ok_or_else(|| TokenError::claims("no exp: until when it is valid"))?,
        };
        self.check_time(&registered, now)?;
        Ok(registered)
    }

    fn check_time(&self, token: &Registered, now: u64) -> Result<(), TokenError> {
        let fail = |problem: String| Err(TokenError::Time { now, problem });
        let leeway = self.leeway;
        if leeway > MAX_LEEWAY {
            return fail(format!("a leeway of {leeway} s, at most {MAX_LEEWAY} allowed"));
        }
        if token.expires_at <= token.issued_at {
            return fail(format!(
                "exp {} is not after iat {}",
                rfc3339(token.expires_at),
                rfc3339(token.issued_at)
            ));
        }
        // RFC 7519 §4.1.4: on or after exp it is over.
        if now >= token.expires_at.saturating_add(leeway) {
            return fail(format!(
                "it expired at {} (leeway {leeway} s)",
                rfc3339(token.expires_at)
            ));
        }
        for (claim, time) in [("iat", Some(token.issued_at)), ("nbf", token.not_before)] {
            if let Some(time) = time.filter(|time| now.saturating_add(leeway) < *time) {
                return fail(format!(
                    "its {claim} is {}, in the future (leeway {leeway} s)",
                    rfc3339(time)
                ));
            }
        }
        match self.max_age {
            Some(age) if now > token.issued_at.saturating_add(age).saturating_add(leeway) => fail(
                format!("it was issued at {}, more than {age} s ago", rfc3339(token.issued_at)),
            ),
            _ => Ok(()),
        }
    }
}

fn party(claim: &'static str, expected: &str, found: &str) -> TokenError {
    let quote =
        |text: &str| if text.is_empty() { "absent".into() } else { format!("{:?}", short(text)) };
    TokenError::Party { claim, expected: quote(expected), found: quote(found) }
}

fn audience(claims: &Map<String, Value>) -> Result<Vec<String>, TokenError> {
    let wrong = || TokenError::claims("aud is neither a string nor an array of strings");
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(many)) => {
            many.iter().map(|one| one.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// Whole seconds only: no verifier writes anything else, and rounding is a decision.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| {
            TokenError::claims(format!(
                "{name} is {}, expected whole seconds since 1970",
                json::kind(value)
            ))
        }),
    }
}

/// A claim that is a string, or absent (`null` is absent).
pub(super) fn text<'a>(
    claims: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a str>, TokenError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => {
            Err(TokenError::claims(format!("{name} is {}, expected a string", json::kind(other))))
        }
    }
}

/// A claim that is a boolean, or absent.
pub(super) fn boolean(claims: &Map<String, Value>, name: &str) -> Result<Option<bool>, TokenError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(other) => {
            Err(TokenError::claims(format!("{name} is {}, expected a boolean", json::kind(other))))
        }
    }
}

/// A claim that is an object, or absent.
pub(super) fn map<'a>(
    claims: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a Map<String, Value>>, TokenError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(other) => {
            Err(TokenError::claims(format!("{name} is {}, expected an object", json::kind(other))))
        }
    }
}

/// A claim that is an array, or absent.
pub(super) fn list<'a>(
    claims: &'a Map<String, Value>,
    name: &str,
) -> Result<&'a [Value], TokenError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(other) => {
            Err(TokenError::claims(format!("{name} is {}, expected an array", json::kind(other))))
        }
    }
}
