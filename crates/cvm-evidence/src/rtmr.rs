//! The runtime measurement registers of a TD: replay, and where two runs differ (Intel TDX Module
//! 1.5 Base Architecture Specification, "Measurement and Attestation").
//!
//! A TD has MRTD, fixed at its launch, and RTMR0 to RTMR3, which software extends. Firmware
//! measures into them what it would measure into PCRs: RTMR0 ← PCR 1 and 7, RTMR1 ← PCR 2 to 6,
//! RTMR2 ← PCR 8 to 15 (UEFI 2.10 §38.4.1); RTMR3 is the system's own.

use std::fmt;

use cvm_base::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha384};

use crate::eventlog::likely_cause;

/// 48 bytes: a SHA-384 digest, a register of a TD.
pub type Bytes48 = Bytes<48>;

/// How many registers a TD has.
pub const RTMRS: usize = 4;

/// One measurement: one that a boot makes, or made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RtmrEvent {
    /// The register, 0 to 3.
    pub rtmr: u8,
    /// What is measured, for people.
    pub event: String,
    /// What is extended.
    pub digest: Bytes48,
}

/// SHA-384 (FIPS 180-4) of `bytes`.
pub fn sha384(bytes: &[u8]) -> Bytes48 {
    Bytes(Sha384::digest(bytes).into())
}

/// TDG.MR.RTMR.EXTEND: SHA-384(`register` ‖ `digest`).
pub fn extend(register: &Bytes48, digest: &Bytes48) -> Bytes48 {
    sha384(&[register.0, digest.0].concat())
}

/// The values that these measurements lead to. One of a register that no TD has is ignored.
pub fn replay<'a>(events: impl IntoIterator<Item = (u8, &'a Bytes48)>) -> [Bytes48; RTMRS] {
    let mut registers = [Bytes([0; 48]); RTMRS];
    for (rtmr, digest) in events {
        if let Some(register) = registers.get_mut(usize::from(rtmr)) {
            *register = extend(register, digest);
        }
    }
    registers
}

/// A register whose measurements differ from those expected, and the first one at which they do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtmrMismatch {
    /// The register.
    pub rtmr: u8,
    /// How many measurements of this register agree before it.
    pub position: usize,
    /// What was expected there; nothing, where the boot measured something in addition.
    pub expected: Option<RtmrEvent>,
    /// What was measured there; nothing, where the boot stopped measuring early.
    pub found: Option<RtmrEvent>,
    /// What most likely made the difference.
    pub likely: String,
}

impl fmt::Display for RtmrMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RTMR{}, measurement {}: ", self.rtmr, self.position)?;
        match (&self.expected, &self.found) {
            (Some(e), Some(m)) => {
                write!(
                    f,
                    "expected \"{}\" ({}), measured \"{}\" ({})",
                    e.event, e.digest, m.event, m.digest
                )?;
            }
            (Some(e), None) => {
                write!(f, "expected \"{}\" ({}), which was not measured", e.event, e.digest)?
            }
            (None, Some(m)) => {
                write!(f, "\"{}\" ({}) was measured in addition", m.event, m.digest)?
            }
            (None, None) => f.write_str("no difference")?,
        }
        write!(f, "; likely: {}", self.likely)
    }
}

/// Every register whose measurements differ, named by the first that does.
pub fn explain(expected: &[RtmrEvent], found: &[RtmrEvent]) -> Vec<RtmrMismatch> {
    (0..RTMRS as u8).filter_map(|rtmr| first_difference(rtmr, expected, found)).collect()
}

fn first_difference(rtmr: u8, expected: &[RtmrEvent], found: &[RtmrEvent]) -> Option<RtmrMismatch> {
    let mut expected = expected.iter().filter(|event| event.rtmr == rtmr);
    let mut found = found.iter().filter(|event| event.rtmr == rtmr);
    let mut position = 0;
    loop {
        let (e, m) = (expected.next(), found.next());
        match (e, m) {
            (None, None) => return None,
            (Some(e), Some(m)) if e.digest == m.digest => position += 1,
            _ => {
                let likely = likely(rtmr, e.or(m)).into();
                return Some(RtmrMismatch {
                    rtmr,
                    position,
                    expected: e.cloned(),
                    found: m.cloned(),
                    likely,
                });
            }
        }
    }
}

/// What changes such a measurement from one boot to another.
fn likely(rtmr: u8, event: Option<&RtmrEvent>) -> &'static str {
    event.and_then(|event| likely_cause(&event.event)).unwrap_or(register_cause(rtmr))
}

/// What changes a register whose measurements are not known.
pub fn register_cause(rtmr: u8) -> &'static str {
    match rtmr {
        0 => "firmware or virtual hardware other than predicted",
        1 => "another loader or kernel, or another way to boot",
        2 => "another kernel, initramfs or command line",
        _ => "software in the system measured something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(rtmr: u8, event: &str) -> RtmrEvent {
        RtmrEvent { rtmr, event: event.into(), digest: sha384(event.as_bytes()) }
    }

    #[test]
    fn a_difference_is_named_by_register_and_first_event() {
        let expected = [
            event(0, "TD HOB"),
            event(2, "kernel command line"),
            event(2, "initramfs"),
            event(1, "UKI"),
        ];
        assert_eq!(explain(&expected, &expected), []);

        let mut changed = expected.clone();
        changed[1].digest = sha384(b"init=/bin/sh");
        let [mismatch] = &explain(&expected, &changed)[..] else { panic!() };
        assert_eq!((mismatch.rtmr, mismatch.position), (2, 0));
        assert_eq!(mismatch.likely, "the command line changed");
        assert!(
            mismatch
                .to_string()
                .starts_with("RTMR2, measurement 0: expected \"kernel command line\" (")
        );

        // One more in RTMR3, one fewer in RTMR0.
        let more = [&expected[1..], &[event(3, "app")]].concat();
        let [fewer, additional] = &explain(&expected, &more)[..] else { panic!() };
        assert_eq!((fewer.rtmr, fewer.found.as_ref()), (0, None));
        assert_eq!(fewer.likely, "the host gave another memory size or layout");
        assert_eq!((additional.rtmr, additional.expected.as_ref()), (3, None));
    }

    #[test]
    fn order_within_a_register_matters_and_between_registers_does_not() {
        let [a, b] = [b"a", b"b"].map(|text| sha384(text));
        assert_eq!(replay([(0, &a), (1, &b)]), replay([(1, &b), (0, &a)]));
        assert_ne!(replay([(0, &a), (0, &b)]), replay([(0, &b), (0, &a)]));
        assert_eq!(replay([(4, &a)]), [Bytes([0; 48]); 4]);
    }
}
