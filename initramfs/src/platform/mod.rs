//! The kernel's side of the boot: mounts, modules, devices, the command line, the power.

pub mod cmdline;
pub mod disk;
pub mod host;
pub mod kernel;
pub mod modules;
pub mod sysctl;
pub mod wait;
