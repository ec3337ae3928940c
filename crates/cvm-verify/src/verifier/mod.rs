//! From a TPM's evidence to claims: of one session of the release protocol, and of a running CVM.

mod certified;
mod credential;
mod ek;
mod quote;
mod replay;
mod session;

pub use certified::{Difference, QuotedEvidence, QuotedTpm, verify_quoted};
pub use credential::{CredentialState, challenge};
pub use ek::Roots;
pub use session::{Binding, verify};

#[cfg(test)]
mod tests;
