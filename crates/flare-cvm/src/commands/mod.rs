//! One module per family of commands.

pub mod attest;
pub mod build;
pub mod ceremony;
pub mod collateral;
pub mod data;
mod day;
pub mod keyholder;
pub mod policy;
pub mod predict;
mod progress;
pub mod provision;
mod secret_input;
