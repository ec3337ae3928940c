//! Azure's vTPM over SNP and TDX.

use super::{dcap::with_collateral, snp::certificates};
use crate::{
    appraise::{
        EvidenceClaims, Refusal, Terms,
        set::Group,
        stage::first_good,
        submodule::{Submodule, Verified},
        trust::Shared,
    },
    azure::{AzureClaims, AzureEvidence, Hardware, HardwareKind, HclReport, QuoteFiles},
    files::Form,
    snp::SnpPolicy,
    tdx::{TdxEvidence, TdxPolicy},
};

pub(super) fn files(group: &Group, shared: &Shared, terms: &Terms) -> Verified {
    let fail = |e: &_| Refusal::new("the Azure evidence", e);
    let hcl = group.needed(Form::HclReport, "Azure evidence")?;
    let hardware = match HclReport::parse(hcl).map_err(|e| fail(&e))?.kind() {
        HardwareKind::Snp => Hardware::Snp(None),
        HardwareKind::Tdx => {
            Hardware::Tdx(group.needed(Form::TdxQuote, "Azure evidence over TDX")?.to_vec())
        }
    };
    let quote = QuoteFiles {
        message: group.needed(Form::TpmQuote, "Azure evidence")?,
        signature: group.needed(Form::TpmSignature, "Azure evidence")?,
        pcrs: group.needed(Form::PcrValues, "Azure evidence")?,
    };
    let mut evidence = AzureEvidence::parse(hcl, quote, hardware).map_err(|e| fail(&e))?;
    if let Some(log) = group.one(Form::EventLog)? {
        evidence = evidence.with_event_log(log.to_vec());
    }
    bound(&evidence, group, shared, terms)
}

pub(super) fn bound(
    evidence: &AzureEvidence,
    group: &Group,
    shared: &Shared,
    terms: &Terms,
) -> Verified {
    let fail = |e: &_| Refusal::new("the Azure evidence", e);
    let nonces = shared.quoted_nonces();
    let bound = first_good(&nonces, |nonce| evidence.check_binding(nonce, &terms.rules.tpm));
    let without = || {
        let reason = "no nonce was given: a quote without one may be anybody's replay";
        Refusal::input(
            "the Azure evidence",
            reason,
            "give the nonce that the quote answers with --nonce",
        )
    };
    let bound = bound.ok_or_else(without)?.map_err(|e| fail(&e))?;
    match bound.kind {
        HardwareKind::Snp => {
            let roots = shared.snp_roots.as_ref().map_err(Clone::clone)?;
            let claims =
                bound.verify_snp(&certificates(group, shared)?, roots, &shared.crls, terms.now);
            let claims = claims.map_err(|e| fail(&e))?;
            let rules = SnpPolicy { max_vmpl: 0, ..terms.rules.snp.clone() };
            let verdict = rules.check(&claims);
            let claims = AzureClaims { hardware: claims, vtpm: bound.vtpm() };
            Ok(Submodule::judged(EvidenceClaims::AzureSnp(Box::new(claims)), verdict))
        }
        HardwareKind::Tdx => {
            const OF: &str = "the TD quote";
            let quote = TdxEvidence::parse(bound.hardware_report, None)
                .map_err(|e| Refusal::new(OF, &e))?;
            let claims =
                with_collateral(group, shared, terms.now, (OF, quote.quote()), |verifier| {
                    let report_data = bound.expected_report_data();
                    verifier.verify(&quote, Some(&report_data), terms.now)
                })?;
            // Azure's TDs run a paravisor that handles #VE itself.
            let rules = TdxPolicy { require_septve_disable: false, ..terms.rules.tdx.clone() };
            let verdict = rules.check(&claims);
            let claims = AzureClaims { hardware: claims, vtpm: bound.vtpm() };
            Ok(Submodule::judged(EvidenceClaims::AzureTdx(Box::new(claims)), verdict))
        }
    }
}
