//! Every piece of evidence in a group of files.

use super::{azure, dcap, gpu, kbs, snp, token, tpm};
use crate::{
    appraise::{
        Refusal, Terms,
        set::Group,
        submodule::{Submodule, Verified},
        trust::Shared,
    },
    azure::{HardwareKind, HclReport},
    files::Form,
};

/// Every piece of evidence in a group: what each proved, or why it is refused.
pub(in crate::appraise) fn verify(group: &Group, shared: &Shared, terms: &Terms) -> Found {
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
    // Azure's own report may lie beside the one that holds it; any other is of another machine.
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

/// What vouches for evidence, in a set without evidence.
pub(in crate::appraise) fn vouch(group: &Group, shared: &Shared, terms: &Terms) -> Found {
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
pub(in crate::appraise) struct Found {
    /// What each piece proved, or why it is refused.
    pub(in crate::appraise) verified: Vec<Verified>,
    /// Pieces with which nothing was verified.
    pub(in crate::appraise) unread: Vec<Refusal>,
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
