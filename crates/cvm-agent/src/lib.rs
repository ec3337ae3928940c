//! `cvm-agent`: what a running CVM proves about itself. What it believes of its peers is in
//! [`cvm_peer`].
//!
//! | module | does |
//! |---|---|
//! | [`agent`] | the agent: its state, and what it answers |
//! | [`attester`] | the TPM, the TEE or the GPUs that give evidence |
//! | [`image`], [`config`] | what the running image says of itself; `agent.yaml` |
//! | [`memory`] | challenges that were issued, tokens that were seen |
//! | [`request`] | the socket's protocol (docs/agent-protocol.md) |
//! | [`serve`] | the socket and the node's port |
//! | [`journal`] | who verified whom, when, with what result |
//! | `turns` | who is next to ask the TPM, the TEE and the GPUs |
//! | `reports`, [`snpguest`] | bare SEV-SNP reports; the program that asks for them for NVFLARE |
//! | [`gate`], [`lockdown`] | before NVFLARE starts, and after a failed self-verification |

pub mod agent;
pub mod attester;
pub mod config;
pub mod error;
pub mod gate;
pub mod image;
pub mod journal;
pub mod lockdown;
pub mod memory;
mod reports;
pub mod request;
pub mod serve;
pub mod snpguest;
mod turns;
