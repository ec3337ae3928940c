//! The site's own data in the guest, at `/user_data` as NVFLARE's guide has it: the disk that the
//! host attached for it, or else p6; and in it the export that its `ext_mount.conf` names.
//!
//! All of it belongs to the host. It is mounted read-only, without devices, set-id bits or
//! programs, and every wait for it that NVFLARE's start has to sit out is bounded.

pub mod disk;
mod error;
pub mod export;
pub mod mounts;
pub mod nfs;

pub use error::DataError;
