//! Refuses what differs from the reference values, and notes what nothing was compared with.

use super::{Appraisal, EvidenceClaims, Explanation, Refusal, explain::known_firmware};
use crate::{NotChecked, acpi, snp::SnpPolicy};
use cvm_evidence::{platform::AzureTee, reference_set::ReferenceSet, tpm::HashAlg};

/// Refuses every difference that was explained, for those who have no policy that does so. Evidence
/// of a kind that the reference values do not know was not compared, and its claims say so.
pub fn compare(appraisal: &mut Appraisal, explained: &[Explanation], reference: &ReferenceSet) {
    for difference in explained {
        let Explanation { of, register, likely, .. } = difference;
        let reason =
            format!("{register} is not what the reference values say: {}", difference.sides());
        let help =
            format!("most likely: {likely}; a policy of your own (--policy) may decide otherwise");
        appraisal.refusals.push(Refusal::policy(of, "ATT-397", reason, &help));
    }
    for claims in appraisal.submods.values_mut() {
        if covers_acpi(reference, claims) {
            acpi::compared(claims.not_checked_mut());
        }
        if !knows(reference, claims) {
            let reason = "the reference values have none of this kind of evidence";
            claims.not_checked_mut().push(NotChecked::new("reference-values", reason));
        }
    }
}

/// Notes the TCB of SEV-SNP as not checked where neither `rules` nor the reference values that were
/// compared state a floor. Intel states a status of its platforms, which rules judge; AMD states
/// only numbers.
pub fn note_unjudged_tcb(
    appraisal: &mut Appraisal,
    rules: &SnpPolicy,
    compared: Option<&ReferenceSet>,
) {
    if !rules.min_tcb.is_empty() {
        return;
    }
    for claims in appraisal.submods.values_mut() {
        let judged = compared.is_some_and(|reference| knows(reference, claims));
        if claims.snp().is_some() && !judged {
            let reason = "no floor was given: firmware with known holes passes (docs/tcb.md)";
            claims.not_checked_mut().push(NotChecked::new("tcb-floor", reason));
        }
    }
}

/// Whether there is something to compare with.
fn knows(reference: &ReferenceSet, claims: &EvidenceClaims) -> bool {
    let azure = |tee| reference.azure.iter().any(|platform| platform.tee == tee);
    match claims {
        EvidenceClaims::Tpm(quote) => reference.tpm.is_some() && quote.bank == HashAlg::Sha256,
        EvidenceClaims::Snp(_) => !reference.snp.is_empty(),
        EvidenceClaims::Tdx(_) => !reference.tdx.is_empty(),
        EvidenceClaims::AzureSnp(_) => azure(AzureTee::Snp),
        EvidenceClaims::AzureTdx(_) => azure(AzureTee::Tdx),
        _ => false,
    }
}

/// Whether a register that covers the host's ACPI tables is as the reference values say.
fn covers_acpi(reference: &ReferenceSet, claims: &EvidenceClaims) -> bool {
    match claims {
        EvidenceClaims::Tdx(claims) => {
            let body = &claims.quote.body;
            reference
                .tdx
                .iter()
                .any(|platform| (platform.mrtd, platform.rtmr0) == (body.mr_td, body.rtmr_0))
        }
        EvidenceClaims::Tpm(quote) => known_firmware(quote, reference),
        _ => false,
    }
}
