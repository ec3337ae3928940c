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

/// Compares the measurements of one register, in order; names play no part. `None` when they are the same.
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
