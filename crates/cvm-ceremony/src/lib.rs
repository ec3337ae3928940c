//! The key ceremony between the parties of a federation, and the split key that it sets up. Pure:
//! no files, no clock, no network.
//!
//! - [`split_key`]: the formulas; all that `cvm-init` needs.
//! - Statements ([`Card`], [`Builder`], [`Invite`], [`Join`]), the [`Transcript`] that all parties
//!   sign, the [`Agreement`] with their signatures, and the [`Contribution`] of a base key to one
//!   build: small signed texts, parsed from bytes.
//! - [`build_split_key`]: what a build makes of them.
//!
//! The steps of a ceremony: a party's `Invite` → the others' `Join`s, each confirmed by reading its
//! fingerprint aloud → everybody computes the same `Transcript` and signs it → for each build,
//! every party seals a `Contribution` to the builder. Where the secrets are kept on disk is
//! `cvm_custody`'s business.

mod artifact;
mod build;
mod contribution;
mod enrolment;
mod error;
mod fingerprint;
pub mod split_key;
mod statement;
mod text;
mod transcript;
mod values;

pub use artifact::{Artifact, Described, check_any_bytes};
pub use build::{Keys, build_split_key};
pub use contribution::{Contribution, OpenedContribution};
pub use enrolment::{Enrolment, Marks, Permit, Permitter, SignatureBytes};
pub use error::CeremonyError;
pub use fingerprint::Fingerprint;
pub use statement::{
    Builder, Card, Invite, Join, MAX_SITES, Member, Signed, Site, Statement, Terms, fresh_nonce,
};
pub use text::{MAX_BYTES, SIGNED_CONTEXT, TextError};
pub use transcript::{Agreement, Draft, Transcript};
pub use values::{Date, PartyRole, Recipient, Url, ValueError};
