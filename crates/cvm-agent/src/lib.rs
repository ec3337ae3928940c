//! `cvm-agent`: what a running CVM proves about itself, and what it believes of its peers.
//!
//! | module | does |
//! |---|---|
//! | [`token`] | the token: a statement, evidence bound to it, the documents that judge the evidence |
//! | [`trust`] | whose documents and certificates are believed: those of the ceremony's agreement |
//! | [`verify`] | token → verdict, one typed [`Refusal`] a check; no I/O |
//! | [`evidence`] | the kinds of evidence in a token |
//! | `devices` | GPUs beside the CPU |
//! | [`memory`] | challenges that were issued, tokens that were seen |
//! | [`request`] | the socket's protocol (docs/agent-protocol.md) |
//! | [`audit`] | asking a node from outside |
//! | `agent`, `attester`, `journal`, `serve` | the agent itself (feature `guest`) |
//! | `turns` | who is next to ask the TPM, the TEE and the GPUs (feature `guest`) |
//! | `reports`, `snpguest` | bare SEV-SNP reports, and the program that NVFLARE's own authorizer asks for them |
//! | `gate`, `lockdown` | before NVFLARE starts, and after a failed self-verification (feature `guest`) |

pub mod audit;
pub mod clock;
mod devices;
mod error;
pub mod evidence;
pub mod fuzz;
pub mod memory;
pub mod request;
mod stream;
pub mod token;
pub mod trust;
pub mod verify;

#[cfg(feature = "guest")]
pub mod agent;
#[cfg(feature = "guest")]
pub mod attester;
#[cfg(feature = "guest")]
pub mod config;
#[cfg(feature = "guest")]
pub mod gate;
#[cfg(feature = "guest")]
pub mod image;
#[cfg(feature = "guest")]
pub mod journal;
#[cfg(feature = "guest")]
pub mod lockdown;
#[cfg(feature = "guest")]
mod reports;
#[cfg(feature = "guest")]
pub mod serve;
#[cfg(feature = "guest")]
pub mod snpguest;
#[cfg(feature = "guest")]
mod turns;

pub use error::Refusal;
#[cfg(feature = "guest")]
pub use error::SetupError;

/// Where the agent listens.
pub const SOCKET: &str = "/run/flare-cvm/agent.sock";
/// The longest message on the socket and from the node's port, its newline included: a token, and
/// what is said with it.
pub const MAX_MESSAGE: usize = 3 << 20;
/// The longest question to the node's port, which anybody may ask.
pub const MAX_QUESTION: usize = 1024;
