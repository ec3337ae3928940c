//! The secret values: on the heap (moving one copies a pointer only), wiped on drop, without
//! `Clone`, and with a `Debug` that shows nothing.

use cvm_layout::names::Role;
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::error::SplitKeyError;

/// 32 secret bytes.
pub(super) struct Secret(Box<[u8; 32]>);

impl Secret {
    pub(super) fn copy_of(bytes: &[u8; 32]) -> Self {
        let mut secret = Self(Box::new([0; 32]));
        secret.0.copy_from_slice(bytes);
        secret
    }

    pub(super) fn random() -> Result<Self, SplitKeyError> {
        Self::fill(|bytes| getrandom::fill(bytes).map_err(|e| SplitKeyError::Random(e.to_string())))
    }

    pub(super) fn fill<E>(fill: impl FnOnce(&mut [u8; 32]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self(Box::new([0; 32]));
        fill(&mut secret.0)?;
        Ok(secret)
    }

    pub(super) fn xor(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(a, b)| *a ^= b);
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Secret {}

impl ConstantTimeEq for Secret {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.as_slice().ct_eq(other.0.as_slice())
    }
}

macro_rules! secret_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(pub(super) Secret);

        impl $name {
            /// Copies 32 bytes; wiping the source is the caller's part.
            pub fn from_bytes(bytes: &[u8; 32]) -> Self {
                Self(Secret::copy_of(bytes))
            }

            /// The 32 bytes. Copy them only into what wipes itself.
            pub fn as_bytes(&self) -> &[u8; 32] {
                self.0.bytes()
            }
        }

        impl ZeroizeOnDrop for $name {}

        impl ConstantTimeEq for $name {
            fn ct_eq(&self, other: &Self) -> Choice {
                self.0.ct_eq(&other.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(secret)"))
            }
        }
    };
}

secret_type! {
    /// `s_i`: a party's X25519 secret. Never leaves the party.
    PartySecret
}
secret_type! {
    /// `Q_i`: a party's half for one image. What a key holder releases.
    Half
}
secret_type! {
    /// `W_i`: shows party *i* that a document was made in the build that knew `e`.
    EnrolmentKey
}
secret_type! {
    /// `K_purpose`: opens or authenticates one part of the disk.
    CombinedKey
}

secret_type! {
    /// `M`: what one machine's TPM keeps.
    MachineSecret
}
secret_type! {
    /// `M_i`: one party's share of it.
    MachineShare
}

impl PartySecret {
    /// A new one from the system's random source.
    pub fn generate() -> Result<Self, SplitKeyError> {
        Secret::random().map(Self)
    }
}

/// `b_i,role`: a party's base key for one role. Known to the party, and to the builder during one
/// build.
pub struct BaseKey {
    /// Which images it is for.
    pub role: Role,
    bytes: Secret,
}

impl BaseKey {
    /// A new one from the system's random source.
    pub fn generate(role: Role) -> Result<Self, SplitKeyError> {
        Ok(Self { role, bytes: Secret::random()? })
    }

    /// Copies 32 bytes; wiping the source is the caller's part.
    pub fn from_bytes(role: Role, bytes: &[u8; 32]) -> Self {
        Self { role, bytes: Secret::copy_of(bytes) }
    }

    /// The 32 bytes. Copy them only into what wipes itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.bytes.bytes()
    }
}

impl ZeroizeOnDrop for BaseKey {}

impl std::fmt::Debug for BaseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BaseKey({}, secret)", self.role)
    }
}

/// The halves joined: HKDF's input key material.
pub(super) fn join(halves: &[&Half]) -> Zeroizing<Vec<u8>> {
    let mut joined = Zeroizing::new(Vec::with_capacity(32 * halves.len()));
    for half in halves {
        joined.extend_from_slice(half.as_bytes());
    }
    joined
}
