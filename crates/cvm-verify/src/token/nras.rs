//! NVIDIA Remote Attestation Service: detached EAT bundles over GPUs and NVSwitches, claim versions
//! 2.0 and 3.0.
//!
//! Layout: RFC 9711 §5 (detached EAT bundle) as NRAS writes it: `[["JWT", overall], {"GPU-0":
//! device, …}]`. The overall token names each device's token by the SHA-256 of its compact text.
//! Claims: NVIDIA, "GPU claims" and "nvSwitch claims".

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Expected, KeySet, Registered, Rules, Token, TokenError,
    json::short,
    rules::{boolean, map, mismatch, text},
};
use crate::{NotChecked, gpu::ClaimSet};

/// The longest bundle that is looked at; a device's token has some 3 KiB, and a machine 12 devices.
pub const MAX_DETACHED_BYTES: usize = 1024 * 1024;
const MAX_DEVICES: usize = 64;

/// What of NVIDIA's verdict is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NrasPolicy {
    /// Issuer (`https://nras.attestation.nvidia.com`), audience, time.
    pub rules: Rules,
    /// Accept devices whose debug status is not `disabled`.
    pub allow_debug: bool,
    /// Accept devices that did not boot securely.
    pub allow_insecure_boot: bool,
    /// Accept devices for which NVIDIA has a warning.
    pub allow_warnings: bool,
    /// How many devices there must be.
    pub devices: Option<usize>,
}

impl NrasPolicy {
    /// Devices of this issuer without debugger, with secure boot, without warnings; any number but
    /// none.
    pub fn new(issuer: impl Into<String>) -> Self {
        Self {
            rules: Rules::new(issuer),
            allow_debug: false,
            allow_insecure_boot: false,
            allow_warnings: false,
            devices: None,
        }
    }
}

/// A detached EAT bundle, read and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachedEat {
    /// The verdict over all devices.
    pub overall: Token,
    /// Each device's token, by its name.
    pub devices: BTreeMap<String, Token>,
}

impl DetachedEat {
    /// Reads the service's answer.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] for another form, too many devices or more than
    /// [`MAX_DETACHED_BYTES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TokenError> {
        let malformed = |problem: String| TokenError::malformed("the detached EAT", problem);
        if bytes.len() > MAX_DETACHED_BYTES {
            return Err(malformed(format!(
                "{} bytes, at most {MAX_DETACHED_BYTES} allowed",
                bytes.len()
            )));
        }
        let value = super::json::value("the detached EAT", bytes)?;
        let parts = value.as_array().map(Vec::as_slice);
        let Some([overall, Value::Object(devices)]) = parts else {
            return Err(malformed("expected [[\"JWT\", token], {name: token, …}]".into()));
        };
        let overall = match overall.as_array().map(Vec::as_slice) {
            Some([Value::String(kind), Value::String(token)]) if kind == "JWT" => {
                Token::parse(token.as_bytes())?
            }
            _ => return Err(malformed("its first element is not [\"JWT\", token]".into())),
        };
        if devices.len() > MAX_DEVICES {
            return Err(malformed(format!(
                "{} devices, at most {MAX_DEVICES} allowed",
                devices.len()
            )));
        }
        let device = |(name, token): (&String, &Value)| match token {
            Value::String(token) => Ok((name.clone(), Token::parse(token.as_bytes())?)),
            _ => Err(malformed(format!(
                "{:?} is not a token; NVIDIA's SDK wraps NRAS' answer: give the inner one",
                short(name)
            ))),
        };
        let devices = devices.iter().map(device).collect::<Result<_, _>>()?;
        Ok(Self { overall, devices })
    }
}

/// What NVIDIA says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NrasClaims {
    /// Issuer and times of the overall token.
    #[serde(flatten)]
    pub registered: Registered,
    /// `x-nvidia-ver`: `2.0` or `3.0`.
    pub version: String,
    /// `eat_nonce`, hex; the same in every token.
    pub nonce: String,
    /// `x-nvidia-overall-att-result`; never false here.
    pub overall_result: bool,
    /// The overall token's claims, as NVIDIA wrote them.
    pub overall: Map<String, Value>,
    /// Each device's claims, as NVIDIA wrote them.
    pub devices: BTreeMap<String, Map<String, Value>>,
    /// What was not checked, and why.
    pub not_checked: Vec<NotChecked>,
}

impl NrasClaims {
    /// The member of `ear.veraison.annotated-evidence`: `{"nras": …}`.
    pub fn to_json(&self) -> Value {
        json!({ "nras": self })
    }

    /// What NVIDIA's result policies judge.
    pub fn claim_set(&self) -> ClaimSet {
        let devices = self.devices.iter().map(|(name, claims)| (name.clone(), claims.clone()));
        ClaimSet { overall: self.overall.clone(), devices: devices.collect() }
    }
}

/// Verifies a bundle against NVIDIA's keys, as given.
///
/// # Errors
/// [`TokenError`], for the first check that fails.
pub fn verify_nras(
    bundle: &DetachedEat,
    keys: &KeySet,
    policy: &NrasPolicy,
    expected: &Expected<'_>,
    now: u64,
) -> Result<NrasClaims, TokenError> {
    let mut not_checked = Vec::new();
    let overall = bundle.overall.verify(keys, now)?;
    let registered = policy.rules.check(&overall, now, &mut not_checked)?;
    let version = text(&overall, "x-nvidia-ver")?.unwrap_or_default().to_owned();
    if !matches!(version.as_str(), "2.0" | "3.0") {
        return Err(TokenError::claims(format!(
            "x-nvidia-ver is {:?}, expected 2.0 or 3.0",
            short(&version)
        )));
    }
    let nonce =
        text(&overall, "eat_nonce")?.ok_or_else(|| TokenError::claims("no eat_nonce"))?.to_owned();
    check_nonce(&nonce, expected, &mut not_checked)?;
    check_digests(&overall, bundle)?;
    if boolean(&overall, "x-nvidia-overall-att-result")? != Some(true) {
        return Err(TokenError::refused("x-nvidia-overall-att-result", "true", "not true"));
    }
    let count = bundle.devices.len();
    if count == 0 || policy.devices.is_some_and(|wanted| wanted != count) {
        let wanted = policy.devices.map_or("at least 1".into(), |wanted| wanted.to_string());
        return Err(TokenError::refused("number of devices", wanted, count.to_string()));
    }
    let mut devices = BTreeMap::new();
    for (name, token) in &bundle.devices {
        let claims = token.verify(keys, now)?;
        // The audience is noted once, for the overall token.
        policy.rules.check(&claims, now, &mut Vec::new())?;
        if text(&claims, "eat_nonce")? != Some(nonce.as_str()) {
            let found = text(&claims, "eat_nonce")?.unwrap_or("absent");
            return Err(TokenError::Nonce {
                claim: format!("{name} eat_nonce"),
                expected: short(&nonce),
                found: short(found),
            });
        }
        policy.accept(name, &version, &claims)?;
        devices.insert(name.clone(), claims);
    }
    Ok(NrasClaims {
        registered,
        version,
        nonce,
        overall_result: true,
        overall,
        devices,
        not_checked,
    })
}

fn check_nonce(
    nonce: &str,
    expected: &Expected<'_>,
    not_checked: &mut Vec<NotChecked>,
) -> Result<(), TokenError> {
    // A GPU's report carries nothing but the nonce: expected report data are compared with it.
    for wanted in [expected.nonce, expected.report_data].into_iter().flatten() {
        if wanted.is_empty() || hex::decode(nonce).ok().as_deref() != Some(wanted) {
            return Err(mismatch("eat_nonce", wanted, nonce));
        }
    }
    expected.note_unchecked(not_checked);
    Ok(())
}

/// `submods`: exactly the devices' tokens, each by `["DIGEST", ["SHA-256", hex]]`.
fn check_digests(overall: &Map<String, Value>, bundle: &DetachedEat) -> Result<(), TokenError> {
    let submods = map(overall, "submods")?
        .ok_or_else(|| TokenError::claims("no submods in the overall token"))?;
    let names = |names: BTreeSet<&String>| {
        names.into_iter().map(|name| short(name)).collect::<Vec<_>>().join(", ")
    };
    let (named, given): (BTreeSet<_>, BTreeSet<_>) =
        (submods.keys().collect(), bundle.devices.keys().collect());
    if named != given {
        return Err(TokenError::claims(format!(
            "the overall token is over {}; given are {}",
            names(named),
            names(given)
        )));
    }
    for (name, token) in &bundle.devices {
        let digest = match submods.get(name).and_then(Value::as_array).map(Vec::as_slice) {
            Some([kind, Value::Array(digest)]) if kind == "DIGEST" => digest.as_slice(),
            _ => {
                return Err(TokenError::claims(format!(
                    "submods {:?} is not [\"DIGEST\", …]",
                    short(name)
                )));
            }
        };
        let [Value::String(algorithm), Value::String(digest)] = digest else {
            return Err(TokenError::claims(format!("submods {:?} holds no digest", short(name))));
        };
        if !matches!(algorithm.as_str(), "SHA-256" | "SHA256")
            || *digest != token.sha256().to_string()
        {
            let found = format!("{} {}", short(algorithm), short(digest));
            let problem = format!(
                "the token of {:?} has SHA-256 {}, the overall token says {found}",
                short(name),
                token.sha256()
            );
            return Err(TokenError::claims(problem));
        }
    }
    Ok(())
}

impl NrasPolicy {
    /// NVIDIA's verdict is made of booleans, one for each check: all of them must be good, and the
    /// essential ones must be there.
    fn accept(
        &self,
        name: &str,
        version: &str,
        claims: &Map<String, Value>,
    ) -> Result<(), TokenError> {
        let refused = |claim: &str, expected: &str, found: &str| {
            Err(TokenError::refused(&format!("{} {claim}", short(name)), expected, short(found)))
        };
        let result = text(claims, "measres")?.unwrap_or("absent");
        if !matches!(result, "success" | "comparison-successful") {
            return refused("measres", "success", result);
        }
        let prefix = if claims.keys().any(|claim| claim.starts_with("x-nvidia-switch-")) {
            "switch"
        } else {
            "gpu"
        };
        for check in ["report-parsed", "report-nonce-match", "report-signature-verified"] {
            let claim = format!("x-nvidia-{prefix}-attestation-{check}");
            if boolean(claims, &claim)? != Some(true) {
                return refused(&claim, "true", "not true");
            }
        }
        let chain = format!("x-nvidia-{prefix}-attestation-report-cert-chain");
        let certified = match version {
            "2.0" => {
                boolean(claims, &format!("{chain}-validated"))? == Some(true)
                    || claims.contains_key(&chain)
            }
            _ => claims.get(&chain).is_some_and(Value::is_object),
        };
        if !certified {
            return refused(&chain, "valid", "absent");
        }
        for (claim, value) in claims.iter().filter(|(claim, _)| claim.starts_with("x-nvidia-")) {
            match value {
                Value::Bool(false) => return refused(claim, "true", "false"),
                Value::Object(chain) => accept_chain(name, claim, chain)?,
                _ => {}
            }
        }
        let debug = text(claims, "dbgstat")?.unwrap_or("absent");
        if !debug.starts_with("disabled") && !self.allow_debug {
            return refused("dbgstat", "disabled", debug);
        }
        if boolean(claims, "secboot")? != Some(true) && !self.allow_insecure_boot {
            return refused("secboot", "true", "not true");
        }
        match claims.get("x-nvidia-attestation-warning") {
            None | Some(Value::Null) => Ok(()),
            Some(_) if self.allow_warnings => Ok(()),
            Some(warning) => refused("x-nvidia-attestation-warning", "none", &warning.to_string()),
        }
    }
}

/// Version 3.0: a chain's dates and its revocation status; 2.0: details, one boolean for each.
fn accept_chain(device: &str, claim: &str, chain: &Map<String, Value>) -> Result<(), TokenError> {
    let refused = |member: &str, expected: &str, found: &str| {
        Err(TokenError::refused(
            &format!("{} {claim} {member}", short(device)),
            expected,
            short(found),
        ))
    };
    for (member, wanted) in
        [("x-nvidia-cert-status", "valid"), ("x-nvidia-cert-ocsp-status", "good")]
    {
        match text(chain, member)? {
            Some(found) if found != wanted => return refused(member, wanted, found),
            None if claim.ends_with("-cert-chain") => return refused(member, wanted, "absent"),
            _ => {}
        }
    }
    if let Some((member, _)) = chain.iter().find(|(_, value)| **value == Value::Bool(false)) {
        return refused(member, "true", "false");
    }
    match text(chain, "x-nvidia-cert-revocation-reason")? {
        Some(reason) => refused("x-nvidia-cert-revocation-reason", "none", reason),
        None => Ok(()),
    }
}
