//! One module a command family.

pub mod build;
pub mod ceremony;
pub mod keyholder;
mod progress;
pub mod provision;
mod secret_input;
