//! Token → verdict. There is no I/O and no clock here; all that is remembered is which documents
//! were verified before.

use cvm_base::{Bytes32, Explain};
use cvm_layout::names::{Name, Role};
use cvm_policy::{Policy, PolicyError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    devices,
    error::AgentRefusal,
    evidence::{EvidenceContext, JudgedEvidence, short},
    token::{MAX_LIFETIME_S, Token, Use},
    trust::{SignedImage, Trust},
};

/// A site as the caller knows it: by the name and certificate that it proved, never by what its
/// message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The certificate's common name.
    pub name: Name,
    /// What it does.
    pub role: Role,
    /// SHA-256 of its certificate; null where the caller does not know it.
    #[serde(deserialize_with = "Option::deserialize")]
    pub tls_cert_sha256: Option<Bytes32>,
}

/// How clocks may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// Seconds that do not count.
    pub leeway_s: u64,
    /// By how many seconds this clock may be late so that waiting is worth it.
    pub max_wait_s: u64,
}

/// What a token must be like.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedToken<'a> {
    /// Made for this.
    pub use_: Use,
    /// Who shows it, as far as the caller knows.
    pub peer: Option<&'a Peer>,
    /// What it must answer.
    pub challenge: Option<&'a Bytes32>,
    /// What it must carry.
    pub report_sha256: Option<&'a Bytes32>,
}

/// Who was verified, and how.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The site.
    pub site: Name,
    /// For people and policies: normalized.
    pub claims: Value,
    /// By name.
    pub not_checked: Vec<String>,
}

/// The built-in policies.
const CROSS: &str = include_str!("policies/cross.rego");
const OWN: &str = include_str!("policies/self.rego");

/// The policy of `cross.rego`: the given text, or the built-in one.
///
/// # Errors
/// [`PolicyError`].
pub fn cross_policy(text: Option<&[u8]>) -> Result<Policy, PolicyError> {
    Policy::compile("cross.rego", text.unwrap_or(CROSS.as_bytes()))
}

/// The policy of `self.rego`: the given text, or the built-in one.
///
/// # Errors
/// [`PolicyError`].
pub fn self_policy(text: Option<&[u8]>) -> Result<Policy, PolicyError> {
    Policy::compile("self.rego", text.unwrap_or(OWN.as_bytes()))
}

/// Verifies a token at `now`, from the cheapest check to the dearest.
///
/// # Errors
/// [`AgentRefusal`], for the first check that fails.
pub fn verify(
    token: &Token,
    expected: &ExpectedToken<'_>,
    trust: &Trust,
    policy: &Policy,
    clocks: Clocks,
    now: u64,
) -> Result<Verdict, AgentRefusal> {
    let mut not_checked = check_statement(token, expected, clocks, now)?;
    let image = trust.image(&token.documents)?;
    check_image(token, &image, trust)?;
    let certified = trust.certified(&token.ak_certificates, &image.manifest);
    let against = EvidenceContext {
        digest: &token.statement.digest(),
        reference: &image.reference,
        certified: &certified,
        must_be_certified: expected.use_ != Use::Own,
        vendors: trust.vendors()?,
        now,
    };
    let JudgedEvidence { claims, status } = token.evidence.verify(&against)?;
    let mut submods = devices::verify(token, &image.manifest, against.vendors, now)?;
    let claims = json!({ token.evidence.kind(): claims });
    let cpu = json!({ "ear.status": status, "ear.veraison.annotated-evidence": claims });
    submods.insert("cpu0".into(), cpu);
    let input = json!({ "submods": submods });
    let statement = &token.statement;
    let data = json!({
        "reference": image.reference, "site": statement.site, "role": statement.role,
        "image_id": statement.image_id,
        "use": statement.use_, "now": now,
    });
    let decision = policy
        .decide(&input, &data)
        .map_err(|e| AgentRefusal::PolicyFailed { problem: format!("{}: {e}", e.code()) })?;
    if !decision.allowed {
        let reasons = match decision.reasons.as_slice() {
            [] => vec!["`allow` is not true".into()],
            reasons => reasons.to_vec(),
        };
        return Err(AgentRefusal::Policy {
            policy: policy.name().into(),
            sha256: policy.digest(),
            reasons,
        });
    }
    not_checked.splice(0..0, decision.not_checked);
    let claims = json!({
        "site": statement.site, "role": statement.role, "image_id": statement.image_id,
        "transcript": statement.transcript, "kind": token.evidence.kind(),
        "issued_at": crate::clock::rfc3339(statement.issued_at),
        "expires_at": crate::clock::rfc3339(statement.expires_at),
        "policy_sha256": policy.digest(), "submods": input["submods"],
    });
    Ok(Verdict { site: statement.site.clone(), claims, not_checked })
}

/// The cheap checks: the statement against what the caller knows, and against the clock.
fn check_statement(
    token: &Token,
    expected: &ExpectedToken<'_>,
    clocks: Clocks,
    now: u64,
) -> Result<Vec<String>, AgentRefusal> {
    let statement = &token.statement;
    if statement.use_ != expected.use_ {
        return Err(AgentRefusal::OtherUse {
            expected: expected.use_.as_str(),
            found: statement.use_.as_str(),
        });
    }
    let differ = |member, expected: String, found: String| AgentRefusal::OtherPeer {
        member,
        expected,
        found,
    };
    let mut not_checked = Vec::new();
    match expected.peer {
        Some(peer) => {
            if statement.site != peer.name {
                return Err(differ("site", peer.name.to_string(), statement.site.to_string()));
            }
            if statement.role != peer.role {
                return Err(differ("role", peer.role.to_string(), statement.role.to_string()));
            }
            match (&peer.tls_cert_sha256, &statement.tls_cert_sha256) {
                (Some(expected), Some(found)) if expected == found => {}
                (Some(expected), found) => {
                    let found = found.as_ref().map_or("none".into(), short);
                    return Err(differ("TLS certificate", short(expected), found));
                }
                (None, _) => not_checked.push("tls-certificate".into()),
            }
        }
        None if expected.use_ == Use::Peer => {
            not_checked.extend(["peer".into(), "tls-certificate".into()])
        }
        None => {}
    }
    if statement.challenge.as_ref() != expected.challenge {
        let text = |challenge: Option<&Bytes32>| challenge.map_or("none".into(), short);
        let (expected, found) = (text(expected.challenge), text(statement.challenge.as_ref()));
        return Err(AgentRefusal::OtherChallenge { expected, found });
    }
    if statement.report_sha256.as_ref() != expected.report_sha256 {
        return Err(AgentRefusal::malformed(
            "the report is another than the one that its evidence is bound to",
        ));
    }
    let (issued, expires) = (statement.issued_at, statement.expires_at);
    if issued.checked_add(1).is_none_or(|next| expires < next) || expires - issued > MAX_LIFETIME_S
    {
        let lifetime_s =
            i64::try_from(i128::from(expires) - i128::from(issued)).unwrap_or(i64::MAX);
        return Err(AgentRefusal::Window { lifetime_s, allowed: MAX_LIFETIME_S });
    }
    let ahead_s = issued.saturating_sub(now.saturating_add(clocks.leeway_s));
    if ahead_s > 0 {
        return Err(AgentRefusal::ClockBehind {
            ahead_s,
            worth_waiting: ahead_s <= clocks.max_wait_s,
        });
    }
    let ago_s = now.saturating_sub(expires.saturating_add(clocks.leeway_s));
    if ago_s > 0 {
        return Err(AgentRefusal::Expired { ago_s });
    }
    Ok(not_checked)
}

fn check_image(token: &Token, image: &SignedImage, trust: &Trust) -> Result<(), AgentRefusal> {
    let (statement, manifest) = (&token.statement, &image.manifest);
    let differ = |member, expected: String, found: String| AgentRefusal::OtherPeer {
        member,
        expected,
        found,
    };
    if statement.image_id != manifest.image_id {
        return Err(differ("image", manifest.image_id.to_string(), statement.image_id.to_string()));
    }
    if statement.site != manifest.site {
        return Err(differ("site", manifest.site.to_string(), statement.site.to_string()));
    }
    if statement.role != manifest.role {
        return Err(differ("role", manifest.role.to_string(), statement.role.to_string()));
    }
    if statement.transcript != trust.transcript() {
        let (expected, found) = (trust.transcript().to_string(), statement.transcript.to_string());
        return Err(AgentRefusal::OtherFederation { what: "ceremony", expected, found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_policies_compile_and_refuse_what_they_do_not_know() {
        for policy in [cross_policy(None).unwrap(), self_policy(None).unwrap()] {
            let ask = |claims: Value| {
                let evidence =
                    json!({ "ear.status": "warning", "ear.veraison.annotated-evidence": claims });
                policy.decide(&json!({ "submods": { "cpu0": evidence } }), &json!({})).unwrap()
            };
            let tpm = |phase: &str| {
                let endorsements = [json!({ "party": "a" })];
                json!({ "tpm": {
                    "phase": phase, "endorsements": endorsements, "not_checked": [],
                } })
            };
            assert!(ask(tpm("after-handoff")).allowed);
            assert!(!ask(tpm("boot")).allowed);
            let snp = |phase: &str| {
                let claims = json!({ "phase": phase, "trust": "tee", "not_checked": [] });
                json!({ "snp": claims })
            };
            assert!(ask(snp("not-shown")).allowed);
            let tdx = |phase: &str, status: &str| {
                json!({ "tdx": {
                    "phase": phase, "trust": "tee", "tcb_status": status, "advisory_ids": [],
                } })
            };
            assert!(ask(tdx("after-handoff", "UpToDate")).allowed);
            assert!(!ask(tdx("boot", "UpToDate")).allowed);
            for unknown in [
                snp("other"),
                tdx("other", "UpToDate"),
                json!({ "snp": { "measurement": "ab" } }),
                json!({}),
            ] {
                let refused = ask(unknown.clone());
                assert!(!refused.allowed, "{unknown}");
            }
            assert!(!ask(snp("other")).reasons.is_empty() && !ask(json!({})).reasons.is_empty());
        }
        let submods = |claims: Value| {
            let cpu = json!({ "ear.veraison.annotated-evidence": claims });
            json!({ "submods": { "cpu0": cpu } })
        };
        let uncertified = submods(json!({ "tpm": {
            "phase": "after-handoff", "endorsements": [],
            "not_checked": [{"check": "attestation-key-certificate", "reason": "none"}],
        }}));
        assert!(self_policy(None).unwrap().decide(&uncertified, &json!({})).unwrap().allowed);
        let cross = cross_policy(None).unwrap();
        assert!(!cross.decide(&uncertified, &json!({})).unwrap().allowed);
        let old = submods(json!({ "tdx": {
            "phase": "after-handoff", "trust": "tee", "tcb_status": "OutOfDate",
            "advisory_ids": ["INTEL-SA-1"],
        }}));
        let refused = cross.decide(&old, &json!({})).unwrap();
        assert!(!refused.allowed && refused.reasons[0].contains("OutOfDate"), "{refused:?}");
    }
}
