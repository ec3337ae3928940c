//! `cvm-init`: PID 1 of the initramfs. `main.rs` tells the story; this library holds its chapters,
//! so that tests and fuzz targets reach them.

pub mod areas;
pub mod attest;
pub mod codes;
pub mod console;
#[cfg(test)]
mod fixtures;
pub mod handoff;
pub mod machine;
pub mod manifest;
pub mod mkfs;
pub mod net;
pub mod platform;
pub mod release;
pub mod root;
pub mod seal_plan;
#[cfg(test)]
mod seeds;
pub mod self_check;
pub mod site;
pub mod tpm;
pub mod tree;
pub mod volumes;
