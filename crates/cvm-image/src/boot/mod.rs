//! From a kernel and `cvm-init` to a disk that boots: initramfs, unified kernel image, Secure Boot
//! keys and variables, FAT images, and the assembled `disk.qcow2`.
//!
//! Everything here works on files in user space: no loop device, mount or device-mapper, no root.
//! The same inputs give the same bytes, except for the signatures' salts and dates.

pub mod disk;
mod error;
pub mod fat;
pub mod initramfs;
pub(crate) mod libraries;
pub(crate) mod partition_table;
pub mod secure_boot;
pub mod uki;
mod variables;

pub use error::BootError;

/// Where the signed boot loader lies on p1: the path that firmware tries without being told.
pub const LOADER_PATH: &str = "EFI/BOOT/BOOTX64.EFI";
/// Where the loader's settings lie on p1.
pub const LOADER_CONF_PATH: &str = "loader/loader.conf";
/// The loader's settings: no menu, no editor. Not authenticated, so nothing may depend on them.
pub const LOADER_CONF: &str = "timeout 0\neditor no\n";
/// Where the kernel image lies on p2.
pub const UKI_PATH: &str = "EFI/Linux/flare-cvm.efi";
