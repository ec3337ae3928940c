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
    set::{Group, Terms},
    trust::Shared,
};
use crate::{
    azure::{HardwareKind, HclReport},
    files::Form,
    gpu::{Expectation, GpuClaims, ResultPolicy, SwitchClaims, Topology},
    token::NrasClaims,
};

pub(super) use kbs::azure_kind;

type Verified = Result<Submodule, Refusal>;

/// Every piece of evidence in a group: what each proved, or why it is refused.
pub(super) fn verify(group: &Group, shared: &Shared, terms: &Terms) -> Found {
    let mut found = Found::default();
    if group.has(Form::KbsEvidence) {
        found.all(kbs::verify(group, shared, terms));
    }
    let hcl = if group.has(Form::HclReport) { group.all(Form::HclReport) } else { &[] };
    let hcl = hcl.iter().find_map(|(_, bytes)| HclReport::parse(bytes).ok());
    if group.has(Form::HclReport) {
        found.one(azure::files(group, shared, terms));
    } else if group.has(Form::TpmQuote) {
        let mut unread = Vec::new();
        found.all(tpm::quotes(group, shared, terms, &mut unread));
        found.unread = unread;
    } else if group.has(Form::EventLog) && !group.has(Form::TdxQuote) {
        found.one(tpm::event_log(group));
    }
    let hardware =
        |kind| hcl.as_ref().filter(|hcl| hcl.kind() == kind).map(HclReport::hardware_report);
    // Azure's own report may lie beside the one that holds it; another one is evidence of another
    // machine.
    let own =
        |report: &[u8]| hardware(HardwareKind::Snp).is_some_and(|own| report.starts_with(own));
    found.each(
        group.one(Form::SnpReport).map(|report| report.filter(|report| !own(report))),
        |report| snp::report(report, snp::certificates(group, shared)?, shared, terms),
    );
    if hardware(HardwareKind::Tdx).is_none() {
        found.each(group.one(Form::TdxQuote), |quote| dcap::tdx(quote, group, shared, terms));
    }
    found.each(group.one(Form::SgxQuote), |quote| dcap::sgx(quote, group, shared, terms));
    found.each(group.one(Form::GpuReport), |report| gpu::report(report, group, shared, terms));
    for (name, bytes) in group.all(Form::Jwt) {
        found.one(token::jwt(name, bytes, shared, terms));
    }
    for (name, bytes) in group.all(Form::DetachedEat) {
        found.one(token::nras(name, bytes, shared, terms));
    }
    found.unread.extend(alone(group));
    found
}

/// What vouches for evidence, where there is none anywhere.
pub(super) fn vouch(group: &Group, shared: &Shared, terms: &Terms) -> Found {
    let mut found = Found::default();
    for (name, bytes) in group.all(Form::Rim) {
        found.one(gpu::rim(name, bytes, shared, terms.now));
    }
    if found.verified.is_empty() && group.has(Form::Certificates) {
        found.all(
            snp::endorsement(group, shared, terms.now).map(|found| found.into_iter().collect()),
        );
    }
    found.unread.extend(alone(group));
    found
}

/// Pieces that are evidence only together with another one, which is not there.
fn alone(group: &Group) -> Vec<Refusal> {
    let quoted = group.has(Form::TpmQuote);
    let logged =
        group.has(Form::EventLog) && !group.has(Form::TdxQuote) && !group.has(Form::HclReport);
    let td_log = group.has(Form::TdxQuote) && !group.has(Form::EventLog);
    let rules = [
        (Form::TpmSignature, quoted, "the quote that it signs"),
        (Form::TpmPublic, quoted, "a quote"),
        (Form::PcrValues, quoted || logged, "a quote or an event log"),
        (Form::DstackLog, td_log, "a TDX quote of its own"),
    ];
    let alone = rules.into_iter().filter(|(_, used, _)| !used).flat_map(|(form, _, missing)| {
        group.all(form).iter().map(move |(name, _)| {
            let reason =
                format!("{} without {missing}: nothing was verified with it", form.describe());
            let help = "give what it belongs to in the same folder, or leave it out";
            Refusal::input(name, reason, help)
        })
    });
    alone.collect()
}

/// What was found in a group.
#[derive(Default)]
pub(super) struct Found {
    /// What each piece proved, or why it is refused.
    pub(super) verified: Vec<Verified>,
    /// Pieces with which nothing was verified.
    pub(super) unread: Vec<Refusal>,
}

impl Found {
    fn one(&mut self, verified: Verified) {
        self.verified.push(verified);
    }

    fn all(&mut self, verified: Result<Vec<Submodule>, Refusal>) {
        match verified {
            Ok(submodules) => self.verified.extend(submodules.into_iter().map(Ok)),
            Err(refusal) => self.verified.push(Err(refusal)),
        }
    }

    /// The only piece of a form, if there is one.
    fn each(
        &mut self,
        piece: Result<Option<&[u8]>, Refusal>,
        verify: impl FnOnce(&[u8]) -> Verified,
    ) {
        match piece {
            Ok(piece) => self.verified.extend(piece.map(verify)),
            Err(refusal) => self.verified.push(Err(refusal)),
        }
    }
}

/// What holds of all pieces together: one nonce, and devices that are one machine's.
pub(super) fn check_composite(appraisal: &mut Appraisal, shared: &Shared) {
    let refuse = |appraisal: &mut Appraisal, reason: &str, help: &str| {
        appraisal.refusals.push(Refusal::policy("the composite", "ATT-361", reason, help));
    };
    // Logs and certificates attest nothing.
    let attesters = appraisal.submods.keys().filter(|name| !name.starts_with("collateral")).count();
    if attesters > 1 && shared.nonces.is_empty() {
        refuse(
            appraisal,
            "pieces of evidence without a common nonce may be of several machines",
            "give the nonce that all were asked for with --nonce, or each machine's evidence at a \
             time",
        );
    }
    let named = |of: for<'a> fn(&'a str, &str, &'a Value) -> Option<(&'a str, String)>| {
        let mut all: Vec<_> =
            appraisal.claims().filter_map(|(name, kind, claims)| of(name, kind, claims)).collect();
        all.dedup_by(|(_, second), (_, first)| first == second);
        Some((all.first()?.0.to_owned(), all.get(1)?.0.to_owned()))
    };
    // Two guests of one chip are two machines as well.
    if let Some((first, second)) = named(chip).or_else(|| named(guest)) {
        let reason = format!("{first} and {second} are of two machines");
        refuse(
            appraisal,
            &reason,
            "give one machine's evidence at a time: together, each would vouch for the other",
        );
    }
    if !appraisal.refusals.is_empty() {
        return;
    }
    let checked =
        devices(appraisal).and_then(|(gpus, switches)| match (gpus.len(), switches.len()) {
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

/// The guest that evidence is of: an SNP launch by its id, a TD by all that was measured of it.
fn guest<'a>(name: &'a str, kind: &str, claims: &'a Value) -> Option<(&'a str, String)> {
    let shown = match kind {
        "snp" | "az-snp-vtpm" => claims.get("report_id")?,
        "tdx" | "az-tdx-vtpm" => claims.pointer("/quote/body")?,
        _ => return None,
    };
    Some((name, shown.to_string()))
}

/// One of NVIDIA's result policies, on every device that was verified here, and on every verdict of
/// NVIDIA's service; each refusal names the policy.
pub(super) fn judge_devices(appraisal: &mut Appraisal, name: &str, policy: &ResultPolicy) {
    let judged =
        devices(appraisal).and_then(|found| Ok((found, of_kind::<NrasClaims>(appraisal, "nras")?)));
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
        let unreadable =
            |e| Refusal::input(name, format!("its claims cannot be read back: {e}"), "report this");
        T::deserialize(claims).map_err(unreadable)
    };
    claims.map(read).collect()
}

fn submodule(prefix: &'static str, kind: &'static str, claims: &impl Serialize) -> Verified {
    let claims = serde_json::to_value(claims).map_err(|e| {
        Refusal::input(kind, format!("its claims cannot be written: {e}"), "report this")
    })?;
    Ok(Submodule { prefix, kind, claims, refusals: vec![] })
}

impl Submodule {
    fn judged<E: cvm_base::Explain + std::fmt::Display>(mut self, verdict: Result<(), E>) -> Self {
        self.refusals.extend(verdict.err().map(|error| Refusal::new(self.kind, &error)));
        self
    }
}

/// The nonce's form that the evidence shows, padded with zeros; another one, if none is. Nothing
/// without a nonce.
fn report_data(shared: &Shared, found: &[u8]) -> Option<[u8; 64]> {
    let forms = || shared.nonces.iter().filter_map(|nonce| padded(nonce));
    forms().find(|form| form[..] == *found).or(forms().next())
}

/// Whether one of the nonce's forms can be what [`report_data`] compares.
fn check_nonce_fits(shared: &Shared) -> Result<(), Refusal> {
    if shared.nonces.is_empty() || shared.nonces.iter().any(|nonce| padded(nonce).is_some()) {
        return Ok(());
    }
    Err(Refusal::input(
        "the nonce",
        "it is longer than the 64 bytes of REPORT_DATA",
        "give what the evidence answers: at most 64 bytes, or their hex",
    ))
}

fn padded(nonce: &[u8]) -> Option<[u8; 64]> {
    let mut data = [0; 64];
    data.get_mut(..nonce.len())?.copy_from_slice(nonce);
    Some(data)
}
