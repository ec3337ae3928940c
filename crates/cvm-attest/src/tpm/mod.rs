//! TPM 2.0 structures, parsed strictly from hostile bytes (TCG TPM 2.0 Library, part 2).
//!
//! Every parser is a pure function on a slice, copies at most a few hundred bytes, and refuses
//! trailing bytes.

mod attest;
mod hash;
mod public;
#[cfg(feature = "verifier")]
pub mod quote;
mod read;
mod signature;
mod spki;

pub use attest::{ClockInfo, PcrSelection, Quote, REQUIRED_PCRS, parse_quote, pcr_digest};
pub use hash::{Digest, HashAlg};
pub use public::{Key, Public, SigningScheme, attributes};
pub(crate) use read::Reader;
pub use signature::{Signature, parse_signature};
#[cfg(feature = "verifier")]
pub(crate) use spki::is_ecdsa_signature;
