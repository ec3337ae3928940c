//! What a run reports: while it goes on, and at its end.

use std::{fmt, time::Duration};

use cvm_collateral::Key;

use crate::error::FetchError;

/// What happens, for whoever watches. `Display` gives one line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// A request begins.
    Asking {
        /// What is asked.
        url: &'a str,
        /// How often it was asked before.
        tried: u32,
    },
    /// An attempt failed, and will be repeated.
    Failed {
        /// What was asked.
        url: &'a str,
        /// What happened.
        what: &'a str,
    },
    /// The next request must wait.
    Waiting {
        /// What will be asked.
        url: &'a str,
        /// For how long.
        time: Duration,
    },
}

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asking { url, tried: 0 } => write!(f, "asking {url}"),
            Self::Asking { url, tried } => write!(f, "asking {url} again ({tried} tried)"),
            Self::Failed { url, what } => write!(f, "{url}: {what}; it will be tried again"),
            Self::Waiting { url, time } => {
                write!(f, "waiting {:.0} s before {url}", time.as_secs_f64().ceil())
            }
        }
    }
}

/// What happened to each key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Fetched, and handed on.
    pub fetched: Vec<Key>,
    /// Not fetched, and why.
    pub failed: Vec<(Key, FetchError)>,
}
