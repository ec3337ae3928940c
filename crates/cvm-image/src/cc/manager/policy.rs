//! NVIDIA's result policy for GPU evidence, and the older `verifiers` arguments that name one.

use std::path::{Component as Part, Path};

use serde_json::{Map, Value};

use super::{
    ManagerError,
    kit::{Component, only, shown},
};
use crate::cc::section::{closest, cut};

/// NVIDIA's result policy 1.0: its 28 claims.
const POLICY_1_0: &str = include_str!("../../../../../keys/policies/nvidia-result-policy-1.0.json");
const VERSION: &str = "1.0";
/// More than any policy needs.
const MAX_BYTES: u64 = 64 * 1024;
const ENTRY: [&str; 5] = ["devices", "env", "url", "appraisal_policy_file", "result_policy_file"];

/// Checks an argument `verifiers`: NVFLARE's CC manager before 2.5 takes it, and its first GPU
/// authorizer.
pub(super) fn verifiers(kit: &Path, component: &Component) -> Result<(), ManagerError> {
    let value = component.args.get("verifiers").unwrap_or(&Value::Null);
    let entries = match value.as_array() {
        Some(entries) if !entries.is_empty() => entries,
        _ => return component.wrong("verifiers", "a list of at least one verifier", value),
    };
    for (at, entry) in entries.iter().enumerate() {
        let place = |key: &str| component.place(&format!("verifiers[{at}].{key}"));
        let Some(map) = entry.as_object() else {
            return component.wrong(&format!("verifiers[{at}]"), "an object", entry);
        };
        only(map, &ENTRY, place)?;
        verifier(kit, map, &place)?;
    }
    Ok(())
}

fn verifier(
    kit: &Path,
    map: &Map<String, Value>,
    place: &dyn Fn(&str) -> String,
) -> Result<(), ManagerError> {
    let text = |key: &str, expected| match map.get(key) {
        Some(Value::String(text)) => Ok(text.as_str()),
        other => {
            let found = other.map_or("nothing".into(), shown);
            Err(ManagerError::Value { place: place(key), expected, found })
        }
    };
    const COMBINATION: &str = "devices gpu with env local, or devices cpu with env test";
    let combination = (text("devices", "gpu or cpu")?, text("env", "local or test")?);
    if !matches!(combination, ("gpu", "local") | ("cpu", "test")) {
        let found = cut(&format!("devices {} with env {}", combination.0, combination.1));
        return Err(ManagerError::Value { place: place("devices"), expected: COMBINATION, found });
    }
    const EMPTY: &str = "an empty text: the verifier is local";
    match text("url", EMPTY)? {
        "" => {}
        url => {
            return Err(ManagerError::Value {
                place: place("url"),
                expected: EMPTY,
                found: cut(&format!("{url:?}")),
            });
        }
    }
    const FILE: &str = "the path of a file in the kit";
    read(kit, text("appraisal_policy_file", FILE)?, &place("appraisal_policy_file"))?;
    let file = text("result_policy_file", FILE)?;
    result_policy(&cut(file), &read(kit, file, &place("result_policy_file"))?)
}

/// A policy file by the path that NVFLARE opens in the guest: its working folder is the workspace,
/// where the kit's `startup` and `local` are.
pub(super) fn read(kit: &Path, path: &str, place: &str) -> Result<Vec<u8>, ManagerError> {
    const PREFIXES: [&str; 2] = ["/opt/nvflare/workspace/", "/opt/nvflare/config/kit/"];
    let fail =
        |problem| ManagerError::NoPolicyFile { place: place.into(), path: cut(path), problem };
    let inside = PREFIXES.iter().find_map(|prefix| path.strip_prefix(prefix)).unwrap_or(path);
    if inside.is_empty()
        || !Path::new(inside).components().all(|part| matches!(part, Part::Normal(_)))
    {
        return Err(fail("lies outside the startup kit"));
    }
    let file = kit.join(inside);
    if !file.is_file() {
        return Err(fail("does not exist in the startup kit"));
    }
    Ok(cvm_base::read_bounded(&file, MAX_BYTES)?)
}

/// Exactly NVIDIA's claims, each `true`.
pub(super) fn result_policy(file: &str, bytes: &[u8]) -> Result<(), ManagerError> {
    let wrong = |key: &str, expected, found: String| ManagerError::Value {
        place: format!("{file}{key}"),
        expected,
        found,
    };
    let policy: Value =
        serde_json::from_slice(bytes).map_err(|e| wrong("", "JSON", e.to_string()))?;
    let Some(policy) = policy.as_object() else {
        return Err(wrong("", "an object", shown(&policy)));
    };
    only(policy, &["version", "authorization-rules"], |key| format!("{file}: {key}"))?;
    let nothing = Value::Null;
    let version = policy.get("version").unwrap_or(&nothing);
    if version != VERSION {
        return Err(wrong(": version", "\"1.0\"", shown(version)));
    }
    let rules = policy.get("authorization-rules").unwrap_or(&nothing);
    let Some(rules) = rules.as_object() else {
        return Err(wrong(": authorization-rules", "an object", shown(rules)));
    };
    let nvidia: Value =
        serde_json::from_str(POLICY_1_0).expect("the policy that came with the program");
    let claims = nvidia["authorization-rules"].as_object().expect("NVIDIA's claims");
    if let Some(claim) = rules.keys().find(|claim| !claims.contains_key(*claim)) {
        let closest = closest(claim, claims.keys().map(String::as_str)).map(str::to_owned);
        return Err(ManagerError::UnknownClaim {
            file: file.into(),
            claim: cut(claim),
            version: VERSION,
            closest,
        });
    }
    if let Some(claim) = claims.keys().find(|claim| !rules.contains_key(*claim)) {
        return Err(ManagerError::MissingClaim {
            file: file.into(),
            claim: claim.clone(),
            version: VERSION,
        });
    }
    match rules.iter().find(|(_, value)| **value != Value::Bool(true)) {
        Some((claim, value)) => Err(wrong(&format!(": {claim}"), "true", shown(value))),
        None => Ok(()),
    }
}
