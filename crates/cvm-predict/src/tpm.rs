//! PCR values of an image from its files alone: what firmware, systemd-boot 252, systemd-stub 252
//! and a Linux kernel (6.1, 6.12) measure when they start it under Secure Boot.
//!
//! Each rule was compared event by event with real boots (OVMF 2022.11, swtpm); see
//! `tests/vectors/PROVENANCE.md`. The rules assume that the loader is the first boot option tried:
//! a VM with an empty CD-ROM before the disk has two more events in PCR 4.
//!
//! | PCR | events |
//! |---|---|
//! | 4 | "Calling EFI Application from Boot Option", separator, Authenticode of loader and UKI |
//! | 7 | SecureBoot, PK, KEK, db, dbx; separator; once, the db entry that authorised both |
//! | 9 | the kernel's command line (UTF-16, NUL), the initramfs |
//! | 11 | for each section that the stub knows: its name with NUL, its content |
//! | 12 | the loader's command line; a credential file beside the UKI would be here too |
//! | 13 | nothing; a system extension beside the UKI would be here |
//!
//! Without Secure Boot the stub would also have the kernel measured into PCR 4.

use cvm_base::{Bytes32, sha256};
use cvm_evidence::{eventlog::PredictedEvent, reference::TpmReference};

use crate::{
    error::PredictError,
    inputs::Inputs,
    pe::Pe,
    uki::{SECTIONS, command_line, utf16},
    variables,
};

/// Predicts what a TPM of the bundle will quote in PCRs 4, 7, 9, 11, 12 and 13.
///
/// # Errors
/// [`PredictError`] when a file is not a PE image, is not signed by a certificate in db, was
/// changed after it was signed, or lacks a section.
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
