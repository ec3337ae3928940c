//! Time-outs, tries and paces.

use std::time::Duration;

/// How long things may take, and how often they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// TCP and TLS handshakes.
    pub connect: Duration,
    /// One request, everything included.
    pub request: Duration,
    /// Everything, up to the beginning of the last request.
    pub total: Duration,
    /// How often one request is tried.
    pub tries: u32,
    /// The pause after the first failure; each later one is twice as long, up to `longest_pause`,
    /// and up to half of it is left out at random.
    pub first_pause: Duration,
    /// The longest pause that this program chooses; a service may ask for a longer one.
    pub longest_pause: Duration,
    /// The time between two requests to AMD, which allows one in ten seconds from one address.
    pub amd_pace: Duration,
    /// The time between two requests to any other service.
    pub pace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(10),
            request: seconds(60),
            total: seconds(600),
            tries: 6,
            first_pause: seconds(2),
            longest_pause: seconds(60),
            amd_pace: seconds(10),
            pace: Duration::from_millis(200),
        }
    }
}
