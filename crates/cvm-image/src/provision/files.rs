//! The names of a bundle's files.

/// The sealed disk.
pub const DISK: &str = "disk.qcow2";
/// The firmware.
pub const CODE: &str = "OVMF_CODE.fd";
/// Its variables: Secure Boot with the project's keys.
pub const VARS: &str = "OVMF_VARS.fd";
/// What was built; the copy on p1 is what counts.
pub const MANIFEST: &str = "manifest.json";
/// The builder's signature over it.
pub const MANIFEST_SIG: &str = "manifest.sig";
/// The predicted measurements, for the key holders.
pub const REFERENCE: &str = "reference.json";
/// The builder's signature over it.
pub const REFERENCE_SIG: &str = "reference.sig";
/// Starts the CVM.
pub const LAUNCH: &str = "launch_vm.sh";
/// What to do with the bundle.
pub const README: &str = "README.txt";
