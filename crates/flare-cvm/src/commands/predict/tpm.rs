//! What a TPM measures: the PCRs.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    args::Predict,
    files::{BundleFiles, add_to_set, reference},
};
use crate::problem::Problem;

/// Predicts the PCRs from the bundle's files alone; `reference.json` must predict the same.
pub(super) fn tpm(args: &Predict) -> Result<Value> {
    let files = BundleFiles::read(args)?;
    let predicted = cvm_predict::tpm(&files.inputs())?;
    let reference = reference(args)?;
    let differs =
        reference.tpm.pcrs.iter().filter(|(pcr, value)| predicted.pcrs.get(pcr) != Some(value));
    let differs: Vec<String> = differs.map(|(pcr, _)| pcr.to_string()).collect();
    if !differs.is_empty() {
        return Problem::result(
            "CLI-024",
            format!(
                "reference.json predicts other values than the bundle's files, in PCR {}",
                differs.join(", ")
            ),
            "the bundle was changed after it was made: provision it again, and do not enrol it",
        );
    }
    add_to_set(args, |set| {
        set.tpm = Some(predicted.clone());
        Ok(())
    })?;
    let events =
        predicted.explain.iter().map(|e| format!("PCR {} {} {}", e.pcr, e.digest, e.event));
    Ok(json!({
        "pcr": predicted.pcrs,
        "event": events.collect::<Vec<_>>(),
        "input": files.named(),
        "reference.json": "predicts the same",
    }))
}
