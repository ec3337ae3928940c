//! A UKI's sections, as far as they are measured.

use crate::{error::PredictError, pe::Pe};

/// Sections that systemd-stub 252 measures, in its order (`unified_sections`, without `.pcrsig`).
pub(crate) const SECTIONS: [&str; 7] =
    [".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey"];

/// The command line; anything but printable ASCII would be changed on its way to the kernel.
pub(crate) fn command_line<'a>(uki: &Pe<'a>) -> Result<&'a [u8], PredictError> {
    let text = uki.section(".cmdline")?;
    match text.iter().all(|b| (0x20..0x7f).contains(b)) {
        true => Ok(text),
        false => Err(PredictError::CommandLine),
    }
}

/// ASCII as UTF-16 (little-endian) with a NUL at its end, as UEFI passes strings.
pub(crate) fn utf16(ascii: &[u8]) -> Vec<u8> {
    ascii.iter().chain(&[0]).flat_map(|b| [*b, 0]).collect()
}
