//! Evidence in the JSON that KBS clients and NVIDIA's tools send.

use serde_json::Value;

use super::{azure, gpu, snp};
use crate::{
    appraise::{Refusal, Terms, set::Group, submodule::Submodule, trust::Shared},
    azure::{AzureEvidence, HardwareKind},
    files::{Form, members::is_azure},
    gpu::DeviceEvidence,
    snp::SnpEvidence,
};

/// Evidence in the forms that KBS clients send.
pub(super) fn verify(
    group: &Group,
    shared: &Shared,
    terms: &Terms,
) -> Result<Vec<Submodule>, Refusal> {
    let mut found = Vec::new();
    for (name, bytes) in group.all(Form::KbsEvidence) {
        let fail = |e: &_| Refusal::new(name, e);
        let unknown = || {
            Refusal::input(
                name,
                format!("{name} is not an evidence body that is known here"),
                "give the files themselves",
            )
        };
        let body: Value = serde_json::from_slice(bytes).map_err(|_| unknown())?;
        let has = |member: &str| body.get(member).is_some();
        let before = found.len();
        if has("attestation_report") {
            let evidence = SnpEvidence::from_kbs(&body).map_err(|e| Refusal::new(name, &e))?;
            let report = evidence.report.clone();
            let mut all = evidence.certificates;
            all.extend(snp::certificates(group, shared)?);
            found.push(snp::parsed(report, all, shared, terms)?);
        }
        if body.is_array() || has("device_evidence_list") || has("evidence_list") {
            for device in DeviceEvidence::parse_set(bytes).map_err(|e| Refusal::new(name, &e))? {
                found.push(gpu::device(&device, group, shared, terms)?);
            }
        }
        if body.as_object().is_some_and(is_azure) {
            let evidence =
                AzureEvidence::from_json(azure_kind(&body), &body).map_err(|e| fail(&e))?;
            found.push(azure::bound(&evidence, group, shared, terms)?);
        }
        if found.len() == before {
            return Err(unknown());
        }
    }
    Ok(found)
}

/// Which hardware is under Azure's evidence: only over TDX it has a quote beside it.
pub(in crate::appraise) fn azure_kind(body: &Value) -> HardwareKind {
    if body.get("td_quote").is_some() { HardwareKind::Tdx } else { HardwareKind::Snp }
}
