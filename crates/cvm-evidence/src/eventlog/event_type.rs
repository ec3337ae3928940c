//! TCG_EVENTTYPE values that this crate names (PC Client Profile §10.4.1).

/// Informs, extends nothing.
pub const NO_ACTION: u32 = 3;
/// Ends a phase of measurement.
pub const SEPARATOR: u32 = 4;
/// A boot loader's own event, such as a section that systemd-stub measures.
pub const IPL: u32 = 0x0d;
/// A UEFI variable's value.
pub const EFI_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
/// A boot application: loader, UKI.
pub const EFI_BOOT_SERVICES_APPLICATION: u32 = 0x8000_0003;
/// A step that the firmware takes.
pub const EFI_ACTION: u32 = 0x8000_0007;
/// The entry of db that authorised an image.
pub const EFI_VARIABLE_AUTHORITY: u32 = 0x8000_00e0;
