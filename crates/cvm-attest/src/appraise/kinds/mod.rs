//! Each kind of evidence, from a group's files to claims.

mod azure;
mod dcap;
mod gpu;
mod kbs;
mod snp;
mod token;
mod tpm;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Appraisal, Refusal, Submodule,
    set::{Group, Shared, Terms},
};
use crate::{
    files::Form,
    gpu::{Expectation, GpuClaims, ResultPolicy, SwitchClaims, Topology},
    token::NrasClaims,
};

pub(super) use kbs::azure_kind;

type Verified = Result<Submodule, Refusal>;

/// Every piece of evidence in a group.
pub(super) fn verify(group: &Group, shared: &Shared, terms: &Terms) -> Result<Vec<Submodule>, Refusal> {
    let mut found = Vec::new();
    if group.has(Form::KbsEvidence) {
        found.extend(kbs::verify(group, shared, terms)?);
    }
    if group.has(Form::HclReport) {
        found.push(azure::files(group, shared, terms)?);
    } else {
        if let Some(report) = group.one(Form::SnpReport)? {
            found.push(snp::report(report, snp::certificates(group, shared)?, shared, terms)?);
        }
        if let Some(quote) = group.one(Form::TdxQuote)? {
            found.push(dcap::tdx(quote, group, shared, terms)?);
        }
        if let Some(quote) = group.one(Form::SgxQuote)? {
            found.push(dcap::sgx(quote, group, shared, terms)?);
        }
        if group.has(Form::TpmQuote) {
            found.extend(tpm::quotes(group, shared, terms)?);
        } else if group.has(Form::EventLog) && !group.has(Form::TdxQuote) {
            found.push(tpm::event_log(group)?);
        }
    }
    if let Some(report) = group.one(Form::GpuReport)? {
        found.push(gpu::report(report, group, shared, terms)?);
    }
    for (name, bytes) in group.all(Form::Jwt) {
        found.push(token::jwt(name, bytes, shared, terms)?);
    }
    for (name, bytes) in group.all(Form::DetachedEat) {
        found.push(token::nras(name, bytes, shared, terms)?);
    }
    // Nothing but what vouches: then that itself is looked at.
    if found.is_empty() && !group.has(Form::PcrValues) {
        for (name, bytes) in group.all(Form::Rim) {
            found.push(gpu::rim(name, bytes, shared, terms.now)?);
        }
        if found.is_empty() && group.has(Form::Certificates) {
            found.extend(snp::endorsement(group, shared, terms.now)?);
        }
    }
    Ok(found)
}

/// What holds of all pieces together: one nonce, and devices that are one machine's.
pub(super) fn check_composite(appraisal: &mut Appraisal) {
    let cpu = appraisal.claims().any(|(name, _, _)| name.starts_with("cpu"));
    let device = appraisal.claims().any(|(_, kind, _)| matches!(kind, "nvidia" | "nvswitch"));
    let nonce_given = appraisal.claims().all(|(_, _, claims)| {
        let entries = claims.get("not_checked").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        !entries.iter().any(|entry| matches!(entry["check"].as_str(), Some("nonce" | "report-data")))
    });
    if cpu && device && !nonce_given {
        appraisal.refusals.push(Refusal::policy(
            "the composite",
            "ATT-361",
            "CPU and GPU evidence without a common nonce may be of two machines",
            "give the nonce that both were asked for with --nonce",
        ));
    }
    let mut chips: Vec<_> = appraisal.claims().filter_map(|(name, kind, claims)| chip(name, kind, claims)).collect();
    chips.dedup_by(|(_, second), (_, first)| first == second);
    if let [(first, _), (second, _), ..] = chips.as_slice() {
        let reason = format!("{first} and {second} are of two machines");
        let help = "give one machine's evidence at a time: together, each would vouch for the other";
        appraisal.refusals.push(Refusal::policy("the composite", "ATT-361", reason, help));
    }
    if !appraisal.refusals.is_empty() {
        return;
    }
    let checked = devices(appraisal).and_then(|(gpus, switches)| match (gpus.len(), switches.len()) {
        (0, 0 | 1) => Ok(()),
        // One GPU too: in PPCIE mode it is never alone.
        _ => Topology::check(&gpus, &switches, Expectation::default())
            .map(|_| ())
            .map_err(|e| Refusal::new("the devices", &e)),
    });
    appraisal.refusals.extend(checked.err());
}

/// The processor that evidence is of, by its vendor's name for it; none where the host masks it.
fn chip<'a>(name: &'a str, kind: &str, claims: &'a Value) -> Option<(&'a str, String)> {
    let (vendor, member) = match kind {
        "snp" | "az-snp-vtpm" => ("AMD", "chip_id"),
        "tdx" | "az-tdx-vtpm" | "sgx" => ("Intel", "platform_provider_id"),
        _ => return None,
    };
    let id = claims.get(member)?.as_str().filter(|id| id.bytes().any(|digit| digit != b'0'))?;
    Some((name, format!("{vendor} {id}")))
}

/// One of NVIDIA's result policies, on every device that was verified here, and on every verdict of NVIDIA's service;
/// each refusal names the policy.
pub(super) fn judge_devices(appraisal: &mut Appraisal, name: &str, policy: &ResultPolicy) {
    let judged = devices(appraisal).and_then(|found| Ok((found, of_kind::<NrasClaims>(appraisal, "nras")?)));
    let ((gpus, switches), tokens) = match judged {
        Ok(judged) => judged,
        Err(refusal) => return appraisal.refusals.push(refusal),
    };
    let mut broken = Vec::new();
    for token in &tokens {
        broken.extend(policy.evaluate_set(&token.claim_set()).err().unwrap_or_default());
    }
    // Without any device at all, that is what the policy refuses.
    if tokens.is_empty() || !gpus.is_empty() || !switches.is_empty() {
        broken.extend(policy.evaluate_devices(&gpus, &switches).err().unwrap_or_default());
    }
    for mismatch in broken {
        let help = "see NVIDIA's result policy; a claim that was not checked is never true";
        appraisal.refusals.push(Refusal::policy(name, "ATT-363", mismatch.to_string(), help));
    }
}

/// The claims of every GPU and switch: all of them, or none.
fn devices(appraisal: &Appraisal) -> Result<(Vec<GpuClaims>, Vec<SwitchClaims>), Refusal> {
    Ok((of_kind(appraisal, "nvidia")?, of_kind(appraisal, "nvswitch")?))
}

fn of_kind<T: DeserializeOwned>(appraisal: &Appraisal, kind: &str) -> Result<Vec<T>, Refusal> {
    let claims = appraisal.claims().filter(|(_, of, _)| *of == kind);
    let read = |(name, _, claims): (&str, &str, &Value)| {
        let unreadable = |e| Refusal::input(name, format!("its claims cannot be read back: {e}"), "report this");
        T::deserialize(claims).map_err(unreadable)
    };
    claims.map(read).collect()
}

fn submodule(prefix: &'static str, kind: &'static str, claims: &impl Serialize) -> Verified {
    let claims = serde_json::to_value(claims)
        .map_err(|e| Refusal::input(kind, format!("its claims cannot be written: {e}"), "report this"))?;
    Ok(Submodule { prefix, kind, claims, refusals: vec![] })
}

impl Submodule {
    fn judged<E: cvm_base::Explain + std::fmt::Display>(mut self, verdict: Result<(), E>) -> Self {
        self.refusals.extend(verdict.err().map(|error| Refusal::new(self.kind, &error)));
        self
    }
}

/// The nonce's form that the evidence shows, padded with zeros; another one, if none is. Nothing without a nonce.
fn report_data(shared: &Shared, found: &[u8]) -> Result<Option<[u8; 64]>, Refusal> {
    let padded = |nonce: &Vec<u8>| {
        let mut data = [0; 64];
        data.get_mut(..nonce.len())?.copy_from_slice(nonce);
        Some(data)
    };
    let forms: Vec<[u8; 64]> = shared.nonces.iter().filter_map(padded).collect();
    if forms.is_empty() && !shared.nonces.is_empty() {
        return Err(Refusal::input(
            "the nonce",
            "it is longer than the 64 bytes of REPORT_DATA",
            "give what the evidence answers: at most 64 bytes, or their hex",
        ));
    }
    Ok(forms.iter().find(|form| form[..] == *found).or(forms.first()).copied())
}
