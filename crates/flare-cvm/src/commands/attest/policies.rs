//! The policies that judge claims: Rego, NVIDIA's result policies, rules of each kind.

use std::path::PathBuf;

use anyhow::{Context, Result};
use cvm_attest::{
    appraise::{Appraisal, Refusal, Rules},
    gpu::{ClaimSet, GpuClaims, ResultPolicy},
    policy::Policy,
};
use cvm_base::read_bounded;
use serde_json::{Value, json};

use super::MAX_FILE;

/// The policies of the command line, read before any evidence is.
#[derive(Default)]
pub(super) struct Policies {
    pub(super) rules: Rules,
    rego: Vec<Policy>,
    nvidia: Vec<(String, ResultPolicy)>,
}

impl Policies {
    pub(super) fn read(paths: &[PathBuf]) -> Result<Self> {
        let mut policies = Self::default();
        for path in paths {
            let (name, bytes) = (path.display().to_string(), read_bounded(path, MAX_FILE)?);
            match serde_json::from_slice::<Value>(&bytes) {
                Err(_) => policies.rego.push(Policy::compile(&name, &bytes)?),
                Ok(json) if json.get("authorization-rules").is_some() => {
                    policies.nvidia.push((name, ResultPolicy::parse(&bytes)?));
                }
                Ok(json) => {
                    policies.rules = serde_json::from_value(json)
                        .with_context(|| format!("{name}: expected rules for snp, tdx, tpm and gpu"))?;
                }
            }
        }
        Ok(policies)
    }

    /// Lets every policy judge; each refusal names its policy.
    pub(super) fn judge(&self, appraisal: &mut Appraisal, reference: &Value) -> Result<()> {
        let gpus: Vec<GpuClaims> = appraisal
            .claims()
            .filter(|(_, kind, _)| *kind == "nvidia")
            .filter_map(|(_, _, claims)| serde_json::from_value(claims.clone()).ok())
            .collect();
        for (name, policy) in &self.nvidia {
            let set = ClaimSet::of_gpus(&gpus, policy.version());
            for mismatch in policy.evaluate_set(&set).err().unwrap_or_default() {
                let help = "see NVIDIA's result policy; a claim that was not checked is never true";
                appraisal.refusals.push(Refusal::policy(name, "ATT-363", mismatch.to_string(), help));
            }
        }
        for policy in &self.rego {
            let decision = policy.decide(&appraisal.input(), &json!({ "reference": reference }))?;
            if decision.allowed {
                continue;
            }
            let reasons =
                if decision.reasons.is_empty() { vec!["its rule allow is not true".into()] } else { decision.reasons };
            for reason in reasons {
                let help =
                    "compare the claims (--json) with the policy's rules, or the reference values with the machine";
                appraisal.refusals.push(Refusal::policy(policy.name(), "ATT-364", reason, help));
            }
        }
        Ok(())
    }
}
