//! The report of a GPU or switch: an SPDM 1.1 GET_MEASUREMENTS request and the response to it.
//!
//! DMTF DSP0274 1.1, §10.11: tables "GET_MEASUREMENTS request message", "Successful MEASUREMENTS
//! response message" and "Measurement block". The signature covers the request and the response
//! without itself.

use std::collections::BTreeMap;

use super::{GpuError, opaque::Opaque};

/// A report has some 4 KiB; longer input is refused unread.
pub const MAX_REPORT_BYTES: usize = 64 * 1024;

const WHAT: &str = "attestation report";
const SPDM_1_1: u8 = 0x11;
const GET_MEASUREMENTS: u8 = 0xe0;
const MEASUREMENTS: u8 = 0x60;
/// With a signature: header, nonce, slot.
const REQUEST_BYTES: usize = 37;
/// r and s of P-384, 48 bytes each, most significant byte first.
const SIGNATURE_BYTES: usize = 96;
/// DSP0274, table "Measurement block format": bit 0, DMTF.
const DMTF: u8 = 1;

/// A report that was read, and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    bytes: Vec<u8>,
    nonce: [u8; 32],
    measurements: BTreeMap<u8, Vec<u8>>,
    pub(super) opaque: Opaque,
}

impl Report {
    /// Reads a request and its response, with nothing after them.
    ///
    /// # Errors
    /// [`GpuError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, GpuError> {
        if bytes.len() > MAX_REPORT_BYTES {
            let problem = format!("{} bytes, at most {MAX_REPORT_BYTES} allowed", bytes.len());
            return Err(GpuError::malformed(WHAT, problem));
        }
        let mut input = Input(bytes);
        let request = input.take(REQUEST_BYTES, "request")?;
        let nonce = parse_request(request)?;
        let [version, code, _, _, blocks, l0, l1, l2] = input.array("response's head")?;
        if (version, code) != (SPDM_1_1, MEASUREMENTS) {
            let problem =
                format!("a response {version:02x} {code:02x}, not SPDM 1.1 MEASUREMENTS (11 60)");
            return Err(GpuError::malformed(WHAT, problem));
        }
        let record =
            input.take(u32::from_le_bytes([l0, l1, l2, 0]) as usize, "measurement record")?;
        let measurements = parse_record(record, blocks)?;
        // The responder's nonce makes signatures unpredictable; nobody chose it but the device.
        input.take(32, "responder's nonce")?;
        let length = u16::from_le_bytes(input.array("opaque data's length")?);
        let opaque = Opaque::parse(input.take(usize::from(length), "opaque data")?)?;
        input.take(SIGNATURE_BYTES, "signature")?;
        if !input.0.is_empty() {
            return Err(GpuError::malformed(
                WHAT,
                format!("{} bytes after the signature", input.0.len()),
            ));
        }
        Ok(Self { bytes: bytes.to_vec(), nonce, measurements, opaque })
    }

    /// What the one who asked wanted to see signed.
    pub fn nonce(&self) -> &[u8; 32] {
        &self.nonce
    }

    /// Index, counted from 1 as SPDM does, and value. Manifests count from 0.
    pub fn measurements(&self) -> &BTreeMap<u8, Vec<u8>> {
        &self.measurements
    }

    /// What is signed, and the signature (r ‖ s).
    pub fn signed_parts(&self) -> (&[u8], &[u8]) {
        // `parse` saw the signature; this cannot be shorter.
        self.bytes
            .split_at_checked(self.bytes.len().saturating_sub(SIGNATURE_BYTES))
            .unwrap_or_default()
    }
}

fn parse_request(request: &[u8]) -> Result<[u8; 32], GpuError> {
    let Some((&[version, code, param1, param2], rest)) = request.split_first_chunk() else {
        return Err(GpuError::malformed(WHAT, "no request"));
    };
    if (version, code) != (SPDM_1_1, GET_MEASUREMENTS) {
        let problem =
            format!("a request {version:02x} {code:02x}, not SPDM 1.1 GET_MEASUREMENTS (11 e0)");
        return Err(GpuError::malformed(WHAT, problem));
    }
    // Bit 0 asks for a signature, 0xff for every measurement; anything else is another question.
    if param1 & 1 == 0 || param2 != 0xff {
        let problem =
            format!("asks {param1:02x} {param2:02x}, not for all measurements, signed (01 ff)");
        return Err(GpuError::malformed(WHAT, problem));
    }
    rest.first_chunk().copied().ok_or_else(|| GpuError::malformed(WHAT, "no nonce"))
}

fn parse_record(record: &[u8], blocks: u8) -> Result<BTreeMap<u8, Vec<u8>>, GpuError> {
    let mut input = Input(record);
    let mut measurements = BTreeMap::new();
    for _ in 0..blocks {
        let [index, specification, s0, s1] = input.array("measurement block's head")?;
        let block = input.take(usize::from(u16::from_le_bytes([s0, s1])), "measurement block")?;
        let bad =
            |problem: &str| GpuError::malformed(WHAT, format!("measurement {index}: {problem}"));
        if specification != DMTF {
            return Err(bad("not of DMTF's format"));
        }
        let Some((&[_value_type, v0, v1], value)) = block.split_first_chunk() else {
            return Err(bad("no value"));
        };
        if value.len() != usize::from(u16::from_le_bytes([v0, v1])) {
            return Err(bad("its length and its block's length disagree"));
        }
        if index == 0 || measurements.insert(index, value.to_vec()).is_some() {
            return Err(bad("index 0 does not exist, and each other one exists once"));
        }
    }
    match input.0 {
        [] if blocks > 0 => Ok(measurements),
        [] => Err(GpuError::malformed(WHAT, "no measurements")),
        rest => Err(GpuError::malformed(
            WHAT,
            format!("{} bytes after the last measurement", rest.len()),
        )),
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], GpuError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| {
            GpuError::malformed(
                WHAT,
                format!("{} bytes left, {length} needed for the {what}", self.0.len()),
            )
        })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GpuError> {
        let (taken, rest) = self
            .0
            .split_first_chunk()
            .ok_or_else(|| GpuError::malformed(WHAT, format!("ends within the {what}")))?;
        self.0 = rest;
        Ok(*taken)
    }
}
