//! A TD's event log: the ACPI CCEL table's log area (UEFI 2.10 §38.4, TCG PFP 1.05 §10), or dstack's JSON.
//!
//! A log is hostile: parsing copies bounded slices and never sizes anything by a number it states. Only the
//! SHA-384 digests count, since they are what a TD extends. What an event says about itself is believed where
//! its digest proves it.

use cvm_base::Bytes;
use serde::Deserialize;
use sha2::{Digest as _, Sha384};

use super::TdxError;
use crate::{
    AttestError,
    eventlog::event_type,
    rtmr::{self, Bytes48, RTMRS, RtmrEvent, sha384},
    tpm::Reader,
};

/// More than any log; longer input is refused unread.
pub const MAX_LOG_BYTES: usize = 1024 * 1024;
const MAX_ALGORITHMS: u32 = 16;
const SHA384: u16 = 0x000c;
/// dstack's runtime measurements (RTMR3); their digest is over type, name and payload.
const DSTACK_RUNTIME: u32 = 0x0800_0001;

/// One measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CcEvent {
    /// The register, 0 to 3. In the log MR index 1 to 4.
    pub rtmr: u8,
    /// TCG_EVENTTYPE.
    pub kind: u32,
    /// What was extended.
    pub digest: Bytes48,
    /// What the log says about it. Not measured as such: believe it only where [`CcEvent::is_proven`].
    pub data: Vec<u8>,
    /// dstack's name of a runtime measurement; its digest covers it.
    pub name: Option<String>,
}

impl CcEvent {
    /// Whether the digest is that of what the log says.
    pub fn is_proven(&self) -> bool {
        match &self.name {
            Some(name) => self.digest == dstack_digest(self.kind, name, &self.data),
            None => self.digest == sha384(&self.data),
        }
    }

    /// A name for people: the event's text where its digest proves it or nothing hangs on it, else its type.
    pub fn describe(&self) -> String {
        if let Some(name) = &self.name {
            return format!("dstack {name}");
        }
        let proven = self.is_proven();
        match self.kind {
            event_type::SEPARATOR => "separator".into(),
            event_type::EFI_ACTION if proven => printable(&self.data),
            event_type::EFI_VARIABLE_DRIVER_CONFIG | EFI_VARIABLE_BOOT => format!("variable {}", self.variable()),
            event_type::EFI_VARIABLE_AUTHORITY => format!("authority {}", self.variable()),
            event_type::EFI_BOOT_SERVICES_APPLICATION => "application".into(),
            EFI_HANDOFF_TABLES2 => format!("handoff table {}", printable(self.data.get(1..).unwrap_or_default())),
            EFI_PLATFORM_FIRMWARE_BLOB2 => {
                format!("firmware {}", printable(self.data.get(1..).unwrap_or_default()))
            }
            EVENT_TAG => self.tagged().unwrap_or_else(|| "tagged event".into()),
            PLATFORM_CONFIG_FLAGS => printable(&self.data),
            event_type::IPL => "loader event".into(),
            other => format!("event {other:#010x}"),
        }
    }

    /// The TCG's name of its type, for claims.
    pub fn type_name(&self) -> &'static str {
        TYPE_NAMES.iter().find(|(kind, _)| *kind == self.kind).map_or("UNKNOWN", |(_, name)| name)
    }

    /// File paths of a UEFI_IMAGE_LOAD_EVENT's device path, as `File(kernel)`.
    pub(super) fn device_paths(&self) -> Option<Vec<String>> {
        if self.kind != event_type::EFI_BOOT_SERVICES_APPLICATION {
            return None;
        }
        // Address, length and link address of the image, length of the path.
        let mut path = self.data.get(32..)?;
        let mut files = Vec::new();
        while let Some(([kind, sub, low, high], _)) = path.split_first_chunk() {
            let size = usize::from(u16::from_le_bytes([*low, *high]));
            let node = path.get(4..size)?;
            if (*kind, *sub) == (4, 4) {
                files.push(format!("File({})", utf16(node)));
            }
            path = path.get(size..)?;
        }
        Some(files)
    }

    /// The text of a TCG_PCClientTaggedEvent: id, size, data.
    pub(super) fn tagged(&self) -> Option<String> {
        if self.kind != EVENT_TAG {
            return None;
        }
        let text = self.data.get(8..)?;
        Some(printable(text.strip_suffix(&[0]).unwrap_or(text)))
    }

    fn variable(&self) -> String {
        let characters = self.data.get(16).map_or(0, |count| usize::from(*count).min(40));
        utf16(self.data.get(32..32 + 2 * characters).unwrap_or_default())
    }
}

impl From<&CcEvent> for RtmrEvent {
    fn from(event: &CcEvent) -> Self {
        Self { rtmr: event.rtmr, event: event.describe(), digest: event.digest }
    }
}

/// A parsed log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CcEventLog {
    events: Vec<CcEvent>,
}

impl CcEventLog {
    /// Reads a CCEL table's log area, or dstack's JSON: an array of events, or an object with an `event_log`
    /// (an array, or a string that holds one).
    ///
    /// # Errors
    /// [`TdxError::EventLog`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TdxError> {
        if bytes.len() > MAX_LOG_BYTES {
            return Err(TdxError::event_log(format!("{} bytes, at most {MAX_LOG_BYTES} allowed", bytes.len())));
        }
        // A log area starts with the register of its first event: 0 to 4.
        let events = match bytes.trim_ascii_start() {
            [b'{' | b'[', ..] => parse_dstack(bytes)?,
            _ => parse_ccel(bytes).map_err(TdxError::event_log)?,
        };
        Ok(Self { events })
    }

    /// The events that extend a register, in order.
    pub fn events(&self) -> &[CcEvent] {
        &self.events
    }

    /// The values that the log leads to.
    pub fn replay(&self) -> [Bytes48; RTMRS] {
        rtmr::replay(self.events.iter().map(|event| (event.rtmr, &event.digest)))
    }

    /// Whether the log leads to what was quoted, in all four registers.
    ///
    /// # Errors
    /// [`TdxError::Replay`] names the first register that differs.
    pub fn check(&self, quoted: &[Bytes48; RTMRS]) -> Result<(), TdxError> {
        for ((rtmr, replayed), quoted) in (0..).zip(self.replay()).zip(*quoted) {
            if replayed != quoted {
                return Err(TdxError::Replay { rtmr, replayed, quoted });
            }
        }
        Ok(())
    }
}

fn parse_ccel(bytes: &[u8]) -> Result<Vec<CcEvent>, AttestError> {
    let mut r = Reader::new("CC event log", bytes);
    let banks = read_header(&mut r)?;
    let mut events = Vec::new();
    // The area is larger than the log.
    while !r.rest().iter().all(|byte| *byte == 0) && !r.rest().iter().all(|byte| *byte == 0xff) {
        if let Some(event) = read_event(&mut r, &banks)? {
            events.push(event);
        }
    }
    Ok(events)
}

/// TCG_PCR_EVENT with TCG_EfiSpecIdEvent; returns each bank's algorithm and digest size.
fn read_header(r: &mut Reader<'_>) -> Result<Vec<(u16, usize)>, AttestError> {
    r.u32_le()?; // firmware writes register 0 or 1 here
    let kind = r.u32_le()?;
    r.expect("first event's type", event_type::NO_ACTION, kind)?;
    r.take(20)?; // a SHA-1 digest of zeros
    let size = r.u32_le()? as usize;
    let mut spec = Reader::new("CC event log's Spec ID event", r.take(size)?);
    if spec.take(16)? != b"Spec ID Event03\0" {
        return Err(spec.error("not a crypto-agile log"));
    }
    spec.take(4 + 3 + 1)?; // platform class; version; size of UINTN
    let count = spec.u32_le()?;
    if count == 0 || count > MAX_ALGORITHMS {
        return Err(spec.error(format!("{count} banks, 1 to {MAX_ALGORITHMS} allowed")));
    }
    let mut banks: Vec<(u16, usize)> = Vec::new();
    for _ in 0..count {
        let (algorithm, size) = (spec.u16_le()?, usize::from(spec.u16_le()?));
        if size > 64 || (algorithm == SHA384) != (size == 48) || banks.iter().any(|(known, _)| *known == algorithm) {
            return Err(spec.error(format!("bank {algorithm:#06x} with digests of {size} bytes, or twice")));
        }
        banks.push((algorithm, size));
    }
    let vendor = spec.u8()?;
    spec.take(usize::from(vendor))?;
    spec.end()?;
    if banks.iter().all(|(algorithm, _)| *algorithm != SHA384) {
        return Err(spec.error("no SHA-384 bank"));
    }
    Ok(banks)
}

/// CC_EVENT: MR index, type, digests, data. EV_NO_ACTION extends nothing.
fn read_event(r: &mut Reader<'_>, banks: &[(u16, usize)]) -> Result<Option<CcEvent>, AttestError> {
    let (index, kind) = (r.u32_le()?, r.u32_le()?);
    let count = r.u32_le()? as usize;
    if count != banks.len() {
        return Err(r.error(format!("an event with {count} digests, expected {}", banks.len())));
    }
    let mut seen = Vec::with_capacity(banks.len());
    let mut digest = Bytes([0; 48]);
    for _ in 0..count {
        let algorithm = r.u16_le()?;
        let Some((_, size)) = banks.iter().find(|(known, _)| *known == algorithm && !seen.contains(known)) else {
            return Err(r.error(format!("an event with bank {algorithm:#06x}, unknown or twice")));
        };
        seen.push(algorithm);
        let bytes = r.take(*size)?;
        if algorithm == SHA384 {
            digest = bytes.try_into().map(Bytes).map_err(|_| r.error("a SHA-384 digest of another size"))?;
        }
    }
    let size = r.u32_le()? as usize;
    let data = r.take(size)?.to_vec();
    if kind == event_type::NO_ACTION {
        return Ok(None);
    }
    // Index 0 is MRTD, which nothing extends after launch.
    match index {
        1..=4 => Ok(Some(CcEvent { rtmr: index as u8 - 1, kind, digest, data, name: None })),
        _ => Err(r.error(format!("an event of MR index {index}, expected 1 to 4"))),
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    Events(Vec<DstackEvent>),
    Object { event_log: Nested },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Nested {
    Events(Vec<DstackEvent>),
    Text(String),
}

#[derive(Deserialize)]
struct DstackEvent {
    imr: u8,
    event_type: u32,
    digest: Bytes48,
    event: String,
    event_payload: String,
}

fn parse_dstack(json: &[u8]) -> Result<Vec<CcEvent>, TdxError> {
    let events = match serde_json::from_slice(json).map_err(TdxError::event_log)? {
        Document::Events(events) | Document::Object { event_log: Nested::Events(events) } => events,
        Document::Object { event_log: Nested::Text(text) } => {
            serde_json::from_str(&text).map_err(TdxError::event_log)?
        }
    };
    events.into_iter().filter(|event| event.event_type != event_type::NO_ACTION).map(CcEvent::try_from).collect()
}

impl TryFrom<DstackEvent> for CcEvent {
    type Error = TdxError;

    fn try_from(event: DstackEvent) -> Result<Self, TdxError> {
        let DstackEvent { imr: rtmr, event_type: kind, digest, event: name, event_payload } = event;
        if usize::from(rtmr) >= RTMRS {
            return Err(TdxError::event_log(format!("an event of RTMR{rtmr}, expected 0 to 3")));
        }
        let data = hex::decode(event_payload).map_err(TdxError::event_log)?;
        if kind != DSTACK_RUNTIME {
            return Ok(Self { rtmr, kind, digest, data, name: None });
        }
        // The digest is over the name and the payload that policies read: one that is not theirs is a lie.
        if digest != dstack_digest(kind, &name, &data) {
            let name: String = name.chars().take(80).collect();
            return Err(TdxError::event_log(format!("the digest of dstack's event {name:?} is not over its payload")));
        }
        Ok(Self { rtmr, kind, digest, data, name: Some(name) })
    }
}

fn dstack_digest(kind: u32, name: &str, payload: &[u8]) -> Bytes48 {
    let mut hash = Sha384::new();
    for part in [&kind.to_le_bytes()[..], b":", name.as_bytes(), b":", payload] {
        hash.update(part);
    }
    Bytes(hash.finalize().into())
}

fn printable(data: &[u8]) -> String {
    let visible = |byte: &u8| (0x20..0x7f).contains(byte);
    data.iter().take_while(|byte| **byte != 0).take(80).map(|b| if visible(b) { char::from(*b) } else { '?' }).collect()
}

fn utf16(bytes: &[u8]) -> String {
    let low = |unit: &[u8]| if unit[1] == 0 { unit[0] } else { b'?' };
    printable(&bytes.chunks_exact(2).map(low).collect::<Vec<_>>())
}

const PLATFORM_CONFIG_FLAGS: u32 = 0x0a;
const EVENT_TAG: u32 = 0x06;
const EFI_VARIABLE_BOOT: u32 = 0x8000_0002;
const EFI_PLATFORM_FIRMWARE_BLOB2: u32 = 0x8000_000a;
const EFI_HANDOFF_TABLES2: u32 = 0x8000_000b;

/// TCG PFP 1.05, table 27.
const TYPE_NAMES: [(u32, &str); 20] = [
    (0x04, "EV_SEPARATOR"),
    (0x05, "EV_ACTION"),
    (EVENT_TAG, "EV_EVENT_TAG"),
    (0x07, "EV_S_CRTM_CONTENTS"),
    (0x08, "EV_S_CRTM_VERSION"),
    (PLATFORM_CONFIG_FLAGS, "EV_PLATFORM_CONFIG_FLAGS"),
    (0x0d, "EV_IPL"),
    (0x0e, "EV_IPL_PARTITION_DATA"),
    (0x8000_0001, "EV_EFI_VARIABLE_DRIVER_CONFIG"),
    (EFI_VARIABLE_BOOT, "EV_EFI_VARIABLE_BOOT"),
    (0x8000_0003, "EV_EFI_BOOT_SERVICES_APPLICATION"),
    (0x8000_0004, "EV_EFI_BOOT_SERVICES_DRIVER"),
    (0x8000_0005, "EV_EFI_RUNTIME_SERVICES_DRIVER"),
    (0x8000_0006, "EV_EFI_GPT_EVENT"),
    (0x8000_0007, "EV_EFI_ACTION"),
    (0x8000_0008, "EV_EFI_PLATFORM_FIRMWARE_BLOB"),
    (0x8000_0009, "EV_EFI_HANDOFF_TABLES"),
    (EFI_PLATFORM_FIRMWARE_BLOB2, "EV_EFI_PLATFORM_FIRMWARE_BLOB2"),
    (EFI_HANDOFF_TABLES2, "EV_EFI_HANDOFF_TABLES2"),
    (0x8000_00e0, "EV_EFI_VARIABLE_AUTHORITY"),
];
