//! LUKS2, dm-verity and the guard that believes no LUKS2 header.
//!
//! | module | runs | does |
//! |---|---|---|
//! | [`verity`] | on the build machine | puts a hash tree after a volume |
//! | [`luks`] | on the build machine | makes p3's first area: header, ciphertext, seal record |
//! | [`guard`] | anywhere, pure | decides whether a stranger's 1 MiB is a header that we made |
//! | [`guest`] | in the CVM, as root | opens what the guard passed; makes p5 and `state` |
//!
//! The build machine needs no device-mapper, no loop device and no root: [`verity`] and [`luks`]
//! work on plain files.
//!
//! A LUKS2 area on the disk is [`HEADER_BYTES`] of header area, then ciphertext:
//!
//! | bytes | what |
//! |---|---|
//! | 0 .. 16 KiB | first binary header and its JSON |
//! | 16 .. 32 KiB | the second copy |
//! | 32 KiB .. 992 KiB | keyslots (one is used) |
//! | 992 KiB .. 1020 KiB | unused |
//! | 1020 KiB .. 1 MiB | the seal record ([`guard::record`]): a MAC over everything before it |
//! | from 1 MiB | ciphertext, or dm-integrity's superblock, journal, tags and ciphertext |

mod error;
mod format;
pub mod guard;
pub mod guest;
mod keys;
pub mod luks;
mod messages;
mod ram;
pub mod verity;

pub use error::SealError;
pub use format::{BLOCK, HEADER_BYTES};
pub use keys::{DiskKey, MacKey};
