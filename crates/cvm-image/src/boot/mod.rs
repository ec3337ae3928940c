//! From a kernel and `cvm-init` to a disk that boots: initramfs, unified kernel image, Secure Boot
//! keys and variables, FAT images, and the assembled `disk.qcow2`.
//!
//! Everything here works on files in user space: no loop device, mount or device-mapper, no root.
//! The same inputs give the same bytes, except for the signatures' salts and dates.

pub mod disk;
mod error;
pub mod fat;
pub mod initramfs;
mod libraries;
pub mod secure_boot;
mod tool;
pub mod uki;
mod variables;

pub use error::BootError;
pub use tool::require_tools;
