//! TPM 2.0 structures, parsed strictly from hostile bytes (TCG TPM 2.0 Library, part 2).
//!
//! Every parser is a pure function on a slice, copies at most a few hundred bytes, and refuses
//! trailing bytes.

mod attest;
mod hash;
mod key;
mod public;
mod read;
mod signature;
pub mod spki;

pub use attest::{ClockInfo, PcrSelection, Quote, REQUIRED_PCRS, parse_quote, pcr_digest};
pub use hash::{Digest, HashAlg};
pub use key::Key;
pub use public::{Public, Scheme, SigningScheme, attributes};
pub use read::Reader;
pub use signature::{Signature, parse_signature};
