//! From sources to images: the three stages, the contents of the partitions, the signed boot chain
//! and the finished disk.

pub mod boot;
pub mod cc;
mod error;
mod host;
pub mod interrupt;
pub mod memory;
pub mod provision;
mod sparse;
pub mod stage;
mod tool;
mod tree;
pub mod user_data;
pub mod workload;

pub use error::WorkError;
