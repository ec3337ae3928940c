//! The key holder: a party's own HTTPS server. It releases the party's half of an image's key to
//! evidence that its policy accepts, and keeps a signed log of its decisions.
//!
//! | module | does |
//! |---|---|
//! | [`service`] | TLS, HTTP, shutdown |
//! | [`limit`] | how much of the service one peer may have |
//! | `console` | lines for whoever watches |
//! | `refusals` | how much of the log refusals may fill |
//! | [`store`] | SQLite: the log, and the texts that it names by their digests |
//! | [`log`] | the signed, hash-chained audit log |
//! | [`memory`] | the sum of the log: images, sessions, releases, seals, withdrawals |
//! | [`protect`] | the process: no dumps, no swap |
//! | [`documents`] | checks an image's signed documents against the ceremony's agreement |
//! | [`evidence`] | the verifiers as the protocol's verifier |
//! | [`policy`] | Rego |
//!
//! The protocol itself is `cvm_release_server`, which knows none of these.

mod console;
pub mod documents;
mod error;
pub mod evidence;
pub mod limit;
pub mod log;
pub mod memory;
pub mod policy;
pub mod protect;
mod refusals;
pub mod service;
pub mod store;

pub use error::KeyHolderError;
