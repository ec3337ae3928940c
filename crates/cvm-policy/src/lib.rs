//! Rego policies over verified claims: one engine for key holders, agents and the command line.
//!
//! A policy is text in `package policy`, over the input that Trustee's have
//! (`input.submods.cpu0["ear.status"]`, `["ear.veraison.annotated-evidence"]`), so that those in
//! circulation run unchanged. Three belong to a bundle: boot-up, self and cross; [`new_policies`]
//! writes them.
//!
//! Three rules are read besides `allow`, where a policy has them: `deny`, a set of reasons, of
//! which one is enough to refuse; `accepted_not_checked`, the checks that evidence may have gone
//! without; and `checked`, those that the policy made itself (`acpi`: it compared PCR 0 and 1, or
//! RTMR0). What the claims list as not checked and the policy neither made nor accepts by name is
//! refused, also under policies that never heard of it: a verdict is not good because a check was
//! left out.

mod builtins;
mod calls;
mod engine;
mod error;
mod template;

pub use engine::{Decision, MAX_INPUT_BYTES, MAX_POLICY_BYTES, Policy};
pub use error::PolicyError;
pub use template::new_policies;
