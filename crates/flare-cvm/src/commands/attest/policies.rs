//! The policies that judge claims: Rego, NVIDIA's result policies, and rules for each kind of
//! evidence.

use std::path::PathBuf;

use anyhow::{Context, Result};
use cvm_base::read_text;
use cvm_policy::Policy;
use cvm_verify::{
    appraise::{Appraisal, Refusal, Rules},
    gpu::ResultPolicy,
};
use serde_json::{Value, json};

use super::limits::MAX_FILE;
use crate::problem::Problem;

/// The policies of the command line, read before any evidence is.
#[derive(Default)]
pub(super) struct Policies {
    /// The rules for each kind of evidence, and the file that they are from.
    rules: Option<(String, Rules)>,
    rego: Vec<Policy>,
    nvidia: Vec<(String, ResultPolicy)>,
}

impl Policies {
    pub(super) fn read(paths: &[PathBuf]) -> Result<Self> {
        let mut policies = Self::default();
        for path in paths {
            let (name, bytes) = (path.display().to_string(), read_text(path, MAX_FILE)?);
            match serde_json::from_slice::<Value>(&bytes) {
                Err(_) => policies.rego.push(Policy::compile(&name, &bytes)?),
                Ok(json) if json.get("authorization-rules").is_some() => {
                    policies.nvidia.push((name, ResultPolicy::parse(&bytes)?));
                }
                Ok(json) => {
                    let rules = serde_json::from_value(json).with_context(|| {
                        format!("{name}: expected rules for snp, tdx, sgx, tpm and gpu")
                    })?;
                    if let Some((first, _)) = policies.rules.replace((name.clone(), rules)) {
                        return Problem::result(
                            "CLI-027",
                            format!(
                                "{first} and {name} both give rules for snp, tdx, sgx, tpm and gpu"
                            ),
                            "write the rules of all kinds into one file",
                        );
                    }
                }
            }
        }
        Ok(policies)
    }

    /// Each kind's own rules.
    pub(super) fn rules(&self) -> Rules {
        self.rules.as_ref().map(|(_, rules)| rules.clone()).unwrap_or_default()
    }

    /// Whether one of them compares claims with reference values.
    pub(super) fn has_rego(&self) -> bool {
        !self.rego.is_empty()
    }

    /// Lets every policy judge; each refusal names its policy.
    pub(super) fn judge(&self, appraisal: &mut Appraisal, reference: &Value) -> Result<()> {
        for (name, policy) in &self.nvidia {
            appraisal.judge_devices(name, policy);
        }
        for policy in &self.rego {
            let decision = policy.decide(&appraisal.input(), &json!({ "reference": reference }))?;
            if decision.allowed {
                continue;
            }
            let reasons = if decision.reasons.is_empty() {
                vec!["its rule allow is not true".into()]
            } else {
                decision.reasons
            };
            for reason in reasons {
                let help = "compare the claims (--json) with the policy's rules, or the reference \
                    values with the machine";
                appraisal.refusals.push(Refusal::policy(policy.name(), "ATT-364", reason, help));
            }
        }
        Ok(())
    }
}
