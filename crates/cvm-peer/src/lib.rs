//! What a verifier of a site needs: tokens, whom to believe, the verdict; and asking a node from
//! outside. The agent in a CVM uses it for its peers and itself, `flare-cvm attest` for a node.
//!
//! | module | does |
//! |---|---|
//! | [`token`] | the token: a statement, evidence bound to it, documents that judge the evidence |
//! | [`trust`] | whose documents and certificates are believed: those of the ceremony's agreement |
//! | [`verify`](mod@verify) | token → verdict, one typed [`error::AgentRefusal`] per check |
//! | [`evidence`] | the kinds of evidence in a token |
//! | `devices` | GPUs beside the CPU |
//! | [`clock`] | the protocol's times |
//! | [`audit`], [`stream`] | asking a node, or the local socket |
//! | [`limits`] | how long messages may be |
//!
//! Only [`audit`] and [`stream`] open sockets and read a clock. What verifies is pure.

pub mod audit;
pub mod clock;
mod devices;
pub mod error;
pub mod evidence;
pub mod limits;
pub mod stream;
pub mod token;
pub mod trust;
pub mod verify;
