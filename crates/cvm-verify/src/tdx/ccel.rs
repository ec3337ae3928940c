//! A TD's event log: the ACPI CCEL table's log area (UEFI 2.10 §38.4, TCG PFP 1.05 §10), or
//! dstack's JSON.
//!
//! A log is hostile: parsing copies bounded slices and never sizes anything by a number it states.
//! Only the SHA-384 digests count, since they are what a TD extends. What an event says about
//! itself is believed where its digest proves it.

use cvm_base::Bytes;
use serde::Deserialize;
use sha2::{Digest as _, Sha384};

use super::TdxError;
use cvm_evidence::{
    eventlog::{Log, Record, Registers, event_type, event_type_name, variable_name},
    rtmr::{self, Bytes48, RTMRS, RtmrEvent, sha384},
    tpm::HashAlg,
};

/// More than any log; longer input is refused unread.
pub const MAX_LOG_BYTES: usize = 1024 * 1024;
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
    /// What the log says about it. Not measured as such: believe it only where
    /// [`CcEvent::is_proven`].
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

    /// A name for people: the event's text where its digest proves it or nothing hangs on it, else
    /// its type.
    pub fn describe(&self) -> String {
        if let Some(name) = &self.name {
            return format!("dstack {name}");
        }
        let proven = self.is_proven();
        match self.kind {
            event_type::SEPARATOR => "separator".into(),
            event_type::EFI_ACTION if proven => shown(&self.data),
            event_type::EFI_VARIABLE_DRIVER_CONFIG | EFI_VARIABLE_BOOT => {
                format!("variable {}", variable_name(&self.data))
            }
            event_type::EFI_VARIABLE_AUTHORITY => {
                format!("authority {}", variable_name(&self.data))
            }
            event_type::EFI_BOOT_SERVICES_APPLICATION => "application".into(),
            EFI_HANDOFF_TABLES2 => {
                format!("handoff table {}", shown(self.data.get(1..).unwrap_or_default()))
            }
            EFI_PLATFORM_FIRMWARE_BLOB2 => {
                format!("firmware {}", shown(self.data.get(1..).unwrap_or_default()))
            }
            EVENT_TAG => self.tagged().unwrap_or_else(|| "tagged event".into()),
            PLATFORM_CONFIG_FLAGS => shown(&self.data),
            event_type::IPL => "loader event".into(),
            other => format!("event {other:#010x}"),
        }
    }

    /// The TCG's name of its type, for claims.
    pub fn type_name(&self) -> &'static str {
        event_type_name(self.kind).unwrap_or("UNKNOWN")
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
        Some(shown(text.strip_suffix(&[0]).unwrap_or(text)))
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
    /// Reads a CCEL table's log area, or dstack's JSON: an array of events, or an object with an
    /// `event_log` (an array, or a string that holds one).
    ///
    /// # Errors
    /// [`TdxError::EventLog`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TdxError> {
        if bytes.len() > MAX_LOG_BYTES {
            return Err(TdxError::event_log(format!(
                "{} bytes, at most {MAX_LOG_BYTES} allowed",
                bytes.len()
            )));
        }
        // A log area starts with the register of its first event: 0 to 4.
        let events = match bytes.trim_ascii_start() {
            [b'{' | b'[', ..] => parse_dstack(bytes)?,
            _ => parse_ccel(bytes)?,
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

fn parse_ccel(bytes: &[u8]) -> Result<Vec<CcEvent>, TdxError> {
    let log = Log::parse(bytes, Registers::ConfidentialComputing).map_err(TdxError::event_log)?;
    if !log.banks().contains(&HashAlg::Sha384) {
        return Err(TdxError::event_log("no SHA-384 bank"));
    }
    let event = |record: &Record<'_>| {
        // Index 0 is MRTD, which nothing extends after launch.
        let rtmr = record.register.checked_sub(1).and_then(|rtmr| u8::try_from(rtmr).ok());
        let rtmr =
            rtmr.ok_or_else(|| TdxError::event_log("an event of MR index 0, expected 1 to 4"))?;
        let digest = record.digest(HashAlg::Sha384).and_then(|digest| digest.try_into().ok());
        let digest =
            digest.ok_or_else(|| TdxError::event_log("an event without a SHA-384 digest"))?;
        Ok(CcEvent {
            rtmr,
            kind: record.kind,
            digest: Bytes(digest),
            data: record.data.to_vec(),
            name: None,
        })
    };
    log.records().iter().map(event).collect()
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
    /// dstack leaves it out, or empty, where it follows from the rest (since 0.6, for its own
    /// events).
    #[serde(default)]
    digest: String,
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
    events
        .into_iter()
        .filter(|event| event.event_type != event_type::NO_ACTION)
        .map(CcEvent::try_from)
        .collect()
}

impl TryFrom<DstackEvent> for CcEvent {
    type Error = TdxError;

    fn try_from(event: DstackEvent) -> Result<Self, TdxError> {
        let DstackEvent { imr: rtmr, event_type: kind, digest, event: name, event_payload } = event;
        if usize::from(rtmr) >= RTMRS {
            return Err(TdxError::event_log(format!("an event of RTMR{rtmr}, expected 0 to 3")));
        }
        let data = hex::decode(event_payload).map_err(TdxError::event_log)?;
        let stated = match digest.as_str() {
            "" => None,
            hex => Some(hex.parse::<Bytes48>().map_err(TdxError::event_log)?),
        };
        if kind != DSTACK_RUNTIME {
            let digest = stated.ok_or_else(|| {
                TdxError::event_log("an event of the firmware's without its digest")
            })?;
            return Ok(Self { rtmr, kind, digest, data, name: None });
        }
        // The digest is over the name and the payload that policies read: one that is not theirs is
        // a lie.
        let digest = dstack_digest(kind, &name, &data);
        if stated.is_some_and(|stated| stated != digest) {
            let name: String = name.chars().take(80).collect();
            return Err(TdxError::event_log(format!(
                "the digest of dstack's event {name:?} is not over its payload"
            )));
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

/// A text up to its NUL: at most 80 characters.
fn shown(data: &[u8]) -> String {
    cvm_base::printable(data.split(|byte| *byte == 0).next().unwrap_or_default(), 80)
}

fn utf16(bytes: &[u8]) -> String {
    let low = |unit: &[u8]| if unit[1] == 0 { unit[0] } else { b'?' };
    shown(&bytes.chunks_exact(2).map(low).collect::<Vec<_>>())
}

const PLATFORM_CONFIG_FLAGS: u32 = 0x0a;
const EVENT_TAG: u32 = 0x06;
const EFI_VARIABLE_BOOT: u32 = 0x8000_0002;
const EFI_PLATFORM_FIRMWARE_BLOB2: u32 = 0x8000_000a;
const EFI_HANDOFF_TABLES2: u32 = 0x8000_000b;
