//! What a party decides: Rego policies over verified claims.
//!
//! Whoever decides links this crate: key holders, agents, and the command line. PID 1 and
//! `cvm-jobs` must not: a guest decides nothing about itself before its key holders did. Nothing
//! here verifies evidence: the caller brings claims that `cvm-verify` or `cvm-collateral` checked.
//!
//! A policy is text in `package policy`. Its input is laid out as Trustee's
//! (`input.submods.cpu0["ear.status"]`, `["ear.veraison.annotated-evidence"]`), so that policies
//! for Trustee run unchanged. Three belong to a bundle: boot-up, self and cross; [`new_policies`]
//! writes them.
//!
//! Besides `allow`, three rules are read if a policy has them:
//!
//! - `deny`: a set of reasons, of which one is enough to refuse;
//! - `accepted_not_checked`: the checks that evidence may have gone without;
//! - `checked`: the checks that the policy made itself (`acpi`: it compared PCR 0 and 1, or RTMR0).
//!
//! A check that the claims list as not checked, and that the policy neither made nor accepts by
//! name, is a refusal, also under policies that never heard of it: a verdict is not good because a
//! check was left out.
//!
//! | module | content |
//! |---|---|
//! | `engine` | [`Policy`], [`Decision`] |
//! | `builtins`, `calls` | bounds on what a policy may compute and how deep it may nest |
//! | `template` | [`new_policies`]: the policies of a bundle, from reference values |
//!
//! ```
//! use cvm_policy::Policy;
//! use serde_json::json;
//!
//! let text = r#"package policy
//! import rego.v1
//! default allow := false
//! allow if input.submods.cpu0["ear.status"] == "affirming"
//! "#;
//! let policy = Policy::compile("mine.rego", text.as_bytes())?;
//! let input = json!({"submods": {"cpu0": {"ear.status": "affirming"}}});
//! assert!(policy.decide(&input, &json!({}))?.allowed);
//! # Ok::<(), cvm_policy::PolicyError>(())
//! ```

mod builtins;
mod calls;
mod engine;
mod error;
mod template;

pub use engine::{Decision, MAX_INPUT_BYTES, MAX_POLICY_BYTES, Policy};
pub use error::PolicyError;
pub use template::new_policies;
