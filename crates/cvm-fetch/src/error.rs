//! Why a piece could not be fetched.

use std::time::Duration;

use cvm_base::Explain;

use cvm_collateral::CollateralError;

/// A piece could not be fetched, or the fetcher cannot work as it was told to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No service gives this away.
    #[error("no public service gives this away")]
    NotOffered,
    /// The service says that there is no such thing, or that the request is wrong.
    #[error("{url} answered with status {status}")]
    Refused {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The service, or something in between, points elsewhere. That is not followed.
    #[error("{url} redirects to {to}, which is not followed")]
    Redirect {
        /// What was asked.
        url: String,
        /// The `Location` it gave, shortened.
        to: String,
    },
    /// The answer is longer than such an answer can be.
    #[error("{url} answered with more than {limit} bytes")]
    TooLong {
        /// What was asked.
        url: String,
        /// The most that is read.
        limit: u64,
    },
    /// The answer is something else than what was asked for.
    #[error("{url} answered with something else: {problem}")]
    Wrong {
        /// What was asked.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The service could not be reached, or answered that it has a problem, each time.
    #[error("{url}: gave up after {tries} tries, the last: {last}")]
    Unavailable {
        /// What was asked.
        url: String,
        /// How often.
        tries: u32,
        /// What happened last.
        last: String,
    },
    /// The service had been given up before this was asked.
    #[error("{url} was not asked: its service was given up ({last})")]
    ServiceDown {
        /// What would have been asked.
        url: String,
        /// What happened last.
        last: String,
    },
    /// No time was left.
    #[error("{url}: the time for all of this ({limit:?}) is over{}", after(.last))]
    Deadline {
        /// What was asked, or would have been.
        url: String,
        /// The whole run's limit.
        limit: Duration,
        /// What happened last, if it was asked.
        last: Option<String>,
    },
    /// The answer is what was asked for by its form, but not by its content.
    #[error(transparent)]
    Content(#[from] CollateralError),
    /// A base URL, a proxy or a certificate authority cannot be used.
    #[error("{what} cannot be used: {problem}")]
    Setup {
        /// Which.
        what: String,
        /// What is wrong.
        problem: String,
    },
}

fn after(last: &Option<String>) -> String {
    last.as_ref().map(|last| format!("; the last try: {last}")).unwrap_or_default()
}

impl Explain for FetchError {
    fn code(&self) -> &'static str {
        "ATT-379"
    }

    fn help(&self) -> String {
        match self {
            Self::NotOffered => {
                "a VLEK comes with the evidence, from the cloud provider: `flare-cvm collateral \
                 import` it"
            }
            Self::Refused { .. } => {
                "the vendor does not know this chip, platform or manifest, or not at this TCB: \
                 check the evidence"
            }
            Self::Redirect { .. } | Self::Wrong { .. } | Self::TooLong { .. } => {
                "a proxy or a login page may be in between: look at the URL with a browser, or \
                 name a mirror"
            }
            Self::Unavailable { .. } | Self::ServiceDown { .. } => {
                "try again later: what was fetched is kept, and only the rest is asked for again"
            }
            Self::Deadline { .. } => {
                "run it again for the rest, or allow more time; AMD answers one request in ten \
                 seconds"
            }
            Self::Content(refused) => return refused.help(),
            Self::Setup { .. } => {
                "give https://HOST[:PORT] (http only for this machine), and PEM certificates"
            }
        }
        .into()
    }
}
