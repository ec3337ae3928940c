//! PCR values of an image from its files alone: what firmware, systemd-boot 252, systemd-stub 252
//! and a Linux kernel (6.1, 6.12) measure when they start it under Secure Boot.
//!
//! Each rule was compared event by event with real boots (OVMF 2022.11, swtpm); see
//! `tests/vectors/PROVENANCE.md`. The rules assume that the loader is the first boot option tried:
//! a VM with an empty CD-ROM before the disk has two more events in PCR 4.
//!
//! | PCR | events |
//! |---|---|
//! | 4 | "Calling EFI Application from Boot Option", separator, Authenticode(loader), Authenticode(UKI) |
//! | 7 | SecureBoot, PK, KEK, db, dbx; separator; the db entry that authorised loader and UKI, once |
//! | 9 | the kernel's command line (UTF-16, NUL), the initramfs |
//! | 11 | for each section that the stub knows: its name with NUL, its content |
//! | 12 | the command line as the loader passed it; a credential file beside the UKI would be here too |
//! | 13 | nothing; a system extension beside the UKI would be here |
//!
//! Without Secure Boot the stub would also have the kernel measured into PCR 4; with it, it does
//! not.

mod error;
mod pe;
pub mod snp;
mod tdvf;
pub mod tdx;
mod variables;

use cvm_base::{Bytes32, sha256};

pub use error::PredictError;

use cvm_evidence::{eventlog::PredictedEvent, reference::TpmReference};
use pe::Pe;

/// The files that a boot measures.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The signed boot loader (`\EFI\BOOT\BOOTX64.EFI`).
    pub loader: &'a [u8],
    /// The signed UKI.
    pub uki: &'a [u8],
    /// Content of the variable PK, as of the others: EFI_SIGNATURE_LISTs without attributes; empty
    /// if absent.
    pub pk: &'a [u8],
    /// Content of KEK.
    pub kek: &'a [u8],
    /// Content of db.
    pub db: &'a [u8],
    /// Content of dbx.
    pub dbx: &'a [u8],
    /// The entry of db whose certificate signed loader and UKI: EFI_SIGNATURE_DATA, owner's GUID
    /// and DER.
    pub authority: &'a [u8],
}

/// Sections that systemd-stub 252 measures, in its order (`unified_sections`, without `.pcrsig`).
const SECTIONS: [&str; 7] =
    [".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey"];

/// Predicts what a TPM of the bundle will quote in PCRs 4, 7, 9, 11, 12 and 13.
///
/// # Errors
/// [`PredictError`] when a file is no PE, is not signed by a certificate in db, was changed after
/// it was signed, or lacks a section.
pub fn tpm(inputs: &Inputs<'_>) -> Result<TpmReference, PredictError> {
    let loader = Pe::parse("boot loader", inputs.loader)?;
    let uki = Pe::parse("UKI", inputs.uki)?;
    let mut events = Events(Vec::new());
    events.applications(&loader, &uki)?;
    events.secure_boot(inputs, [&loader, &uki])?;
    events.sections(&uki)?;
    let command_line = utf16(command_line(&uki)?);
    events.add(9, "kernel command line", &command_line);
    events.add(9, "initramfs", uki.section(".initrd")?);
    events.add(12, "command line from the loader", &command_line);
    Ok(TpmReference::from_events(events.0, &[13]))
}

struct Events(Vec<PredictedEvent>);

impl Events {
    fn add(&mut self, pcr: u8, event: impl Into<String>, measured: &[u8]) {
        self.digest(pcr, event, sha256(measured));
    }

    fn digest(&mut self, pcr: u8, event: impl Into<String>, digest: Bytes32) {
        self.0.push(PredictedEvent { pcr, event: event.into(), digest });
    }

    fn separator(&mut self, pcr: u8) {
        self.add(pcr, "separator", &0u32.to_le_bytes());
    }

    fn applications(&mut self, loader: &Pe<'_>, uki: &Pe<'_>) -> Result<(), PredictError> {
        const CALLING: &str = "Calling EFI Application from Boot Option";
        self.add(4, CALLING, CALLING.as_bytes());
        self.separator(4);
        self.digest(4, "boot loader", loader.signed_digest()?);
        self.digest(4, "UKI", uki.signed_digest()?);
        Ok(())
    }

    fn secure_boot(
        &mut self,
        inputs: &Inputs<'_>,
        images: [&Pe<'_>; 2],
    ) -> Result<(), PredictError> {
        for (name, measured) in variables::configuration(inputs) {
            self.add(7, format!("variable {name}"), &measured);
        }
        self.separator(7);
        // Firmware measures an authority once, however many images it authorises.
        self.add(7, "authority db", &variables::authority(inputs, images)?);
        Ok(())
    }

    fn sections(&mut self, uki: &Pe<'_>) -> Result<(), PredictError> {
        for required in [".linux", ".osrel", ".cmdline", ".initrd"] {
            uki.section(required)?;
        }
        for name in SECTIONS.iter().filter(|name| uki.has(name)) {
            self.add(11, format!("name {name}"), &[name.as_bytes(), &[0]].concat());
            self.add(11, format!("section {name}"), uki.section(name)?);
        }
        Ok(())
    }
}

/// The command line; anything but printable ASCII would be changed on its way to the kernel.
fn command_line<'a>(uki: &Pe<'a>) -> Result<&'a [u8], PredictError> {
    let text = uki.section(".cmdline")?;
    match text.iter().all(|b| (0x20..0x7f).contains(b)) {
        true => Ok(text),
        false => Err(PredictError::CommandLine),
    }
}

fn utf16(ascii: &[u8]) -> Vec<u8> {
    ascii.iter().chain(&[0]).flat_map(|b| [*b, 0]).collect()
}
