//! The two kinds of secret this crate takes. Both are 32 bytes; types keep them apart.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A LUKS2 passphrase: `K(system)`, `K(state)` or `K(jobs)` of the split key, 256 uniformly random
/// bits.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct DiskKey([u8; 32]);

/// Authenticates a header area: `K(header-mac/…)` of the split key.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MacKey([u8; 32]);

macro_rules! secret {
    ($name:ident) => {
        impl $name {
            /// Takes a copy; the caller's own copy is the caller's to wipe.
            pub fn new(bytes: &[u8; 32]) -> Self {
                Self(*bytes)
            }

            pub(crate) fn expose(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(secret)"))
            }
        }
    };
}

secret!(DiskKey);
secret!(MacKey);
