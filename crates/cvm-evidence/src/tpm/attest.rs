//! TPMS_ATTEST of type quote (TPM 2.0 part 2, §10.12).

use cvm_base::{Bytes, Bytes32};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Reader;
use crate::AttestError;

/// The PCRs that a quote must cover, no more and no fewer: 0 to this − 1 of the SHA-256 bank.
pub const REQUIRED_PCRS: usize = 16;

const GENERATED: u32 = 0xff54_4347; // TPM_GENERATED_VALUE, "\xffTCG"
const ATTEST_QUOTE: u32 = 0x8018; // TPM_ST_ATTEST_QUOTE
const MAX_SELECTIONS: u32 = 16; // TPM2_NUM_PCR_BANKS
const MAX_NAME: usize = 2 + 64;
const MAX_DATA: usize = 2 + 64;
const MAX_DIGEST: usize = 64;

/// What a quote says; believe it only after its signature and nonce were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The signing key's qualified name.
    pub qualified_signer: Vec<u8>,
    /// `extraData`: the caller's nonce.
    pub nonce: Vec<u8>,
    /// Clock and counters.
    pub clock: ClockInfo,
    /// The TPM's firmware version, vendor specific.
    pub firmware_version: u64,
    /// The banks and registers covered.
    pub selection: Vec<PcrSelection>,
    /// Digest over the covered registers' values.
    pub pcr_digest: Vec<u8>,
}

/// TPMS_CLOCK_INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockInfo {
    /// Milliseconds that the TPM has been powered.
    pub clock: u64,
    /// TPM resets since the last clear.
    pub reset_count: u32,
    /// TPM restarts and resumes since the last reset.
    pub restart_count: u32,
    /// Whether `clock` cannot have gone back.
    #[serde(rename = "clock_safe")]
    pub safe: bool,
}

/// TPMS_PCR_SELECTION.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcrSelection {
    /// TPM_ALG_ID of the bank: 0x000b is SHA-256.
    pub hash: u16,
    /// Bit *n* of the little-endian bitmap selects PCR *n*.
    pub bitmap: Vec<u8>,
}

impl PcrSelection {
    /// The registers selected, in ascending order.
    pub fn registers(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.bitmap).flat_map(|(at, byte)| {
            (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at * 8 + bit)
        })
    }

    /// SHA-256, PCR 0 to [`REQUIRED_PCRS`] − 1, in the three bytes of a PC Client TPM.
    pub fn required() -> Self {
        Self { hash: 0x000b, bitmap: vec![0xff, 0xff, 0x00] }
    }
}

impl std::fmt::Display for PcrSelection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.hash {
            0x0004 => f.write_str("sha1:")?,
            0x000b => f.write_str("sha256:")?,
            0x000c => f.write_str("sha384:")?,
            0x000d => f.write_str("sha512:")?,
            other => write!(f, "{other:#06x}:")?,
        }
        f.write_str(
            &self.registers().map(|register| register.to_string()).collect::<Vec<_>>().join(","),
        )
    }
}

/// Reads a marshalled TPMS_ATTEST that must be a quote.
///
/// # Errors
/// [`AttestError::Malformed`] for another magic or type, a size out of bounds, or trailing bytes.
pub fn parse_quote(bytes: &[u8]) -> Result<Quote, AttestError> {
    let mut r = Reader::new("TPMS_ATTEST", bytes);
    // The magic is what separates the TPM's own statements from anything else a key may sign.
    let magic = r.u32()?;
    r.require("magic", GENERATED, magic)?;
    let kind = r.u16()?;
    r.require("type", ATTEST_QUOTE, kind.into())?;
    let qualified_signer = r.sized(MAX_NAME)?.to_vec();
    let nonce = r.sized(MAX_DATA)?.to_vec();
    let clock = ClockInfo {
        clock: r.u64()?,
        reset_count: r.u32()?,
        restart_count: r.u32()?,
        safe: match r.u8()? {
            0 => false,
            1 => true,
            other => return Err(r.error(format!("clock safe is {other}, expected 0 or 1"))),
        },
    };
    let firmware_version = r.u64()?;
    let count = r.u32()?;
    if count > MAX_SELECTIONS {
        return Err(r.error(format!("{count} PCR selections, at most {MAX_SELECTIONS} allowed")));
    }
    let mut selection = Vec::new();
    for _ in 0..count {
        let hash = r.u16()?;
        let size = r.u8()?;
        if size > 4 {
            return Err(r.error(format!("a PCR bitmap of {size} bytes, at most 4 allowed")));
        }
        selection.push(PcrSelection { hash, bitmap: r.take(size.into())?.to_vec() });
    }
    let pcr_digest = r.sized(MAX_DIGEST)?.to_vec();
    r.end()?;
    Ok(Quote { qualified_signer, nonce, clock, firmware_version, selection, pcr_digest })
}

/// The digest a quote with SHA-256 carries over these values, in the order of their registers.
pub fn pcr_digest(pcrs: &[Bytes32]) -> Bytes32 {
    let mut hash = Sha256::new();
    for pcr in pcrs {
        hash.update(pcr.0);
    }
    Bytes(hash.finalize().into())
}
