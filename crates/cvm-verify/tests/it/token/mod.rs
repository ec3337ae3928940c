//! Verifiers' tokens: the vectors, the ways in which JWTs were broken before, and our own results.

mod confusion;
mod ear;
mod ita;
mod maa;
mod nras;
mod rules;
mod signer;
