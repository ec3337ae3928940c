//! Opening and making areas inside the CVM. Needs device-mapper and root.
//!
//! [`read_header`] → [`crate::guard::check`] → [`open_sealed`] is the only way to a device: what is
//! opened is what was checked, because libcryptsetup gets the header from RAM and never sees the
//! disk's copy. [`open_verity`] takes every parameter from the manifest and reads no superblock.
//! On the first boot [`create_authenticated`] makes p5 and `state`.
//!
//! What the host can still do: nothing authenticates dm-integrity's superblock, which the kernel
//! reads in front of an authenticated area's data. By changing it the host can make the area
//! unreadable (every sector then fails its HMAC, which covers its position), but cannot read or
//! write it. An older ciphertext sector that is put back *with its own older tag* is not detected;
//! SECURITY.md says so.

mod create;
mod device;
mod extents;
pub mod mkfs;
mod sealed;

pub use create::create_authenticated;
pub use device::{Access, Slice, close, linear, open_verity};
pub use sealed::{open_sealed, read_header};
