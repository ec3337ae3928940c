//! The verdict on a whole set of evidence.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{EvidenceClaims, Refusal, submodule::Submodule};
use crate::{
    NotChecked,
    token::{self, EarToken, Registered, Tier, VerifierId},
};

/// The verdict on a whole set.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Appraisal {
    /// By name: the claims.
    pub(super) submods: BTreeMap<String, EvidenceClaims>,
    /// Empty exactly if the set is accepted.
    pub refusals: Vec<Refusal>,
    /// What was presented, is not understood, and is accepted by name.
    pub(super) unread: Vec<Refusal>,
    /// What lay beside the evidence, is not evidence itself, and was not used.
    pub left_out: Vec<Refusal>,
}

impl Appraisal {
    pub(super) fn add(&mut self, submodule: Submodule) {
        let Submodule { claims, refusals } = submodule;
        let prefix = claims.prefix();
        let number =
            (0..).find(|n| !self.submods.contains_key(&format!("{prefix}{n}"))).unwrap_or(0);
        let name = format!("{prefix}{number}");
        let named = |refusal| Refusal { of: name.clone(), ..refusal };
        self.refusals.extend(refusals.into_iter().map(named));
        self.submods.insert(name, claims);
    }

    /// Whether every piece was genuine and accepted, and there was one at all.
    pub fn accepted(&self) -> bool {
        self.refusals.is_empty() && !self.submods.is_empty()
    }

    /// What a Rego policy gets as its input: `{"submods": {"cpu0": {"ear.status",
    /// "ear.veraison.annotated-evidence"}}}`.
    ///
    /// What is not understood and accepted by name is a submodule `unread0` …, so that a policy
    /// sees it.
    pub fn input(&self) -> Value {
        json!({ "submods": self.appraised() })
    }

    /// Each submodule with its status: affirmed, affirmed with checks left out (a warning), or
    /// contraindicated: for its own sake, or because the whole set was refused.
    fn appraised(&self) -> BTreeMap<String, token::Submodule> {
        let of_all = self.refusals.iter().any(|refusal| !self.submods.contains_key(&refusal.of));
        let not_checked = self.not_checked();
        let genuine = self.claims().map(|(name, claims)| {
            let refused = of_all || self.refusals.iter().any(|refusal| refusal.of == name);
            let incomplete = not_checked.iter().any(|(of, ..)| *of == name);
            let annotated = json!({ claims.kind(): claims.to_json() });
            (name.to_owned(), appraised_as(Tier::appraised(!refused, incomplete), annotated))
        });
        let unread = self.unread.iter().enumerate().map(|(n, unread)| {
            let not_checked = [NotChecked::new(UNREAD, &unread.reason)];
            let claims = json!({ "unread": { "name": unread.of, "not_checked": not_checked } });
            (format!("unread{n}"), appraised_as(Tier::Warning, claims))
        });
        genuine.chain(unread).collect()
    }

    /// The name of every submodule, and its claims.
    pub fn claims(&self) -> impl Iterator<Item = (&str, &EvidenceClaims)> {
        self.submods.iter().map(|(name, claims)| (name.as_str(), claims))
    }

    /// Every check that was left out: the submodule's name (a file's, of what was not understood),
    /// the check, the reason.
    pub fn not_checked<'a>(&'a self) -> Vec<(&'a str, &'a str, &'a str)> {
        let unread =
            self.unread.iter().map(|unread| (unread.of.as_str(), UNREAD, unread.reason.as_str()));
        self.claims()
            .flat_map(|(name, claims)| {
                let entry = move |skipped: &'a NotChecked| {
                    (name, skipped.check.as_str(), skipped.reason.as_str())
                };
                claims.not_checked().iter().map(entry)
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
