//! A report as text, letter for letter as virtee's `snpguest display report` writes it: NVFLARE
//! reads chip, TCB and report data out of it with regular expressions.

use std::fmt::{self, Display, Formatter};

use cvm_verify::snp::REPORT_BYTES;

/// CPUID's extended family of Turin, whose TCB has another layout.
const TURIN_FAMILY: u8 = 0x1a;

/// A report's bytes (SEV-SNP ABI 56860, §7.3), believed or not.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a>(pub &'a [u8; REPORT_BYTES]);

impl Text<'_> {
    /// Every range lies within the report.
    fn field(&self, at: usize, length: usize) -> &[u8] {
        self.0.get(at..at + length).unwrap_or_default()
    }

    fn number(&self, at: usize, length: usize) -> u64 {
        self.field(at, length).iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn hex(&self, at: usize, length: usize) -> Hex<'_> {
        Hex(self.field(at, length))
    }

    /// A version of the report's that has the field.
    fn since(&self, version: u64, at: usize, length: usize) -> Maybe {
        Maybe((self.number(0, 4) >= version).then(|| self.number(at, length)))
    }

    fn is_turin(&self) -> bool {
        match self.number(0, 4) {
            // Version 2 names no processor; Turin's chip ids have 8 bytes.
            ..3 => {
                self.number(0x1a0, 8) != 0 && self.field(0x1a8, 56).iter().all(|byte| *byte == 0)
            }
            _ => self.number(0x188, 1) == u64::from(TURIN_FAMILY),
        }
    }

    fn tcb(&self, at: usize) -> Tcb {
        let part = |offset| self.number(at + offset, 1);
        match self.is_turin() {
            true => Tcb {
                fmc: Maybe(Some(part(0))),
                bootloader: part(1),
                tee: part(2),
                snp: part(3),
                microcode: part(7),
            },
            false => Tcb {
                fmc: Maybe(None),
                bootloader: part(0),
                tee: part(1),
                snp: part(6),
                microcode: part(7),
            },
        }
    }

    fn firmware(&self, at: usize) -> String {
        format!("{}.{}.{}", self.number(at + 2, 1), self.number(at + 1, 1), self.number(at, 1))
    }
}

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Attestation Report:\n\nVersion:                      {}\n",
            self.number(0, 4)
        )?;
        writeln!(f, "Guest SVN:                    {}\n", self.number(4, 4))?;
        self.guest_policy(f)?;
        writeln!(f, "Family ID:{}\n\nImage ID:{}\n", self.hex(0x10, 16), self.hex(0x20, 16))?;
        writeln!(f, "VMPL:                         {}\n", self.number(0x30, 4))?;
        writeln!(f, "Signature Algorithm:          {}\n", self.number(0x34, 4))?;
        writeln!(f, "Current TCB:\n\n{}\n", self.tcb(0x38))?;
        self.platform_and_keys(f)?;
        writeln!(f, "Report Data:{}\n\nMeasurement:{}\n", self.hex(0x50, 64), self.hex(0x90, 48))?;
        writeln!(f, "Host Data:{}\n\nID Key Digest:{}\n", self.hex(0xc0, 32), self.hex(0xe0, 48))?;
        writeln!(
            f,
            "Author Key Digest:{}\n\nReport ID:{}\n",
            self.hex(0x110, 48),
            self.hex(0x140, 32)
        )?;
        writeln!(f, "Report ID Migration Agent:{}\n\nReported TCB:\n", self.hex(0x160, 32))?;
        writeln!(f, "{}\n", self.tcb(0x180))?;
        writeln!(f, "CPUID Family ID:              {}\n", self.since(3, 0x188, 1))?;
        writeln!(f, "CPUID Model ID:               {}\n", self.since(3, 0x189, 1))?;
        writeln!(f, "CPUID Stepping:               {}\n", self.since(3, 0x18a, 1))?;
        writeln!(f, "Chip ID:{}\n\nCommitted TCB:\n\n{}\n", self.hex(0x1a0, 64), self.tcb(0x1e0))?;
        writeln!(f, "Current Version:              {}\n", self.firmware(0x1e8))?;
        writeln!(f, "Committed Version:            {}\n", self.firmware(0x1ec))?;
        writeln!(f, "Launch TCB:\n\n{}\n", self.tcb(0x1f0))?;
        writeln!(f, "Launch Mitigation Vector:     {}\n", self.since(5, 0x1f8, 8))?;
        writeln!(f, "Current Mitigation Vector:    {}\n", self.since(5, 0x200, 8))?;
        write!(f, "Signature:\n  R:{}\n  S:{}", self.hex(0x2a0, 72), self.hex(0x2a0 + 72, 72))
    }
}

impl Text<'_> {
    fn guest_policy(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let policy = self.number(8, 8);
        let bit = |bit: u32| policy >> bit & 1 == 1;
        writeln!(f, "Guest Policy (0x{policy:x}):")?;
        writeln!(f, "  ABI Major:     {}\n  ABI Minor:     {}", policy >> 8 & 0xff, policy & 0xff)?;
        writeln!(f, "  SMT Allowed:   {}\n  Migrate MA:    {}", bit(16), bit(18))?;
        writeln!(f, "  Debug Allowed: {}\n  Single Socket: {}", bit(19), bit(20))?;
        // virtee's spelling.
        writeln!(f, "  CXL Allowed:   {}\n  AEX 256 XTS:   {}", bit(21), bit(22))?;
        writeln!(f, "  RAPL Allowed:  {}\n  Ciphertext hiding: {}", bit(23), bit(24))?;
        writeln!(f, "  Page Swap Disable: {}\n", bit(25))
    }

    fn platform_and_keys(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (platform, keys) = (self.number(0x40, 8), self.number(0x48, 4));
        let bit = |bit: u32| platform >> bit & 1 == 1;
        writeln!(f, "Platform Info ({platform}):")?;
        writeln!(
            f,
            "  SMT Enabled:               {}\n  TSME Enabled:              {}",
            bit(0),
            bit(1)
        )?;
        writeln!(
            f,
            "  ECC Enabled:               {}\n  RAPL Disabled:             {}",
            bit(2),
            bit(3)
        )?;
        writeln!(
            f,
            "  Ciphertext Hiding Enabled: {}\n  Alias Check Complete:      {}",
            bit(4),
            bit(5)
        )?;
        writeln!(f, "  SEV-TIO Enabled:           {}\n", bit(7))?;
        let signing = match keys >> 2 & 7 {
            0 => "vcek",
            1 => "vlek",
            7 => "none",
            _ => "unknown",
        };
        let (author, mask) = (keys & 1 == 1, keys >> 1 & 1 == 1);
        writeln!(
            f,
            "Key Information:\n    author key enabled: {author}\n    mask chip key:      {mask}"
        )?;
        writeln!(f, "    signing key:        {signing}\n")
    }
}

struct Tcb {
    fmc: Maybe,
    bootloader: u64,
    tee: u64,
    snp: u64,
    microcode: u64,
}

impl Display for Tcb {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "TCB Version:\n  Microcode:   {}\n  SNP:         {}",
            self.microcode, self.snp
        )?;
        write!(
            f,
            "  TEE:         {}\n  Boot Loader: {}\n  FMC:         {}",
            self.tee, self.bootloader, self.fmc
        )
    }
}

struct Maybe(Option<u64>);

impl Display for Maybe {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "{number}"),
            None => f.write_str("None"),
        }
    }
}

/// Sixteen bytes a line, on lines of their own.
struct Hex<'a>(&'a [u8]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for line in self.0.chunks(16) {
            let line: Vec<_> = line.iter().map(|byte| format!("{byte:02X}")).collect();
            write!(f, "\n{}", line.join(" "))?;
        }
        Ok(())
    }
}
