//! Two lists of measurements, and where they part.

use std::fmt;

/// The first measurement at which what was measured leaves what was expected.
///
/// Generic over digests, so that PCRs and RTMRs of every bank share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference<D> {
    /// Another measurement than the one expected.
    Other {
        /// Name and digest.
        expected: (String, D),
        /// Name and digest.
        measured: (String, D),
    },
    /// The list ends where this one was expected.
    Missing {
        /// Name and digest.
        expected: (String, D),
    },
    /// One more than expected.
    Additional {
        /// Name and digest.
        measured: (String, D),
    },
}

impl<D: fmt::Display> fmt::Display for Difference<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other { expected: (name, digest), measured: (other, found) } => {
                write!(f, "expected \"{name}\" ({digest}), measured \"{other}\" ({found})")
            }
            Self::Missing { expected: (name, digest) } => {
                write!(f, "expected \"{name}\" ({digest}), which was not measured")
            }
            Self::Additional { measured: (name, digest) } => {
                write!(f, "\"{name}\" ({digest}) was measured in addition")
            }
        }
    }
}

/// Compares the measurements of one register, in order; names play no part. `None` when they are
/// the same.
pub fn first_difference<'a, D: PartialEq>(
    expected: impl IntoIterator<Item = (&'a str, D)>,
    measured: impl IntoIterator<Item = (&'a str, D)>,
) -> Option<Difference<D>> {
    let (mut expected, mut measured) = (expected.into_iter(), measured.into_iter());
    loop {
        return match (expected.next(), measured.next()) {
            (Some((_, e)), Some((_, m))) if e == m => continue,
            (Some((name, e)), Some((other, m))) => {
                Some(Difference::Other { expected: (name.into(), e), measured: (other.into(), m) })
            }
            (Some((name, e)), None) => Some(Difference::Missing { expected: (name.into(), e) }),
            (None, Some((name, m))) => Some(Difference::Additional { measured: (name.into(), m) }),
            (None, None) => None,
        };
    }
}

/// What changes a measurement of this name from one boot to another, in an operator's words.
pub fn likely_cause(event: &str) -> Option<&'static str> {
    let name = event.to_lowercase();
    let names = |words: &[&str]| words.iter().any(|word| name.contains(word));
    Some(if names(&["command line", "loadoptions", "cmdline"]) {
        "the command line changed"
    } else if names(&["initrd", "initramfs"]) {
        "another initramfs"
    } else if names(&["hob", "tdxtable"]) {
        "the host gave another memory size or layout"
    } else if names(&["acpi"]) {
        "the host gave other devices, another vCPU count, or another version of its VMM"
    } else if names(&["bootorder", "boot0"]) {
        "the host gave other disks or another boot order"
    } else if names(&["secureboot", "variable pk", "variable kek", "variable db", "authority"]) {
        "other Secure Boot keys, or Secure Boot is off"
    } else if names(&["firmware", "configuration volume", "crtm"]) {
        "firmware newer or older than the one predicted"
    } else if names(&["application", "loader", "kernel", "uki", ".linux", ".osrel"]) {
        "another loader or kernel"
    } else {
        return None;
    })
}
