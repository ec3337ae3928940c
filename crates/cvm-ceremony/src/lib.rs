//! The key ceremony between the parties of a federation, and the split key that it sets up.
//!
//! - [`split_key`]: the formulas; all that `cvm-init` needs.
//! - Statements ([`Card`], [`Builder`], [`Invite`], [`Join`]), the [`Transcript`] that all parties
//!   sign, the [`Agreement`] with their signatures, and the [`Contribution`] of a base key to one
//!   build: small signed texts, parsed from bytes by pure functions.
//! - [`build_split_key`]: what a build makes of them.
//! - With the feature `artifacts`: a party's and a builder's secrets on disk, encrypted with `age`.
//!
//! The way of a ceremony: a party's `Invite` → the others' `Join`s, each confirmed by reading its
//! fingerprint aloud → everybody computes the same `Transcript` and signs it → for each build,
//! every party seals a `Contribution` to the builder.

mod artifact;
mod build;
#[cfg(feature = "artifacts")]
mod builder;
mod contribution;
mod enrolment;
mod error;
mod fingerprint;
#[cfg(feature = "artifacts")]
mod party;
pub mod split_key;
mod statement;
mod text;
mod transcript;
mod values;
#[cfg(feature = "artifacts")]
mod vault;

pub use artifact::{Artifact, Described, check_any_bytes};
pub use build::{Keys, build_split_key};
#[cfg(feature = "artifacts")]
pub use builder::{BUILDER_FILE, BuilderSecrets, open_contribution};
pub use contribution::{Contribution, OpenedContribution};
pub use enrolment::{Marks, Permit, SignatureBytes};
pub use error::CeremonyError;
pub use fingerprint::Fingerprint;
#[cfg(feature = "artifacts")]
pub use party::{CERTIFICATE_FILE, NewParty, PARTY_FILE, POLICY_FILE, Party};
pub use statement::{
    Builder, Card, Invite, Join, MAX_SITES, Member, Signed, Site, Statement, Terms, fresh_nonce,
};
pub use text::{MAX_BYTES, SIGNED_CONTEXT, TextError};
pub use transcript::{Agreement, Draft, Transcript};
pub use values::{Date, PartyRole, Recipient, Url, ValueError};
#[cfg(feature = "artifacts")]
pub use vault::{Lock, SECRETS_FILE, UNLOCK_FILE, Unlock};
