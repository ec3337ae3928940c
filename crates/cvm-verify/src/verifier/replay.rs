//! Whether a boot's log leads to what was quoted.

use cvm_base::{Bytes, Bytes32};

use cvm_evidence::{
    AttestError,
    eventlog::{EventLog, extend},
    handoff_digest,
    tpm::REQUIRED_PCRS,
};

/// Replays the log against the quote; whether `cvm-init` has measured its handoff.
///
/// The rule: PCRs 0 to 7 and 11 must replay, and PCR 11 may have been extended once more, by the
/// handoff. Software measures into the others after `ExitBootServices` (the kernel's IMA into PCR
/// 10, for one), and the firmware's log ends there; they are quoted, and a reference may still name
/// them.
pub(super) fn check(
    log: &EventLog<'_>,
    pcrs: &[Bytes32; REQUIRED_PCRS],
) -> Result<bool, AttestError> {
    let replayed = log.replay();
    let at = |pcr: u8| replayed.get(&pcr).copied().unwrap_or(Bytes([0; 32]));
    for (pcr, quoted) in (0u8..).zip(pcrs) {
        let replayed = at(pcr);
        match pcr {
            0..=7 if *quoted != replayed => {
                return Err(AttestError::Replay { pcr, replayed, quoted: *quoted });
            }
            11 if *quoted == extend(&replayed, &handoff_digest()) => return Ok(true),
            11 if *quoted != replayed => {
                return Err(AttestError::Replay { pcr, replayed, quoted: *quoted });
            }
            _ => {}
        }
    }
    Ok(false)
}
