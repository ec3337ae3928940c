//! The KBS protocol, version 0.4.0, of Confidential Containers: request, challenge, attestation,
//! response, as Trustee v0.21 speaks it.
//!
//! Everything here is pure. [`client`] makes requests and consumes replies; `cvm_release_https`
//! carries them, and `cvm_release_server` answers them. Tests and fuzzers drive both sides without
//! a socket.

pub mod binding;
pub mod client;
pub mod jwe;
pub mod messages;
pub mod paths;
