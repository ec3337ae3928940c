//! The key holder's side of the KBS protocol: `handle(request, now) -> outcome`, without sockets,
//! clocks or files.
//!
//! No session is in memory. What a session is between `auth` and `attest` travels sealed in its
//! cookie, so that a flood of `auth` costs no storage. What must not happen twice is refused
//! through the [`Store`], which several processes may share.

mod attest;
mod decision;
mod effect;
mod fault;
mod handle;
mod image;
mod keys;
mod resource;
mod seal;
mod server;
mod session;
mod token;
mod traits;

pub use decision::{
    Decision, HttpReply, MAX_DETAIL, Outcome, Reason, ReleaseRefusal, Step, Verdict,
};
pub use effect::{Chip, ChipError, Effect, MAX_REASON, Subject};
pub use fault::Fault;
#[doc(hidden)]
pub use handle::fuzz_bodies;
pub use keys::{Random, SessionKeys};
pub use server::{HttpRequest, ReleaseServer};
pub use session::SESSION_SECONDS;
#[doc(hidden)]
pub use session::fuzz_cookie;
#[doc(hidden)]
pub use token::fuzz_token;
pub use traits::{
    AttestedSession, EnrolledImage, EvidenceVerifier, Halves, PolicyAnswer, Prepared,
    ReleasePolicy, Seal, Store, Verified, VerifiedDevice,
};

#[cfg(test)]
mod tests;
