//! Logs of every bank: the crypto-agile form, the older SHA-1 form, and a TDX guest's CCEL.

use crate::{
    error::AttestError,
    tpm::{HashAlg, Reader},
};

use super::event_type;

/// The longest log that is read, in bytes. Longer input is refused unread.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Highest register that firmware measures into.
const LAST_PCR: u32 = 23;

const MAX_ALGORITHMS: u32 = 16;
/// MRTD is 0, RTMR 0 to 3 are 1 to 4 (UEFI 2.10 §38.4.1, table 38.1).
const LAST_CC_MR: u32 = 4;

/// What a log's register indices mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registers {
    /// A TPM's PCRs, 0 to 23.
    Pcrs,
    /// The measurement registers of UEFI's Confidential Computing protocol (the CCEL table): MRTD
    /// is 0, RTMR *n* is *n* + 1.
    ConfidentialComputing,
}

/// How a log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// TCG_PCR_EVENT2 after a Spec ID Event03: every event has a digest for every active bank.
    CryptoAgile,
    /// TCG_PCR_EVENT alone: SHA-1, from before TPM 2.0.
    Sha1,
}

/// One measurement, as the log lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The register's index, raw: see [`Registers`].
    pub register: u32,
    /// TCG_EVENTTYPE.
    pub kind: u32,
    /// What the log says about it. Not measured as such: believe it only where it hashes to the
    /// digest.
    pub data: &'a [u8],
    /// By [`HashAlg::ALL`].
    digests: [Option<&'a [u8]>; 4],
}

impl<'a> Record<'a> {
    /// What was extended in a bank.
    pub fn digest(&self, bank: HashAlg) -> Option<&'a [u8]> {
        *self.digests.get(bank as usize)?
    }
}

/// A parsed log of any form and any banks.
///
/// A log is hostile: parsing borrows slices of it and never sizes anything by a number it states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log<'a> {
    form: Form,
    banks: Vec<HashAlg>,
    records: Vec<Record<'a>>,
    startup_locality: u8,
}

impl<'a> Log<'a> {
    /// Reads a log. Zero or 0xff padding after the last event is allowed.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for an event of a bank that the header does not list, any size
    /// that does not fit, a register that does not exist, or two StartupLocalities that differ.
    pub fn parse(bytes: &'a [u8], registers: Registers) -> Result<Self, AttestError> {
        let mut r = Reader::new("event log", bytes);
        if bytes.len() > MAX_BYTES {
            return Err(r.error(format!("{} bytes, at most {MAX_BYTES} allowed", bytes.len())));
        }
        let header = read_header(&mut r, registers)?;
        let form = if header.is_some() { Form::CryptoAgile } else { Form::Sha1 };
        let listed = header.unwrap_or_else(|| vec![(HashAlg::Sha1.id(), HashAlg::Sha1.size())]);
        let banks = listed.iter().filter_map(|(id, _)| HashAlg::from_id(*id)).collect();
        let mut log = Self { form, banks, records: Vec::new(), startup_locality: 0 };
        let mut locality_seen = None;
        // Found once: to ask at every event whether only padding follows would take quadratic time.
        let padding = padding(bytes);
        while r.rest().len() > padding {
            let record = match form {
                Form::CryptoAgile => read_event2(&mut r, &listed)?,
                Form::Sha1 => read_event(&mut r)?,
            };
            if record.kind == event_type::NO_ACTION {
                if let Some(locality) = startup_locality(record.data) {
                    if locality_seen.is_some_and(|seen| seen != locality) {
                        return Err(r.error("two StartupLocalities that differ"));
                    }
                    locality_seen = Some(locality);
                    log.startup_locality = locality;
                }
                continue;
            }
            let last = match registers {
                Registers::Pcrs => LAST_PCR,
                Registers::ConfidentialComputing => LAST_CC_MR,
            };
            if record.register > last {
                return Err(r.error(format!(
                    "an event extends register {}, the last one is {last}",
                    record.register
                )));
            }
            // Firmware lists every bank that it could use, and extends those that are active.
            log.banks.retain(|bank| record.digest(*bank).is_some());
            log.records.push(record);
        }
        Ok(log)
    }

    /// How it is written.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The banks for which every event has a digest; others (inactive ones, or SM3) are left out.
    pub fn banks(&self) -> &[HashAlg] {
        &self.banks
    }

    /// The events that extend a register, in order; those of type EV_NO_ACTION do not.
    pub fn records(&self) -> &[Record<'a>] {
        &self.records
    }

    /// The locality of TPM2_Startup, with which PCR 0 begins; 0 where the log does not say.
    pub fn startup_locality(&self) -> u8 {
        self.startup_locality
    }
}

/// How many equal bytes, zero or 0xff, end the log.
fn padding(bytes: &[u8]) -> usize {
    match bytes.last() {
        Some(filler @ (0 | 0xff)) => bytes.iter().rev().take_while(|byte| *byte == filler).count(),
        _ => 0,
    }
}

/// TCG_PCR_EVENT with TCG_EfiSpecIdEvent: each bank's algorithm and digest size. `None`, and
/// nothing read, for a log of the SHA-1 form, whose first event is like any other.
fn read_header(
    r: &mut Reader<'_>,
    registers: Registers,
) -> Result<Option<Vec<(u16, usize)>>, AttestError> {
    let mut ahead = Reader::new("event log", r.rest());
    let first = read_event(&mut ahead)?;
    let Some(spec) = first.data.strip_prefix(b"Spec ID Event03\0") else { return Ok(None) };
    r.require("first event's type", event_type::NO_ACTION, first.kind)?;
    // Intel's firmware names RTMR 0 in a CCEL's header; a PC Client log must name PCR 0.
    if registers == Registers::Pcrs {
        r.require("first event's PCR", 0, first.register)?;
    }
    r.take(r.rest().len() - ahead.rest().len())?;
    read_spec_id(spec).map(Some)
}

fn read_spec_id(spec: &[u8]) -> Result<Vec<(u16, usize)>, AttestError> {
    let mut spec = Reader::new("event log's Spec ID event", spec);
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
            0x000b | 0x0012 | 0x0027 => size == 32,
            0x000c | 0x0028 => size == 48,
            0x000d | 0x0029 => size == 64,
            _ => size <= 64,
        };
        if !right || banks.iter().any(|(known, _)| *known == algorithm) {
            return Err(spec.error(format!(
                "bank {algorithm:#06x} with digests of {size} bytes, or named twice"
            )));
        }
        banks.push((algorithm, size));
    }
    // What follows, the vendor's own information, says nothing about the events' form.
    Ok(banks)
}

/// TCG_PCR_EVENT2 (§10.2.2).
fn read_event2<'a>(r: &mut Reader<'a>, banks: &[(u16, usize)]) -> Result<Record<'a>, AttestError> {
    let register = r.u32_le()?;
    let kind = r.u32_le()?;
    let count = r.u32_le()? as usize;
    if count > banks.len() {
        return Err(r.error(format!(
            "an event with {count} digests, but {} banks are listed",
            banks.len()
        )));
    }
    let mut seen = 0_u32; // One bit for each of at most 16 banks.
    let mut digests = [None; 4];
    for _ in 0..count {
        let algorithm = r.u16_le()?;
        let known = banks
            .iter()
            .enumerate()
            .find(|(at, (known, _))| *known == algorithm && seen >> at & 1 == 0);
        let Some((at, (_, size))) = known else {
            return Err(r.error(format!("an event with bank {algorithm:#06x}, unknown or twice")));
        };
        seen |= 1 << at;
        let digest = r.take(*size)?;
        if let Some(slot) =
            HashAlg::from_id(algorithm).and_then(|bank| digests.get_mut(bank as usize))
        {
            *slot = Some(digest);
        }
    }
    let size = r.u32_le()? as usize;
    Ok(Record { register, kind, digests, data: r.take(size)? })
}

/// TCG_PCR_EVENT (§10.2.1).
fn read_event<'a>(r: &mut Reader<'a>) -> Result<Record<'a>, AttestError> {
    let register = r.u32_le()?;
    let kind = r.u32_le()?;
    let digest = r.take(HashAlg::Sha1.size())?;
    let size = r.u32_le()? as usize;
    Ok(Record { register, kind, digests: [Some(digest), None, None, None], data: r.take(size)? })
}

fn startup_locality(data: &[u8]) -> Option<u8> {
    match data.strip_prefix(b"StartupLocality\0")? {
        [locality] => Some(*locality),
        _ => None,
    }
}
