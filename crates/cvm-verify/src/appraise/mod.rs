//! From files to a verdict: what `flare-cvm attest verify` does, without reading a file.
//!
//! [`EvidenceSet`] takes files in any order and tells what each one is; [`EvidenceSet::verify`]
//! verifies every piece of evidence among them and lays the claims out as Trustee's token does, a
//! submodule for each: `cpu0`, `tpm0`, `gpu0` …, `token0` …. A composite is good only as a whole,
//! and every device in it answers the same nonce.

mod explain;
mod kinds;
mod reports;
mod set;
mod stage;
mod trust;

use std::collections::BTreeMap;

use cvm_base::Explain;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    NotChecked,
    gpu::ResultPolicy,
    token::{self, EarToken, Registered, Tier, VerifierId},
};

pub use explain::{Explanation, compare, explain, note_unjudged_tcb};
pub use reports::Reports;
pub use set::{Enclosed, EvidenceSet, GpuRules, Rules, Terms};

/// Why evidence was refused: by a verifier, or by a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Which evidence: the submodule's name, or a file's.
    pub of: String,
    /// The stable code.
    pub code: String,
    /// Expected and found.
    pub reason: String,
    /// What to do next.
    pub help: String,
}

impl Refusal {
    fn new(of: &str, error: &(impl Explain + std::fmt::Display)) -> Self {
        Self {
            of: of.into(),
            code: error.code().into(),
            reason: shortened(&error.to_string()),
            help: error.help(),
        }
    }

    /// Files that make no evidence.
    pub fn input(of: &str, reason: impl Into<String>, help: &str) -> Self {
        Self { of: of.into(), code: "ATT-360".into(), reason: reason.into(), help: help.into() }
    }

    /// A policy's no.
    pub fn policy(of: &str, code: &str, reason: impl Into<String>, help: &str) -> Self {
        Self { of: of.into(), code: code.into(), reason: reason.into(), help: help.into() }
    }
}

/// A reason without what readers of JSON quote of it: a word that is longer than any digest is
/// data.
fn shortened(reason: &str) -> String {
    const LONGEST: usize = 192;
    const SHOWN: usize = 32;
    let word = |word: &str| match word.chars().count() {
        length if length > LONGEST => {
            let start: String = word.chars().take(SHOWN).collect();
            format!("{start}… ({length} characters)")
        }
        _ => word.to_owned(),
    };
    reason.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// What one piece of evidence proved.
#[derive(Debug, Clone, PartialEq)]
struct Submodule {
    /// `cpu`, `tpm`, `gpu`, `switch`, `token` or `collateral`: what its name begins with.
    prefix: &'static str,
    /// Its member of the annotated evidence: `snp`, `tdx`, `az-snp-vtpm`, `tpm`, `nvidia`, `maa`,
    /// ….
    kind: &'static str,
    claims: Value,
    refusals: Vec<Refusal>,
}

/// The verdict on a whole set.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Appraisal {
    /// By name: the kind, and its claims.
    submods: BTreeMap<String, (&'static str, Value)>,
    /// Empty exactly if the set is accepted.
    pub refusals: Vec<Refusal>,
    /// What was presented, is not understood, and is accepted by name.
    unread: Vec<Refusal>,
    /// What lay beside the evidence, is none, and was not used.
    pub left_out: Vec<Refusal>,
}

impl Appraisal {
    fn add(&mut self, submodule: Submodule) {
        let number = (0..)
            .find(|n| !self.submods.contains_key(&format!("{}{n}", submodule.prefix)))
            .unwrap_or(0);
        let name = format!("{}{number}", submodule.prefix);
        self.refusals.extend(
            submodule.refusals.into_iter().map(|refusal| Refusal { of: name.clone(), ..refusal }),
        );
        self.submods.insert(name, (submodule.kind, submodule.claims));
    }

    /// Whether every piece was genuine and accepted, and there was one at all.
    pub fn accepted(&self) -> bool {
        self.refusals.is_empty() && !self.submods.is_empty()
    }

    /// What a Rego policy gets as its input: `{"submods": {"cpu0": {"ear.status",
    /// "ear.veraison.annotated-evidence"}}}`.
    ///
    /// What is not understood and accepted by name is a submodule `unread0` … there, so that a
    /// policy sees it.
    pub fn input(&self) -> Value {
        json!({ "submods": self.appraised() })
    }

    /// Each submodule with its status: affirmed, affirmed with checks left out (a warning), or
    /// contraindicated, by itself or by what was refused of all.
    fn appraised(&self) -> BTreeMap<String, token::Submodule> {
        let of_all = self.refusals.iter().any(|refusal| !self.submods.contains_key(&refusal.of));
        let not_checked = self.not_checked();
        let genuine = self.claims().map(|(name, kind, claims)| {
            let refused = of_all || self.refusals.iter().any(|refusal| refusal.of == name);
            let incomplete = not_checked.iter().any(|(of, ..)| *of == name);
            (
                name.to_owned(),
                appraised_as(Tier::appraised(!refused, incomplete), json!({ kind: claims })),
            )
        });
        let unread = self.unread.iter().enumerate().map(|(n, unread)| {
            let not_checked = [NotChecked::new(UNREAD, &unread.reason)];
            let claims = json!({ "unread": { "name": unread.of, "not_checked": not_checked } });
            (format!("unread{n}"), appraised_as(Tier::Warning, claims))
        });
        genuine.chain(unread).collect()
    }

    /// The claims of every submodule: its name, its kind, its claims.
    pub fn claims(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        self.submods.iter().map(|(name, (kind, claims))| (name.as_str(), *kind, claims))
    }

    /// The kind and the claims of every submodule.
    fn claims_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut Value)> {
        self.submods.values_mut().map(|(kind, claims)| (*kind, claims))
    }

    /// Lets one of NVIDIA's result policies judge the devices; each refusal names it.
    pub fn judge_devices(&mut self, name: &str, policy: &ResultPolicy) {
        kinds::judge_devices(self, name, policy);
    }

    /// Every check that was left out: the submodule's name (a file's, of what was not understood),
    /// the check, the reason.
    pub fn not_checked(&self) -> Vec<(&str, &str, &str)> {
        let unread =
            self.unread.iter().map(|unread| (unread.of.as_str(), UNREAD, unread.reason.as_str()));
        self.claims()
            .flat_map(|(name, _, claims)| {
                let entries = claims
                    .get("not_checked")
                    .and_then(Value::as_array)
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                entries.iter().map(move |entry| {
                    let member =
                        |of: &str| entry.get(of).and_then(Value::as_str).unwrap_or_default();
                    (name, member("check"), member("reason"))
                })
            })
            .chain(unread)
            .collect()
    }

    /// The verdict as a token to sign. Whatever was refused and has no claims to believe is a
    /// submodule `refused0` … of it.
    pub fn to_ear(
        &self,
        verifier: VerifierId,
        registered: Registered,
        nonce: Option<Vec<u8>>,
    ) -> EarToken {
        let mut submods = self.appraised();
        let refused =
            self.refusals.iter().filter(|refusal| !self.submods.contains_key(&refusal.of));
        submods.extend(refused.enumerate().map(|(n, refusal)| {
            (
                format!("refused{n}"),
                appraised_as(Tier::Contraindicated, json!({ "refused": refusal })),
            )
        }));
        EarToken { profile: token::PROFILE.into(), verifier, registered, nonce, submods }
    }

    /// The whole verdict, for a script.
    pub fn to_json(&self, now: u64) -> Value {
        let not_checked: Vec<_> = self
            .not_checked()
            .into_iter()
            .map(|(of, check, reason)| json!({ "of": of, "check": check, "reason": reason }))
            .collect();
        json!({
            "verdict": if self.accepted() { "accepted" } else { "refused" },
            "at": now,
            "submods": self.appraised(),
            "not_checked": not_checked,
            "refusals": self.refusals,
            "left_out": self.left_out,
        })
    }
}

/// What `not_checked` says of what was not understood.
const UNREAD: &str = "unread-evidence";

fn appraised_as(status: Tier, annotated_evidence: Value) -> token::Submodule {
    token::Submodule { status, vector: None, annotated_evidence, appraisal_policy_id: None }
}
