//! NVIDIA's result policies ("appraisal policy for attestation results"), evaluated as its SDK
//! does.
//!
//! A policy is JSON: `version` and `authorization-rules`. Version 1.0 (`gpu_utils.py` of SDK 1)
//! lists claims of one GPU; later ones (`claim_utils.py`, `local_utils.py` of SDK 2) have rules for
//! the `overall-claims` and for the `detached-claims` of each device. In all of them a rule holds
//! if the claim is there and equals the rule; an object's members are compared one by one, and may
//! be fewer than the claim's; everything else is compared whole, as Python compares (`true` equals
//! 1). The SDK stops at the first rule that does not hold; here all of them are named, with the
//! same verdict.
//!
//! Stricter than the SDK, which would accept or crash: a policy without rules, a version-1.0 rule
//! that is not one of the 28 claims, members of no known meaning, claims of no device.

use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ChainClaims, GpuClaims, GpuError, Measres, SwitchClaims};

/// NVIDIA's have 2 KiB.
pub const MAX_POLICY_BYTES: usize = 64 * 1024;
const ISSUER_GPU: &str = "LOCAL_GPU_VERIFIER";
const ISSUER_SWITCH: &str = "LOCAL_SWITCH_VERIFIER";

/// The 28 claims of version 1.0, after `x-nv-gpu-`, and the name that SDK 1.1 gave the last but
/// one.
const VERSION_1_0: [&str; 29] = [
    "available",
    "attestation-report-available",
    "info-fetched",
    "arch-check",
    "root-cert-available",
    "cert-chain-verified",
    "ocsp-cert-chain-verified",
    "ocsp-signature-verified",
    "cert-ocsp-nonce-match",
    "cert-check-complete",
    "measurement-available",
    "attestation-report-parsed",
    "nonce-match",
    "attestation-report-driver-version-match",
    "attestation-report-vbios-version-match",
    "attestation-report-verified",
    "driver-rim-schema-fetched",
    "driver-rim-schema-validated",
    "driver-rim-cert-extracted",
    "driver-rim-signature-verified",
    "driver-rim-driver-measurements-available",
    "driver-vbios-rim-fetched",
    "vbios-rim-schema-validated",
    "vbios-rim-cert-extracted",
    "vbios-rim-signature-verified",
    "vbios-rim-driver-measurements-available",
    "vbios-index-conflict",
    "measurements-match",
    NO_CONFLICT,
];
const NO_CONFLICT: &str = "vbios-index-no-conflict";

/// A policy that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultPolicy {
    version: String,
    rules: Rules,
}

#[derive(Debug, Clone, PartialEq)]
enum Rules {
    Flat(Map<String, Value>),
    Detached { token_type: Value, overall: Map<String, Value>, detached: Map<String, Value> },
}

/// What a policy is evaluated on: a token's content, ours or a verified one of NVIDIA's service.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimSet {
    /// Claims of all devices together.
    pub overall: Map<String, Value>,
    /// Claims of each device, under its name: `GPU-0`.
    pub devices: Vec<(String, Map<String, Value>)>,
}

/// A rule that does not hold.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyMismatch {
    /// `overall`, `GPU-0`, `SWITCH-3`, ….
    pub device: String,
    /// The claim; a member of one after a `/`.
    pub rule: String,
    /// What the policy requires.
    pub expected: Value,
    /// What the claims say; `None` when they say nothing.
    pub found: Option<Value>,
    /// Which check was not made, where that is why.
    pub reason: Option<String>,
}

impl fmt::Display for PolicyMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, rule, expected, found, reason } = self;
        match found {
            Some(found) => {
                write!(f, "{device}: {rule} is {found}, the policy requires {expected}")?
            }
            None => write!(f, "{device}: {rule} is not claimed, the policy requires {expected}")?,
        }
        reason.as_ref().map_or(Ok(()), |reason| write!(f, " (not checked: {reason})"))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    #[serde(rename = "authorization-rules")]
    rules: Map<String, Value>,
}

impl ResultPolicy {
    /// Reads a policy of version 1.0, 2.x, 3.x or 4.0.
    ///
    /// # Errors
    /// [`GpuError::ResultPolicy`] for another form or version, [`GpuError::UnknownRule`] for a rule
    /// of version 1.0 that is not one of its 28.
    pub fn parse(bytes: &[u8]) -> Result<Self, GpuError> {
        let fail = |problem: String| GpuError::ResultPolicy { problem };
        if bytes.len() > MAX_POLICY_BYTES {
            return Err(fail(format!("{} bytes, at most {MAX_POLICY_BYTES} allowed", bytes.len())));
        }
        let File { version, mut rules } =
            serde_json::from_slice(bytes).map_err(|e| fail(e.to_string()))?;
        let version: String = version.chars().take(16).collect();
        let claim = |rule: &str| {
            rule.strip_prefix("x-nv-gpu-").is_some_and(|rule| VERSION_1_0.contains(&rule))
        };
        let rules = match version.as_str() {
            "1.0" => match rules.keys().find(|rule| !claim(rule)) {
                Some(rule) => {
                    return Err(GpuError::UnknownRule {
                        version,
                        rule: rule.chars().take(120).collect(),
                    });
                }
                None => Rules::Flat(rules),
            },
            known if known == "4.0" || known.starts_with("2.") || known.starts_with("3.") => {
                let mut take = |name: &str| match rules.remove(name) {
                    Some(Value::Object(members)) => Ok(members),
                    _ => Err(fail(format!("no object {name:?} in the authorization-rules"))),
                };
                let (overall, detached) = (take("overall-claims")?, take("detached-claims")?);
                let token_type = rules.remove("type").ok_or_else(|| fail("no \"type\"".into()))?;
                if let Some(rest) = rules.keys().next() {
                    return Err(fail(format!(
                        "{rest:.120?} in the authorization-rules has no known meaning"
                    )));
                }
                Rules::Detached { token_type, overall, detached }
            }
            _ => return Err(fail(format!("version {version:?}; known are 1.0, 2.x, 3.x and 4.0"))),
        };
        let empty = match &rules {
            Rules::Flat(rules) => rules.is_empty(),
            Rules::Detached { overall, detached, .. } => overall.is_empty() && detached.is_empty(),
        };
        if empty {
            Err(fail("it has no rules, so it would accept anything".into()))
        } else {
            Ok(Self { version, rules })
        }
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Evaluates the policy on verified claims of GPUs.
    ///
    /// # Errors
    /// Every rule that does not hold.
    pub fn evaluate(&self, claims: &[GpuClaims]) -> Result<(), Vec<PolicyMismatch>> {
        self.evaluate_set(&ClaimSet::of_gpus(claims, self.claims_version()))
    }

    /// Evaluates the policy on verified claims of switches.
    ///
    /// # Errors
    /// Every rule that does not hold.
    pub fn evaluate_switches(&self, claims: &[SwitchClaims]) -> Result<(), Vec<PolicyMismatch>> {
        self.evaluate_set(&ClaimSet::of_switches(claims, self.claims_version()))
    }

    /// Evaluates the policy on a machine's devices: on those of the kind that its rules name, where
    /// they name one.
    ///
    /// # Errors
    /// Every rule that does not hold; without any device of that kind, that.
    pub fn evaluate_devices(
        &self,
        gpus: &[GpuClaims],
        switches: &[SwitchClaims],
    ) -> Result<(), Vec<PolicyMismatch>> {
        let (of_gpus, of_switches) = match (self.names("gpu"), self.names("switch")) {
            (false, true) => (false, true),
            (true, false) => (true, false),
            _ => (!gpus.is_empty() || switches.is_empty(), !switches.is_empty()),
        };
        let mut broken = Vec::new();
        if of_gpus {
            broken.extend(self.evaluate(gpus).err().unwrap_or_default());
        }
        if of_switches {
            broken.extend(self.evaluate_switches(switches).err().unwrap_or_default());
        }
        if broken.is_empty() { Ok(()) } else { Err(broken) }
    }

    /// Whether a rule is of such devices: `x-nvidia-switch-…`, `x-nv-gpu-…`.
    fn names(&self, kind: &str) -> bool {
        let (Rules::Flat(rules) | Rules::Detached { detached: rules, .. }) = &self.rules;
        rules.keys().any(|rule| rule.contains(&format!("-{kind}-")))
    }

    /// Evaluates the policy on any token's claims.
    ///
    /// # Errors
    /// Every rule that does not hold.
    pub fn evaluate_set(&self, claims: &ClaimSet) -> Result<(), Vec<PolicyMismatch>> {
        let mut broken = Vec::new();
        if claims.devices.is_empty() {
            broken.push(mismatch(
                "overall",
                "devices",
                &json!("at least one"),
                Some(&json!(0)),
                &Map::new(),
            ));
        }
        let detached = match &self.rules {
            Rules::Flat(rules) => rules,
            Rules::Detached { token_type, overall, detached } => {
                if token_type != "JWT" {
                    broken.push(mismatch(
                        "overall",
                        "type",
                        token_type,
                        Some(&json!("JWT")),
                        &Map::new(),
                    ));
                }
                compare("overall", "", overall, &claims.overall, &claims.overall, &mut broken);
                detached
            }
        };
        for (device, claims) in &claims.devices {
            compare(device, "", detached, claims, claims, &mut broken);
        }
        if broken.is_empty() { Ok(()) } else { Err(broken) }
    }

    /// The version of the vocabulary that the policy is written for: its caller sets it in NVIDIA's
    /// SDK.
    fn claims_version(&self) -> &'static str {
        match &self.rules {
            Rules::Detached { overall, .. }
                if overall.get("x-nvidia-ver") == Some(&json!("2.0")) =>
            {
                "2.0"
            }
            _ => "3.0",
        }
    }
}

impl ClaimSet {
    /// Claims of GPUs, as NVIDIA's local verifier would put them into a token. `version` is the
    /// claims': `2.0` or `3.0`.
    pub fn of_gpus(claims: &[GpuClaims], version: &str) -> Self {
        let device = |claims: &GpuClaims| {
            let mut members = object(serde_json::to_value(claims).unwrap_or_default());
            let validated =
                |chain: Option<&ChainClaims>| json!(chain.is_some_and(ChainClaims::ocsp_good));
            let chains = [
                (
                    "x-nvidia-gpu-attestation-report-cert-chain-validated",
                    Some(&claims.report.chain),
                ),
                ("x-nvidia-gpu-driver-rim-cert-validated", claims.driver_rim.chain.as_ref()),
                ("x-nvidia-gpu-vbios-rim-cert-validated", claims.vbios_rim.chain.as_ref()),
            ];
            // Version 2.0 has one boolean for a chain, its revocation included.
            members.extend(chains.map(|(name, chain)| (name.to_owned(), validated(chain))));
            let no_conflict = json!(claims.legacy.x_nv_gpu_vbios_index_conflict);
            members.insert(format!("x-nv-gpu-{NO_CONFLICT}"), no_conflict);
            members.insert("iss".into(), json!(ISSUER_GPU));
            members
        };
        let good = |claims: &GpuClaims| {
            let chains = [
                Some(&claims.report.chain),
                claims.driver_rim.chain.as_ref(),
                claims.vbios_rim.chain.as_ref(),
            ];
            is_good(claims.facts.measres, claims.report.nonce_match, &chains)
        };
        let nonce = claims.first().map(|claims| claims.facts.eat_nonce.as_str());
        let notes = claims.iter().flat_map(|claims| &claims.facts.not_checked).collect();
        Self::new(
            ISSUER_GPU,
            version,
            claims.iter().all(good),
            nonce,
            notes,
            "GPU",
            claims.iter().map(device),
        )
    }

    /// Claims of switches, as NVIDIA's local verifier would put them into a token.
    pub fn of_switches(claims: &[SwitchClaims], version: &str) -> Self {
        let device = |claims: &SwitchClaims| {
            let mut members = object(serde_json::to_value(claims).unwrap_or_default());
            let validated =
                |chain: Option<&ChainClaims>| json!(chain.is_some_and(ChainClaims::ocsp_good));
            let chains = [
                (
                    "x-nvidia-switch-attestation-report-cert-chain-validated",
                    Some(&claims.report.chain),
                ),
                ("x-nvidia-switch-bios-rim-cert-validated", claims.bios_rim.chain.as_ref()),
            ];
            members.extend(chains.map(|(name, chain)| (name.to_owned(), validated(chain))));
            members.insert("iss".into(), json!(ISSUER_SWITCH));
            members
        };
        let good = |claims: &SwitchClaims| {
            is_good(
                claims.facts.measres,
                claims.report.nonce_match,
                &[Some(&claims.report.chain), claims.bios_rim.chain.as_ref()],
            )
        };
        let nonce = claims.first().map(|claims| claims.facts.eat_nonce.as_str());
        let notes = claims.iter().flat_map(|claims| &claims.facts.not_checked).collect();
        Self::new(
            ISSUER_SWITCH,
            version,
            claims.iter().all(good),
            nonce,
            notes,
            "SWITCH",
            claims.iter().map(device),
        )
    }

    fn new(
        issuer: &str,
        version: &str,
        good: bool,
        nonce: Option<&str>,
        not_checked: Vec<&crate::NotChecked>,
        kind: &str,
        devices: impl Iterator<Item = Map<String, Value>>,
    ) -> Self {
        let devices: Vec<_> = devices
            .enumerate()
            .map(|(index, claims)| (format!("{kind}-{index}"), claims))
            .collect();
        let overall = json!({
            "sub": "NVIDIA-PLATFORM-ATTESTATION",
            "iss": issuer,
            "x-nvidia-ver": version,
            "x-nvidia-overall-att-result": good && !devices.is_empty(),
            "eat_nonce": nonce,
            "not_checked": not_checked,
        });
        Self { overall: object(overall), devices }
    }
}

/// What NVIDIA's SDK asks of a device before it calls the whole attested
/// (`create_overall_result_evaluator`).
fn is_good(measres: Measres, nonce: bool, chains: &[Option<&ChainClaims>]) -> bool {
    let good = |chain: &ChainClaims| chain.ocsp_good() && chain.ocsp_nonce_matches;
    measres == Measres::Success && nonce && chains.iter().all(|chain| chain.is_some_and(good))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// `validate_claims` of NVIDIA's SDK.
fn compare(
    device: &str,
    path: &str,
    rules: &Map<String, Value>,
    claims: &Map<String, Value>,
    all: &Map<String, Value>,
    broken: &mut Vec<PolicyMismatch>,
) {
    for (name, expected) in rules {
        let rule = format!("{path}{name}");
        match (expected, claims.get(name)) {
            (Value::Object(rules), Some(Value::Object(claims))) => {
                compare(device, &format!("{rule}/"), rules, claims, all, broken);
            }
            (expected, Some(found)) if equal(expected, found) => {}
            (expected, found) => broken.push(mismatch(device, &rule, expected, found, all)),
        }
    }
}

fn mismatch(
    device: &str,
    rule: &str,
    expected: &Value,
    found: Option<&Value>,
    all: &Map<String, Value>,
) -> PolicyMismatch {
    let about: &[&str] = if rule.contains("ocsp") || rule.contains("cert") {
        &["ocsp", "ocsp-nonce", "rim"]
    } else if rule.contains("overall") {
        &["nonce", "rim", "ocsp", "ocsp-nonce"]
    } else if rule.contains("nonce") {
        &["nonce"]
    } else {
        &["rim"]
    };
    let notes = all.get("not_checked").and_then(Value::as_array).into_iter().flatten();
    let text = |note: &Value, member: &str| {
        note.get(member).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let reasons: Vec<String> = notes
        .filter(|note| about.contains(&text(note, "check").as_str()))
        .map(|note| format!("{}: {}", text(note, "check"), text(note, "reason")))
        .collect();
    PolicyMismatch {
        device: device.into(),
        rule: rule.into(),
        expected: expected.clone(),
        found: found.cloned(),
        reason: if reasons.is_empty() { None } else { Some(reasons.join("; ")) },
    }
}

/// Python's `==` on what its JSON reader makes: booleans are the numbers 0 and 1.
fn equal(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::Number(number) => number.as_f64(),
        _ => None,
    };
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        (Value::Number(a), Value::Number(b)) if a.is_u64() == b.is_u64() && !a.is_f64() => a == b,
        _ => match (number(a), number(b)) {
            (Some(a), Some(b)) => a == b,
            (None, None) => a == b,
            _ => false,
        },
    }
}
