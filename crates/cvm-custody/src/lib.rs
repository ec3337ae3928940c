//! What a party and a builder keep on their own disks, and what they do with it.
//!
//! - [`Party`]: a party's folder. Its identity, its secret and its base keys in an `age` file, its
//!   key holder's TLS certificate, its release policy, and copies of what it contributed.
//! - [`BuilderSecrets`]: a builder's folder. The key that signs images, the `age` identity to which
//!   contributions are sealed, and a record of the builds whose names were used.
//!
//! The documents themselves, and all formulas, are `cvm_ceremony`'s, which is pure.

mod builder;
mod certificate;
mod error;
mod party;
mod vault;

pub use builder::{BUILDER_FILE, BuilderSecrets, open_contribution};
pub use error::CustodyError;
pub use party::{CERTIFICATE_FILE, NewParty, PARTY_FILE, POLICY_FILE, Party};
pub use vault::{Lock, SECRETS_FILE, UNLOCK_FILE, Unlock};
