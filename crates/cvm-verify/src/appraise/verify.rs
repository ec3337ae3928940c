//! From a set of files to its verdict.

use std::collections::BTreeMap;

use super::{Appraisal, EvidenceSet, Refusal, Terms, kinds, trust::Shared};
use crate::files::signs;

impl EvidenceSet {
    /// Verifies everything. The appraisal has claims even where a policy refuses them; where a
    /// verifier refuses the evidence, there are no claims to believe.
    pub fn verify(&self, terms: &Terms) -> Appraisal {
        let (mut unread, signatures) = self.unreadable();
        let left_out = self.left_out.iter().cloned().chain(signatures).collect();
        let mut appraisal = Appraisal { left_out, ..Appraisal::default() };
        let shared = match Shared::read(self, terms) {
            Ok(shared) => shared,
            Err(refusal) => {
                return Appraisal { refusals: [vec![refusal], unread].concat(), ..appraisal };
            }
        };
        appraisal.left_out.extend(shared.unused.iter().cloned());
        let attests =
            self.groups.values().any(|group| group.0.keys().any(|form| form.is_evidence()));
        for (name, group) in &self.groups {
            let of =
                |of: &str| if name.is_empty() { of.to_owned() } else { format!("{name}: {of}") };
            let found = if attests {
                kinds::verify(group, &shared, terms)
            } else {
                kinds::vouch(group, &shared, terms)
            };
            for verified in found.verified {
                match verified {
                    Ok(submodule) => appraisal.add(shared.dated(submodule)),
                    Err(refusal) => {
                        appraisal.refusals.push(Refusal { of: of(&refusal.of), ..refusal })
                    }
                }
            }
            let names = || group.0.values().flatten().map(|(name, _)| name);
            let (signatures, alone): (Vec<_>, Vec<_>) = found
                .unread
                .into_iter()
                .partition(|unread| names().any(|name| signs(&unread.of, name)));
            unread.extend(alone);
            appraisal.left_out.extend(signatures);
        }
        if appraisal.submods.is_empty() && appraisal.refusals.is_empty() {
            let help = "give a report, a quote, a log or a token; certificates and collateral only \
                vouch for one";
            appraisal.refusals.push(Refusal::input(
                "the files",
                "there is no evidence among them",
                help,
            ));
        }
        let (accepted, refused): (Vec<_>, Vec<_>) =
            unread.into_iter().partition(|unread| terms.rules.accepts_unread(&unread.of));
        appraisal.refusals.splice(0..0, summarized(refused));
        appraisal.refusals.extend(shared.unasked.clone());
        appraisal.refusals.iter_mut().for_each(|refusal| shared.name_nonce(refusal));
        appraisal.unread = accepted;
        kinds::check_composite(&mut appraisal, &shared);
        appraisal
    }
}

/// Where many files are refused for one reason: the first few, and how many more there are.
fn summarized(refused: Vec<Refusal>) -> Vec<Refusal> {
    const NAMED: usize = 8;
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut named = Vec::new();
    for refusal in refused {
        let count = counts.entry((refusal.code.clone(), refusal.help.clone())).or_default();
        *count += 1;
        if *count <= NAMED {
            named.push(refusal);
        }
    }
    named.extend(counts.into_iter().filter(|(_, count)| *count > NAMED).map(
        |((code, help), count)| {
            let (of, reason) = (
                format!("{} more", count - NAMED),
                format!("refused as the {NAMED} named before them"),
            );
            Refusal { of, code, reason, help }
        },
    ));
    named
}
