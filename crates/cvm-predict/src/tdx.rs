//! MRTD and RTMR0 to RTMR3 of a TD from its files alone: what QEMU, OVMF, the loader and the kernel
//! measure.
//!
//! | register | events | checked against |
//! |---|---|---|
//! | MRTD | pages that the host adds, firmware's code | td-shim's tool on the same images |
//! | RTMR0 | TD HOB, variables, separator, ACPI tables, boot options | a production TD's log |
//! | RTMR1 | what firmware starts, and the calls around it | the same log, except the kernel |
//! | RTMR2 | command line, initramfs; systemd-stub's sections | rules of Linux 6.9, systemd 256 |
//! | RTMR3 | nothing | |
//!
//! td-shim's tool is `td_shim_tee_info_hash.py`. The log is `ccel/near-mpc`, compared event by
//! event. No log was at hand for RTMR2.
//!
//! Nothing is guessed about inputs that only the host knows. A register that depends on one has no
//! value, and [`Prediction::not_predicted`] says why.

use crate::{
    error::PredictError,
    inputs::Inputs,
    ovmf::{Guid, guid},
    pe::{Pe, contains},
    tdvf::Tdvf,
    uki::{SECTIONS, command_line, utf16},
    variables,
};
use cvm_evidence::{
    rtmr::{Bytes48, RtmrEvent, replay, sha384},
    tpm::Reader,
};

pub use crate::tdvf::PageOrder;

/// EFI_CC_MEASUREMENT_PROTOCOL (UEFI 2.10 §38.2). A program without it measures nothing in a TD.
const CC_PROTOCOL: Guid = guid(0x96751a3d, 0x72f4, 0x41a6, 0xa794_ed5d0e67ae6b);

/// SHA-384 of the ACPI tables as the host hands them over in fw_cfg. They describe its devices, so
/// only a host of the same configuration can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acpi {
    /// `etc/table-loader`.
    pub loader: Bytes48,
    /// `etc/acpi/rsdp`.
    pub rsdp: Bytes48,
    /// `etc/acpi/tables`.
    pub tables: Bytes48,
}

/// What is started, and how.
#[derive(Debug, Clone, Copy)]
pub enum Boot<'a> {
    /// QEMU's `-kernel`.
    Direct {
        /// The kernel as the firmware gets it. QEMU before 10.1 writes into the header of a
        /// bzImage.
        kernel: &'a [u8],
        /// `-append`.
        command_line: &'a str,
        /// `-initrd`.
        initrd: &'a [u8],
    },
    /// A disk, under Secure Boot.
    Disk {
        /// Loader, UKI and Secure Boot variables.
        inputs: &'a Inputs<'a>,
        /// The disk's first sectors: GPT header and entries (at least 34 × 512 bytes).
        gpt: Option<&'a [u8]>,
    },
}

/// What a TD's measurements depend on.
#[derive(Debug, Clone, Copy)]
pub struct TdxInputs<'a> {
    /// The whole firmware image, code and variables.
    pub firmware: &'a [u8],
    /// How the host adds it.
    pub pages: PageOrder,
    /// The TD's memory, in bytes (`-m`).
    pub memory: Option<u64>,
    /// The host's ACPI tables.
    pub acpi: Option<Acpi>,
    /// What is started.
    pub boot: Boot<'a>,
}

/// A register that has no predicted value, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotPredicted {
    /// The register, 0 to 3.
    pub rtmr: u8,
    /// What is measured there that is not known.
    pub reason: &'static str,
}

/// Predicted measurements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prediction {
    /// MRTD.
    pub mrtd: Bytes48,
    /// RTMR0 to RTMR3, where everything that goes into them is known.
    pub rtmrs: [Option<Bytes48>; 4],
    /// Every event that is known, in order within each register.
    pub explain: Vec<RtmrEvent>,
    /// Why the others have no value.
    pub not_predicted: Vec<NotPredicted>,
}

/// Predicts what a TD will measure.
///
/// # Errors
/// [`PredictError`] for firmware without TDX metadata, and as [`crate::tpm()`].
pub fn tdx(inputs: &TdxInputs<'_>) -> Result<Prediction, PredictError> {
    let firmware = Tdvf::parse(inputs.firmware)?;
    let mut events = Events::default();
    events.firmware(&firmware, inputs)?;
    match inputs.boot {
        Boot::Direct { kernel, command_line, initrd } => {
            events.direct(kernel, command_line, initrd)?
        }
        Boot::Disk { inputs, gpt } => events.disk(inputs, gpt)?,
    }
    let values = replay(events.known.iter().map(|event| (event.rtmr, &event.digest)));
    let missing = |rtmr: u8| events.missing.iter().any(|missing| missing.rtmr == rtmr);
    let mut rtmrs = values.map(Some);
    for (rtmr, value) in (0..).zip(&mut rtmrs) {
        if missing(rtmr) {
            *value = None;
        }
    }
    Ok(Prediction {
        mrtd: firmware.mrtd(inputs.pages),
        rtmrs,
        explain: events.known,
        not_predicted: events.missing,
    })
}

#[derive(Default)]
struct Events {
    known: Vec<RtmrEvent>,
    missing: Vec<NotPredicted>,
}

impl Events {
    fn add(&mut self, rtmr: u8, event: impl Into<String>, measured: &[u8]) {
        self.digest(rtmr, event, sha384(measured));
    }

    fn digest(&mut self, rtmr: u8, event: impl Into<String>, digest: Bytes48) {
        self.known.push(RtmrEvent { rtmr, event: event.into(), digest });
    }

    fn missing(&mut self, rtmr: u8, reason: &'static str) {
        self.missing.push(NotPredicted { rtmr, reason });
    }

    fn separator(&mut self, rtmr: u8) {
        self.add(rtmr, "separator", &0u32.to_le_bytes());
    }

    /// Up to the boot options.
    fn firmware(
        &mut self,
        firmware: &Tdvf<'_>,
        inputs: &TdxInputs<'_>,
    ) -> Result<(), PredictError> {
        match inputs.memory {
            Some(memory) => self.add(0, "TD HOB", &firmware.hob(memory)?),
            None => self.missing(0, "the TD HOB: the TD's memory size was not given"),
        }
        match firmware.configuration() {
            Some(volume) => self.add(0, "configuration volume", volume),
            None => self.missing(0, "the configuration volume: the firmware has none"),
        }
        let configuration = match inputs.boot {
            Boot::Direct { .. } => variables::no_configuration(),
            Boot::Disk { inputs, .. } => variables::configuration(inputs),
        };
        for (name, measured) in configuration {
            self.add(0, format!("variable {name}"), &measured);
        }
        self.separator(0);
        match inputs.acpi {
            Some(acpi) => {
                self.digest(0, "ACPI table loader", acpi.loader);
                self.digest(0, "ACPI RSDP", acpi.rsdp);
                self.digest(0, "ACPI tables", acpi.tables);
            }
            None => {
                self.missing(0, "the ACPI tables: they describe the host's devices and vCPU count")
            }
        }
        Ok(())
    }

    fn direct(
        &mut self,
        kernel: &[u8],
        command_line: &str,
        initrd: &[u8],
    ) -> Result<(), PredictError> {
        // BootOrder with one entry, Boot0000: OVMF's own UEFI application. Only the content is
        // measured.
        self.add(0, "variable BootOrder", &[0, 0]);
        self.add(0, "variable Boot0000", &UI_APP);
        self.digest(1, "kernel", Pe::parse("kernel", kernel)?.digest384());
        self.calls_before();
        self.calls_after();
        if contains(kernel, &CC_PROTOCOL) {
            // OVMF names the initramfs that it offers.
            let suffix = if initrd.is_empty() { "" } else { " initrd=initrd" };
            self.add(
                2,
                "kernel command line",
                &utf16(format!("{command_line}{suffix}").as_bytes()),
            );
            if !initrd.is_empty() {
                self.add(2, "initramfs", initrd);
            }
        }
        Ok(())
    }

    fn disk(&mut self, inputs: &Inputs<'_>, gpt: Option<&[u8]>) -> Result<(), PredictError> {
        let loader = Pe::parse("boot loader", inputs.loader)?;
        let uki = Pe::parse("UKI", inputs.uki)?;
        for image in [&loader, &uki] {
            image.signed_digest()?;
        }
        self.missing(
            0,
            "the boot options: the host decides which disks there are, and in which order",
        );
        // Firmware measures an authority once, however many images it authorises.
        self.add(0, "authority db", &variables::authority(inputs, [&loader, &uki])?);

        self.calls_before();
        match gpt.and_then(gpt_event) {
            Some(event) => self.add(1, "partition table", &event),
            None => self.missing(
                1,
                "the partition table: the disk's first sectors were not given, or hold no GPT",
            ),
        }
        self.digest(1, "boot loader", loader.digest384());
        self.digest(1, "UKI", uki.digest384());
        self.calls_after();
        self.stub(&uki)
    }

    /// What systemd-stub and the kernel measure, where they can.
    fn stub(&mut self, uki: &Pe<'_>) -> Result<(), PredictError> {
        let options = utf16(command_line(uki)?);
        let kernel = uki.section(".linux")?;
        let by_kernel = contains(kernel, &CC_PROTOCOL);
        // The stub is every section of the UKI that it does not load.
        let by_stub = [".text", ".rdata", ".rodata", ".data"]
            .iter()
            .filter_map(|name| uki.section(name).ok())
            .any(|section| contains(section, &CC_PROTOCOL));
        if by_stub {
            self.missing(
                2,
                "systemd-stub's own measurements: their order was not observed in a TD",
            );
            self.add(2, "command line from the loader", &options);
            for name in SECTIONS.iter().filter(|name| uki.has(name)) {
                self.add(2, format!("name {name}"), &[name.as_bytes(), &[0]].concat());
                self.add(2, format!("section {name}"), uki.section(name)?);
            }
        }
        if by_kernel {
            self.add(2, "kernel command line", &options);
            self.add(2, "initramfs", uki.section(".initrd")?);
        }
        Ok(())
    }

    fn calls_before(&mut self) {
        const CALLING: &str = "Calling EFI Application from Boot Option";
        self.add(1, CALLING, CALLING.as_bytes());
        self.separator(1);
    }

    fn calls_after(&mut self) {
        for call in ["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"] {
            self.add(1, call, call.as_bytes());
        }
    }
}

/// EFI_LOAD_OPTION of OVMF's "UiApp" in its firmware volume.
const UI_APP: [u8; 62] = *b"\x09\x01\x00\x00\x2c\x00U\x00i\x00A\x00p\x00p\x00\x00\x00\
    \x04\x07\x14\x00\xc9\xbd\xb8\x7c\xeb\xf8\x34\x4f\xaa\xea\x3e\xe4\xaf\x65\x16\xa1\
    \x04\x06\x14\x00\x21\xaa\x2c\x46\x14\x76\x03\x45\x83\x6e\x8a\xb6\xf4\x66\x23\x31\
    \x7f\xff\x04\x00";

/// UEFI_GPT_DATA (TCG PFP §10.2.8): the header, the number of entries in use, those entries.
fn gpt_event(disk: &[u8]) -> Option<Vec<u8>> {
    const SECTOR: usize = 512;
    let header = disk.get(SECTOR..SECTOR + 92)?;
    let field = |at: usize| Some(Reader::at("GPT", header, at).u32_le().ok()? as usize);
    let (first, count, size) = (field(72)?, field(80)?, field(84)?);
    if !header.starts_with(b"EFI PART")
        || !(128..=4096).contains(&size)
        || count > 1024
        || first > 64
    {
        return None;
    }
    let entries = disk.get(SECTOR * first..)?.get(..count * size)?;
    let used: Vec<&[u8]> =
        entries.chunks_exact(size).filter(|entry| entry[..16] != [0; 16]).collect();
    Some([header, &(used.len() as u64).to_le_bytes(), &used.concat()].concat())
}
