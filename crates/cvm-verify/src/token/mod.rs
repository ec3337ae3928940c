//! Tokens of verifier services: Microsoft Azure Attestation, Intel Trust Authority, NVIDIA NRAS;
//! and our own.
//!
//! A verifier's token is its verdict on somebody's evidence, made by a policy that is not ours.
//! What it proves is that the issuer said so, to whom, when, and over which challenge. So a policy
//! here must name the issuer, and says what of the verdict it accepts; debuggable TEEs are refused
//! unless it says otherwise.
//!
//! The ways in which JWTs were broken before, and what is done about each:
//!
//! | attack | answer |
//! |---|---|
//! | `alg: none`, HS256 with the public key as the secret | six algorithms, none symmetric |
//! | ES384 under a P-256 key, PS256 under a key for RS256 | the key's `kty`, `crv`, `alg` decide |
//! | `jwk`, `jku`, `x5u`, `x5c` in the header | never read: keys come from the caller alone |
//! | `crit`, `b64`, `zip`, `cty`, another `typ` | refused |
//! | a `kid` that is missing, unknown or given twice | exactly one key must have that name |
//! | duplicate members, deep nesting, long input | refused before anything is believed |
//!
//! The signature check itself is aws-lc-rs. jsonwebtoken 11 was considered and makes the tokens of
//! the tests: its `Jwk` cannot read Azure's keys (they have `x5c` only), it keeps the last of
//! duplicate members, judges by algorithm family and not by curve, ignores `crit`, and takes its
//! clock from the system.

mod algorithm;
mod ear;
mod error;
mod ita;
pub(crate) mod json;
mod jwks;
mod jws;
mod maa;
mod nras;
mod rules;

pub use algorithm::Algorithm;
pub use ear::{
    EarKey, EarToken, PROFILE, PROFILE_TRUSTEE, Submodule, Tier, TrustVector, VerifierId,
};
pub use error::TokenError;
pub use ita::{ItaClaims, ItaPolicy, verify_ita};
pub use jwks::{KeySet, MAX_KEY_SET_BYTES};
pub use jws::{MAX_TOKEN_BYTES, Token};
pub use maa::{MaaClaims, MaaPolicy, verify_maa};
pub use nras::{DetachedEat, MAX_DETACHED_BYTES, NrasClaims, NrasPolicy, verify_nras};
pub use rules::{DEFAULT_LEEWAY, Expected, MAX_LEEWAY, Registered, Rules};
