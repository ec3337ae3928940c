//! TCG PC Client event logs, crypto-agile form (PC Client Platform Firmware Profile 1.05, §10).
//!
//! A log is hostile: parsing borrows slices of it and never sizes anything by a number it states.

use std::collections::BTreeMap;

use cvm_base::{Bytes, Bytes32, sha256};

use crate::{AttestError, reference::PredictedEvent, tpm::Reader};

/// More than any firmware logs; longer input is refused unread.
pub const MAX_BYTES: usize = 1024 * 1024;
const MAX_ALGORITHMS: u32 = 16;
const SHA256: u16 = 0x000b;
/// Highest register that firmware measures into.
const LAST_PCR: u32 = 23;

/// TCG_EVENTTYPE values that this crate names (profile §10.4.1).
pub mod event_type {
    /// Informs, extends nothing.
    pub const NO_ACTION: u32 = 3;
    /// Ends a phase of measurement.
    pub const SEPARATOR: u32 = 4;
    /// Boot loader's own (systemd-stub's sections, for one).
    pub const IPL: u32 = 0x0d;
    /// A UEFI variable's value.
    pub const EFI_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
    /// A boot application: loader, UKI.
    pub const EFI_BOOT_SERVICES_APPLICATION: u32 = 0x8000_0003;
    /// A step that the firmware takes.
    pub const EFI_ACTION: u32 = 0x8000_0007;
    /// The entry of db that authorised an image.
    pub const EFI_VARIABLE_AUTHORITY: u32 = 0x8000_00e0;
}

/// One measurement of the SHA-256 bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The register, 0 to 23.
    pub pcr: u8,
    /// TCG_EVENTTYPE.
    pub kind: u32,
    /// What was extended.
    pub digest: Bytes32,
    /// What the log says about it. Not measured as such: believe it only where its hash is `digest`.
    pub data: &'a [u8],
}

impl Event<'_> {
    /// A name for people: the event's text where the digest proves it, else its type.
    pub fn describe(&self) -> String {
        let proven = sha256(self.data) == self.digest;
        match self.kind {
            event_type::SEPARATOR => "separator".into(),
            event_type::EFI_ACTION if proven => printable(self.data),
            event_type::EFI_VARIABLE_DRIVER_CONFIG if proven => format!("variable {}", variable_name(self.data)),
            event_type::EFI_VARIABLE_AUTHORITY if proven => format!("authority {}", variable_name(self.data)),
            event_type::EFI_VARIABLE_DRIVER_CONFIG => "variable".into(),
            event_type::EFI_VARIABLE_AUTHORITY => "authority".into(),
            event_type::EFI_BOOT_SERVICES_APPLICATION => "application".into(),
            event_type::IPL => "loader event".into(),
            other => format!("event {other:#010x}"),
        }
    }
}

impl From<&Event<'_>> for PredictedEvent {
    fn from(event: &Event<'_>) -> Self {
        Self { pcr: event.pcr, event: event.describe(), digest: event.digest }
    }
}

/// A parsed log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLog<'a> {
    events: Vec<Event<'a>>,
    startup_locality: u8,
}

impl<'a> EventLog<'a> {
    /// Reads a log that has a SHA-256 bank. Zero or 0xff padding behind the last event is allowed.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for a SHA-1-only log, an event that lacks a bank, any size that does
    /// not fit, or a late or repeated StartupLocality.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, AttestError> {
        let mut r = Reader::new("event log", bytes);
        if bytes.len() > MAX_BYTES {
            return Err(r.error(format!("{} bytes, at most {MAX_BYTES} allowed", bytes.len())));
        }
        let banks = read_header(&mut r)?;
        let mut log = Self { events: Vec::new(), startup_locality: 0 };
        let mut locality_seen = false;
        while !is_padding(r.rest()) {
            let (event, pcr) = read_event(&mut r, &banks)?;
            if event.kind == event_type::NO_ACTION {
                if let Some(locality) = startup_locality(event.data) {
                    if locality_seen || log.events.iter().any(|e| e.pcr == 0) {
                        return Err(r.error("StartupLocality repeated, or behind PCR 0's first measurement"));
                    }
                    locality_seen = true;
                    log.startup_locality = locality;
                }
                continue;
            }
            if pcr > LAST_PCR {
                return Err(r.error(format!("an event extends PCR {pcr}")));
            }
            log.events.push(event);
        }
        Ok(log)
    }

    /// The events that extend a register, in order.
    pub fn events(&self) -> &[Event<'a>] {
        &self.events
    }

    /// The SHA-256 values the log leads to, for every register it extends, and for PCR 0.
    pub fn replay(&self) -> BTreeMap<u8, Bytes32> {
        // Profile §10.4.5.3: PCR 0 starts as the locality of TPM2_Startup.
        let mut start = [0; 32];
        start[31] = self.startup_locality;
        let mut pcrs = BTreeMap::from([(0, Bytes(start))]);
        for event in &self.events {
            let value = pcrs.entry(event.pcr).or_insert(Bytes([0; 32]));
            *value = extend(value, &event.digest);
        }
        pcrs
    }
}

/// TPM2_PCR_Extend in the SHA-256 bank: SHA-256(`pcr` ‖ `digest`).
pub fn extend(pcr: &Bytes32, digest: &Bytes32) -> Bytes32 {
    sha256(&[pcr.0, digest.0].concat())
}

fn is_padding(rest: &[u8]) -> bool {
    rest.iter().all(|b| *b == 0) || rest.iter().all(|b| *b == 0xff)
}

/// TCG_PCR_EVENT with TCG_EfiSpecIdEvent; returns each bank's algorithm and digest size.
fn read_header(r: &mut Reader<'_>) -> Result<Vec<(u16, usize)>, AttestError> {
    let pcr = r.u32_le()?;
    r.expect("first event's PCR", 0, pcr)?;
    let kind = r.u32_le()?;
    r.expect("first event's type", event_type::NO_ACTION, kind)?;
    r.take(20)?; // a SHA-1 digest of zeros
    let size = r.u32_le()? as usize;
    let mut spec = Reader::new("event log's Spec ID event", r.take(size)?);
    if spec.take(16)? != b"Spec ID Event03\0" {
        return Err(spec.error("not a crypto-agile log (SHA-1 only)"));
    }
    spec.take(4 + 3 + 1)?; // platform class; version minor, major, errata; size of UINTN
    let count = spec.u32_le()?;
    if count == 0 || count > MAX_ALGORITHMS {
        return Err(spec.error(format!("{count} banks, 1 to {MAX_ALGORITHMS} allowed")));
    }
    let mut banks: Vec<(u16, usize)> = Vec::new();
    for _ in 0..count {
        let (algorithm, size) = (spec.u16_le()?, usize::from(spec.u16_le()?));
        let right = match algorithm {
            0x0004 => size == 20,
            SHA256 | 0x0012 | 0x0027 => size == 32,
            0x000c | 0x0028 => size == 48,
            0x000d | 0x0029 => size == 64,
            _ => size <= 64,
        };
        if !right || banks.iter().any(|(known, _)| *known == algorithm) {
            return Err(spec.error(format!("bank {algorithm:#06x} with digests of {size} bytes, or named twice")));
        }
        banks.push((algorithm, size));
    }
    let vendor = usize::from(spec.u8()?);
    spec.take(vendor)?;
    spec.end()?;
    if banks.iter().all(|(algorithm, _)| *algorithm != SHA256) {
        return Err(spec.error("no SHA-256 bank"));
    }
    Ok(banks)
}

/// TCG_PCR_EVENT2. The register is also returned unnarrowed: a NO_ACTION event may name none.
fn read_event<'a>(r: &mut Reader<'a>, banks: &[(u16, usize)]) -> Result<(Event<'a>, u32), AttestError> {
    let pcr = r.u32_le()?;
    let kind = r.u32_le()?;
    let count = r.u32_le()? as usize;
    if count != banks.len() {
        return Err(r.error(format!("an event with {count} digests, expected {}", banks.len())));
    }
    let mut seen = Vec::with_capacity(banks.len());
    let mut digest = Bytes([0; 32]);
    for _ in 0..count {
        let algorithm = r.u16_le()?;
        let Some((_, size)) = banks.iter().find(|(known, _)| *known == algorithm && !seen.contains(known)) else {
            return Err(r.error(format!("an event with bank {algorithm:#06x}, unknown or twice")));
        };
        seen.push(algorithm);
        if algorithm == SHA256 {
            digest = Bytes(r.array()?);
        } else {
            r.take(*size)?;
        }
    }
    let size = r.u32_le()? as usize;
    let data = r.take(size)?;
    Ok((Event { pcr: pcr.min(u8::MAX.into()) as u8, kind, digest, data }, pcr))
}

fn startup_locality(data: &[u8]) -> Option<u8> {
    match data.strip_prefix(b"StartupLocality\0")? {
        [locality] => Some(*locality),
        _ => None,
    }
}

fn printable(data: &[u8]) -> String {
    data.iter().take(80).map(|b| if (0x20..0x7f).contains(b) { char::from(*b) } else { '?' }).collect()
}

/// UEFI_VARIABLE_DATA: GUID, name length (u64), data length (u64), UTF-16 name.
fn variable_name(data: &[u8]) -> String {
    let length = data.get(16).map_or(0, |n| usize::from(*n).min(40));
    let name = data.get(32..32 + 2 * length).unwrap_or_default();
    printable(&name.chunks_exact(2).map(|unit| unit[0]).collect::<Vec<_>>())
}
