//! The KBS protocol, version 0.4.0, of Confidential Containers: request, challenge, attestation,
//! response (`reference/kbs.md`, read off Trustee v0.21).
//!
//! Everything here is a pure state machine over bytes: [`client`] makes requests and consumes
//! replies, [`server`] turns a request into a reply. Tests and fuzzers drive both without a socket.
//! The one exception is [`client::http`], the thin HTTPS transport of the boot path.

pub mod binding;
pub mod jwe;
pub mod messages;
pub mod paths;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod server;
